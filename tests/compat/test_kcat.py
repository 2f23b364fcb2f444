"""kcat lists, produces and consumes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla import Broker, Consumer, Producer

KCAT = shutil.which("kcat") or shutil.which("kafkacat")

pytestmark = pytest.mark.skipif(KCAT is None, reason="kcat is not installed")


def kcat(*arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [str(KCAT), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with Broker(tmp_path / "store") as broker:
        yield broker.listen()


def test_it_lists_brokers_and_topics(address: str) -> None:
    with Producer(address) as producer:
        producer.send("letters", b"x")
    found = json.loads(kcat("-b", address, "-L", "-J"))
    assert [broker["name"] for broker in found["brokers"]] == [address]
    assert found["controllerid"] == found["brokers"][0]["id"]
    [topic] = [topic for topic in found["topics"] if topic["topic"] == "letters"]
    assert [each["partition"] for each in topic["partitions"]] == [0]
    assert topic["partitions"][0]["leader"] == found["controllerid"]


def test_what_it_produces_is_read_by_us(address: str) -> None:
    options = ("-t", "letters", "-K", ":", "-H", "from=kcat", "-z", "snappy")
    kcat("-b", address, "-P", *options, given="a:1\nb:2\n")
    with Consumer(address, "letters", stop_at_end=True) as consumer:
        found = [(each.key, each.value, each.headers) for each in consumer]
    assert found == [(b"a", b"1", [("from", b"kcat")]), (b"b", b"2", [("from", b"kcat")])]


def test_it_consumes_what_we_produced_from_any_offset(address: str) -> None:
    with Producer(address, compression_type="lz4") as producer:
        for number in range(100):
            producer.send("letters", f"{number}", key=f"k{number}")
    options = ("-C", "-t", "letters", "-e", "-q", "-f", "%o %k %s\n")
    assert kcat("-b", address, *options).splitlines() == [f"{n} k{n} {n}" for n in range(100)]
    assert kcat("-b", address, *options, "-o", "-2").splitlines() == ["98 k98 98", "99 k99 99"]
    assert kcat("-b", address, *options, "-o", "40", "-c", "1").splitlines() == ["40 k40 40"]
