"""What a command does not import, because it does without: a short command is to start fast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN_AND_SHOW_MODULES = """
import atexit, sys
from ottla.cli.main import main
atexit.register(lambda: print(*sys.modules, sep="\\n", file=sys.stderr))
main()
"""

NEVER = ("rich", "email", "http", "urllib", "importlib.metadata", "unittest", "ottla.log.fsck")
NETWORK = ("asyncio", "uvloop", "ssl", "socket", "selectors", "concurrent")
EMBEDDED = (
    *NETWORK,
    "ottla.broker.connection",
    "ottla.broker.server",
    "ottla.client.tcp",
    "ottla.log.memory_files",
)
GROUPS = (
    "ottla.broker.groups",
    "ottla.coordinator.group",
    "ottla.protocol.messages.group_records",
    "ottla.client.consumer",
    "ottla.client.group",
    "ottla.client.membership",
    "hashlib",
)
OTHERS = (
    "ottla.broker.cleaner",
    "ottla.broker.fetch_sessions",
    "ottla.log.compaction",
    "ottla.client.admin",
)
ONE_REQUEST_EACH = {"api_00_produce", "api_03_metadata", "api_18_api_versions"}
"""What a `send` asks a broker for; and a producer that does not know its id yet, for one."""


def modules_of(folder: Path, *arguments: str) -> set[str]:
    """Run a command, and return the names of all modules that its process has at its end."""
    environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
    ran = subprocess.run(
        [sys.executable, "-c", RUN_AND_SHOW_MODULES, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.split())


def found(modules: set[str], unwanted: tuple[str, ...]) -> list[str]:
    """Return the modules that are there and should not be, with what is inside of packages."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in unwanted)
    )


def test_an_embedded_send_imports_nothing_that_serves_groups_or_a_network(tmp_path: Path) -> None:
    for _ in range(2):  # the second finds the topic that the first has made
        modules = modules_of(tmp_path, "send", "t", "Hello Kafka")
        assert found(modules, (*NEVER, *EMBEDDED, *GROUPS, *OTHERS)) == []
        handlers = {name.rpartition(".")[2] for name in modules if ".broker.handlers.api_" in name}
        assert handlers == {*ONE_REQUEST_EACH, "api_22_init_producer_id"}


def test_a_store_with_groups_does_not_make_a_send_import_them(tmp_path: Path) -> None:
    modules_of(tmp_path, "send", "t", "Hello Kafka")
    assert "ottla.coordinator.group.coordinator" in modules_of(tmp_path, "read", "-g", "g", "t")
    assert found(modules_of(tmp_path, "send", "t", "again"), GROUPS) == []


@pytest.mark.parametrize("arguments", [("topics",), ("read", "t")])
def test_other_commands_on_a_store_import_no_groups_and_no_network(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    modules_of(tmp_path, "send", "t", "Hello Kafka")
    modules = modules_of(tmp_path, *arguments)
    assert found(modules, (*NEVER, *EMBEDDED)) == []
    assert found(modules, ("ottla.broker.groups", "ottla.coordinator.group")) == []


def test_help_imports_no_client_and_no_broker(tmp_path: Path) -> None:
    modules = modules_of(tmp_path, "--help")
    assert found(modules, ("ottla.client", "ottla.broker", "ottla.log", *NETWORK)) == []


def test_import_ottla_imports_none_of_its_parts() -> None:
    show = "import sys, ottla; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    ours = {name for name in ran.stdout.split() if name.split(".")[0] == "ottla"}
    assert ours == {"ottla", "ottla._compiled", "ottla._version"}
