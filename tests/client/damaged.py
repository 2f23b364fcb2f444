"""A topic whose log is damaged while its broker has it open."""

from __future__ import annotations

from pathlib import Path

from ottla import Broker, Producer


def damage_the_second_of_three(broker: Broker, folder: Path) -> None:
    """Write three batches of one record to topic t, and flip the bits of the second's last byte."""
    for number in range(3):
        with Producer(broker) as producer:
            producer.send("t", f"{number}")
    log = folder / "t-0" / "00000000000000000000.log"
    damaged = bytearray(log.read_bytes())
    damaged[2 * len(damaged) // 3 - 1] ^= 0xFF
    log.write_bytes(damaged)
