"""`ottla fsck` as users run it, on stores on the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla import Consumer, Producer
from ottla.cli.main import main
from tests.compat.serving import COMMAND, Serving

TIMEOUT_S = 60
COUNT = 20
LOG = "00000000000000000000.log"
NOT_MOUNTED = 99
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99
shift
exec "$@"
"""


Fsck = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fsck(capfdbinary: pytest.CaptureFixture[bytes]) -> Fsck:
    """Run it; returns exit code, stdout and stderr."""

    def call(folder: Path, *options: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["fsck", str(folder), *options])
        captured = capfdbinary.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out.decode(), captured.err.decode()

    return call


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of change of all files below a folder, and the folders' names."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def values_of(folder: Path) -> dict[int, bytes]:
    with Consumer(folder, "t", start="beginning", stop_at_end=True) as consumer:
        return {record.offset: record.value for record in consumer}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that was stopped cleanly, with twenty batches of one record."""
    folder = tmp_path / "store"
    with Producer(folder) as producer:
        for number in range(COUNT):
            producer.send("t", b"%03d" % number, partition=0).result()
    return folder


def damage(store: Path, number: int) -> bytes:
    """Flip a bit of a batch, and return the bytes of the batch then."""
    path = store / "t-0" / LOG
    content = bytearray(path.read_bytes())
    size = len(content) // COUNT
    content[number * size + 65] ^= 1
    path.write_bytes(content)
    return bytes(content[number * size : (number + 1) * size])


def test_nothing_is_wrong_with_a_store_that_was_stopped(store: Path, fsck: Fsck) -> None:
    before = everything(store)
    code, out, err = fsck(store)
    assert (code, err) == (0, "")
    assert out.startswith(f"{store}: checked 2 partitions, 2 segments, ")
    assert out.endswith(" records, after a clean stop: no problems\n")
    assert everything(store) == before


def test_damage_is_told_and_repaired_and_every_other_record_is_read(
    store: Path, fsck: Fsck
) -> None:
    batch = damage(store, 7)
    before = everything(store)
    code, out, err = fsck(store)
    assert code == 1
    finding, summary = out.splitlines()
    assert finding.startswith(f"loss     {store / 't-0' / LOG}: ")
    assert "the checksum of a batch is wrong; offset 7 is lost; with --repair: " in finding
    assert summary.endswith("after a clean stop: 1 problem")
    assert "Nothing was changed." in err
    assert "the same command with --repair" in err
    assert everything(store) == before

    code, out, err = fsck(store, "--repair")
    assert (code, err) == (0, "")
    assert "offset 7 is lost; repaired: the damaged bytes moved to" in out
    assert out.endswith(": 1 problem, 1 repaired\n")
    (kept,) = (store / "t-0").glob("*.cut")
    assert kept.read_bytes() == batch

    expected = {number: b"%03d" % number for number in range(COUNT) if number != 7}
    assert values_of(store) == expected
    with Producer(store) as producer:
        assert producer.send("t", b"new", partition=0).result().offset == COUNT
    assert values_of(store) == {**expected, COUNT: b"new"}
    code, out, err = fsck(store)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"note     {kept}: ")


def test_json_has_the_same(store: Path, fsck: Fsck) -> None:
    damage(store, 7)
    code, out, _ = fsck(store, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["version"], told["store"], told["was_clean"]) == (1, str(store), True)
    assert (told["problems"], told["repaired"], told["is_well"]) == (1, 0, False)
    assert told["checked"]["partitions"] == 2
    (finding,) = told["findings"]
    assert (finding["severity"], finding["kind"]) == ("loss", "damage")
    assert (finding["offset"], finding["offset_end"]) == (7, 8)
    assert finding["path"] == str(store / "t-0" / LOG)
    told = json.loads(fsck(store, "--json", "--repair")[1])
    assert (told["problems"], told["repaired"], told["is_well"]) == (1, 1, True)


def test_what_cannot_be_repaired_is_said(store: Path, fsck: Fsck) -> None:
    (store / "meta.properties").write_bytes(b"")
    code, out, err = fsck(store, "--repair")
    assert code == 1
    assert "put back the file that belongs to this data" in out
    assert "What is left --repair cannot put right" in err


def test_a_folder_that_is_no_store_stays_as_it_is(tmp_path: Path, fsck: Fsck) -> None:
    for folder in (tmp_path / "none", tmp_path):
        for options in ((), ("--repair",)):
            code, out, err = fsck(folder, *options)
            assert (code, out) == (1, "")
            assert f"there is no store in {folder}" in err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_option_is_a_usage_error(store: Path, fsck: Fsck) -> None:
    assert fsck(store, "--no-such-option")[0] == 2
    assert fsck(store, "--set", "nonsense")[0] == 2
    assert fsck(store, "--set", "no.such.config=1")[0] == 2
    assert fsck(store, "--set", "log.cleanup.policy=compact")[0] == 0


@pytest.mark.slow
def test_a_store_that_is_served_is_left_alone_and_its_owner_is_named(
    tmp_path: Path, fsck: Fsck
) -> None:
    with Serving(tmp_path / "store") as serving:
        for options in ((), ("--repair",)):
            code, out, err = fsck(tmp_path / "store", *options)
            assert (code, out) == (1, "")
            assert "is in use by process" in err
            assert "Stop that process first" in err
        with Producer(serving.address) as producer:
            producer.send("t", b"goes on").result()


@pytest.mark.slow
def test_after_kill_9_nothing_is_wrong_and_a_torn_tail_is_cut_off(
    tmp_path: Path, fsck: Fsck
) -> None:
    store = tmp_path / "store"
    serving = Serving(store)
    serving.start()
    with Producer(serving.address) as producer:
        for number in range(COUNT):
            producer.send("t", b"%03d" % number, partition=0).result()
        serving.stop(signal.SIGKILL)
    code, out, err = fsck(store)
    assert (code, err) == (0, "")
    assert out.endswith("after a stop that was not clean: no problems\n")
    with (store / "t-0" / LOG).open("ab") as file:
        file.write(b"\0" * 50)
    code, out, err = fsck(store)
    assert (code, err) == (0, "")
    words = "that a crash left unfinished and nobody was told were stored"
    assert out.startswith("note ")
    assert words in out
    code, out, err = fsck(store, "--repair")
    assert (code, err) == (0, "")
    assert "cut off 50 bytes at byte " in out
    assert words in out
    (kept,) = (store / "t-0").glob("*.cut")
    assert kept.read_bytes() == b"\0" * 50
    assert list(values_of(store)) == list(range(COUNT))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a folder read-only, as Linux does it")
def test_a_store_on_a_read_only_disk_is_checked(store: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1) here to mount the folder for one process")
    damage(store, 7)
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", READ_ONLY, "sh", store, *COMMAND, "fsck", store],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == NOT_MOUNTED or "unshare" in done.stderr:
        pytest.skip(f"this process may not mount: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert "offset 7 is lost" in done.stdout


def test_a_store_without_its_lock_file_is_checked_and_gets_none(store: Path, fsck: Fsck) -> None:
    os.remove(store / ".lock")
    before = everything(store)
    assert fsck(store)[0] == 0
    assert everything(store) == before
