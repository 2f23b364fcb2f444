"""Stands in for kafka-python's test/service.py, which its source distribution does not have.

It is copied to that place and runs in the suite's own environment.
"""

from __future__ import annotations


class ExternalService:
    """A broker that somebody else has started."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def stop(self) -> None:
        """Leave it to who started it."""

    def dump_logs(self) -> None:
        """Its log is not ours."""


class SpawnedService:
    """What would start a Kafka from a download.

    Raises:
        RuntimeError: always.
    """

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        raise RuntimeError("the test wants to start a Kafka of its own from a download")
