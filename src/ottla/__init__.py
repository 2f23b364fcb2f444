"""Kafka for Python, without the cluster."""

from ottla import _compiled

_compiled.activate()
