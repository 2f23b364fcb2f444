"""A record's life: what was observed of it, and the two tables that are drawn from that alone."""

from ottla.trace.life import Event, Life

__all__ = ["Event", "Life"]
