"""Why a record was not delivered, or may not have been: the errors, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import OutcomeUnknown, Timeout, broker_error

if TYPE_CHECKING:
    from ottla.client.delivery import Batch
    from ottla.errors import BrokerError, KafkaError


def too_late(batch: Batch, now_ms: float, cause: KafkaError | None) -> Timeout:
    """Make the error for records that were never taken in all the time that they were given.

    Args:
        batch: the records.
        now_ms: the monotonic clock.
        cause: what stood in the way, where that is known.
    """
    seconds = (now_ms - batch.created_ms) / 1000
    reason = f": {cause.what}" if cause is not None else ""
    error = Timeout(
        f"a record to {batch.topic!r} could not be sent for {seconds:.1f} s{reason}",
        "It was NOT stored.",
        ("Check the broker, or allow more time with delivery_timeout_ms.",),
    )
    error.__cause__ = cause
    return error


def outcome_unknown(batch: Batch) -> OutcomeUnknown:
    """Make the error for records that were sent, and to which no answer came."""
    times = "once" if batch.attempts == 1 else f"{batch.attempts} times"
    reason = "" if batch.refusal is None else f": {batch.refusal.what}"
    return OutcomeUnknown(
        f"a record to {batch.topic!r} was sent {times} and never confirmed{reason}",
        "It may or may not be stored.",
        ("Read the topic to find out before it is sent again.",),
    )


def no_topic(code: int, name: str) -> BrokerError:
    """Make the error for records of a topic that there is not."""
    return broker_error(
        code,
        f"there is no topic {name!r}, and the broker does not create it by itself",
        "The record was NOT stored.",
        (
            f"Create it:             ottla topics create {name}",
            "Or let the broker do:  auto.create.topics.enable=true",
        ),
    )
