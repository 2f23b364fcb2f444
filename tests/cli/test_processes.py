"""Commands as processes of their own: signals, pipes and exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ottla import Consumer, Producer
from tests.compat.serving import COMMAND, Serving

TIMEOUT_S = 60


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, out, err


def test_ctrl_c_ends_reading_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    with Serving(tmp_path / "store") as serving:
        with Producer(serving.address) as producer:
            producer.send("t", b"one")
        reading = start(tmp_path, "read", "-b", serving.address, "t", "-f")
        assert reading.stdout is not None
        assert reading.stdout.readline() == "one\n"
        reading.send_signal(signal.SIGINT)
        code, out, err = finish(reading)
    assert (code, out, err.strip()) == (130, "", "")


def test_a_reader_that_follows_prints_what_is_sent_later(tmp_path: Path) -> None:
    with Serving(tmp_path / "store") as serving:
        with Producer(serving.address) as producer:
            producer.send("t", b"one")
            reading = start(tmp_path, "read", "-b", serving.address, "t", "-f", "-n", "2")
            assert reading.stdout is not None
            assert reading.stdout.readline() == "one\n"
            producer.send("t", b"two").result()
        assert finish(reading)[:2] == (0, "two\n")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_cleanly_with_nothing_lost(tmp_path: Path, how: signal.Signals) -> None:
    serving = Serving(tmp_path / "store")
    serving.start()
    with Producer(serving.address) as producer:
        for number in range(100):
            producer.send("t", f"{number}")
        producer.flush()
        assert serving.stop(how) == 0
    assert (tmp_path / "store" / ".kafka_cleanshutdown").exists()
    with Consumer(tmp_path / "store", "t", stop_at_end=True) as consumer:
        assert [int(record.value) for record in consumer] == list(range(100))


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with Serving(tmp_path / "store") as serving:
        code, out, err = finish(start(tmp_path, "serve", "other", "--listen", serving.address))
    assert (code, out) == (2, "")
    assert f"cannot listen on {serving.address}" in err
    assert "Nothing was started." in err


def test_a_store_that_is_served_is_reached_by_its_folder(tmp_path: Path) -> None:
    with Serving(tmp_path / "ottla-data") as serving:
        assert finish(start(tmp_path, "send", "t", "x", "-q")) == (0, "", "")
        with Consumer(serving.address, "t", stop_at_end=True) as consumer:
            assert [record.value for record in consumer] == [b"x"]
        code, _, err = finish(start(tmp_path, "serve", "--listen", "127.0.0.1:0"))
        assert code == 1
        assert f"it is served already on {serving.address}" in err


def test_what_is_partly_stored_ends_4_with_what_was_not(tmp_path: Path) -> None:
    sending = start(tmp_path, "send", "t")
    out, err = sending.communicate("small\n" + "x" * 2_000_000 + "\n", timeout=TIMEOUT_S)
    assert sending.returncode == 4
    assert out == "t/0: 1 record stored, offsets 0 to 0\n"
    assert "ottla: 1 record was stored, then: the record takes 2000" in err
    assert "max_request_size" in err


def test_a_reader_whose_output_is_closed_ends_quietly(tmp_path: Path) -> None:
    with Producer(tmp_path / "ottla-data") as producer:
        for _ in range(20_000):
            producer.send("t", b"x" * 100)
    reading = start(tmp_path, "read", "t")
    assert reading.stdout is not None
    assert reading.stdout.readline()
    reading.stdout.close()
    assert reading.wait(TIMEOUT_S) == 1
    assert reading.stderr is not None
    assert reading.stderr.read() == ""
    reading.stderr.close()
    if reading.stdin is not None:
        reading.stdin.close()


def test_the_module_s_command_is_the_one_that_is_installed() -> None:
    script = Path(sys.executable).parent / "ottla"
    done = subprocess.run(
        [str(script), "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout.startswith("ottla ")
