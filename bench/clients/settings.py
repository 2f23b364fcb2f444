"""How each client is set up: what its documentation recommends for the work that is measured.

Also the sides of the cases take them from here, so that what is printed is what was used.
"""

from __future__ import annotations

from typing import Any

BULK: dict[str, dict[str, Any]] = {
    # librdkafka, "High throughput": a larger linger.ms and full batches; and a queue that takes
    # all, so that no BufferError has to be waited out. Without delivery callbacks: each costs.
    "confluent": {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 50,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 10_000_000,
        "queue.buffering.max.kbytes": 2_000_000,
    },
    # Larger batches and a linger are what its documentation names for throughput.
    "aiokafka": {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
        "max_batch_size": 512 * 1024,
    },
    "kafka_python": {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
        "batch_size": 512 * 1024,
    },
    "ottla": {"acks": "all", "enable_idempotence": True},
}
"""For as many records a second as can be."""

SINGLE: dict[str, dict[str, Any]] = {
    "confluent": {"acks": "all", "enable.idempotence": True, "linger.ms": 0},
    "ottla": {"acks": "all", "enable_idempotence": True},
}
"""For a record that is sent and waited for."""

READING: dict[str, dict[str, Any]] = {
    # A queue in which all finds room, and no pause of a second where it does not.
    "confluent": {
        "group.id": "bench",
        "enable.auto.commit": False,
        "check.crcs": True,
        "queued.max.messages.kbytes": 1_048_576,
        "queued.min.messages": 1_000_000,
        "fetch.queue.backoff.ms": 10,
    },
    "aiokafka": {"check_crcs": True, "max_partition_fetch_bytes": 10_485_760},
    "kafka_python": {"check_crcs": True, "max_partition_fetch_bytes": 10_485_760},
    "ottla": {},
}
"""For reading a topic from its beginning to its end."""


def compression_of(client: str, codec: str) -> dict[str, Any]:
    """Return the setting that has a client compress; nothing for "none".

    Raises:
        KeyError: the client is not known.
    """
    name = "compression.type" if client == "confluent" else "compression_type"
    return {name: codec} if codec != "none" and BULK[client] else {}
