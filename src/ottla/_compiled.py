"""Which modules are compiled, and how to run their Python source on purpose.

The modules named here are ordinary Python files in Cython's pure-Python mode; `setup.py` reads
this list and compiles each of them. There is no silent fallback: an installation without the
compiled modules refuses to import, because the same source uncompiled is about a hundred times
slower. `OTTLA_PURE=1` imports the source deliberately, for coverage, debugging and fuzzing.
"""

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader

MODULES = (
    "ottla.clock",
    "ottla.wire.cursor",
    "ottla.wire.memory",
    "ottla.wire.framing",
    "ottla.protocol.codec",
    "ottla.records.record",
    "ottla.records.batch",
    "ottla.records.positions",
    "ottla.records.builder",
    "ottla.records.compaction",
    "ottla.records.columns",
    "ottla.records.columns_builder",
    "ottla.log.files",
    "ottla.log.sync",
    "ottla.log.producer_state",
    "ottla.log.segment",
    "ottla.log.partition_log",
    "ottla.log.group_commit",
    "ottla.broker.batches",
    "ottla.broker.requests",
    "ottla.broker.waits",
    "ottla.broker.appending",
    "ottla.broker.caller",
    "ottla.broker.connection",
    "ottla.client.partitioner",
    "ottla.client.delivery",
    "ottla.client.queues",
    "ottla.client.accumulator",
    "ottla.client.sending",
    "ottla.client.handing",
    "ottla.client.network",
    "ottla.client.sockets",
    "ottla.client.produce_call",
    "ottla.client.node",
    "ottla.client.cluster",
    "ottla.client.sender",
    "ottla.client.driver",
    "ottla.client.producer_core",
    "ottla.client.tcp",
    "ottla.embedded",
)
"""Dotted names of the compiled modules, in the order of the layers."""

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def pure_on_purpose() -> bool:
    """Tell whether `OTTLA_PURE=1` asks for the uncompiled source."""
    return os.environ.get("OTTLA_PURE") == "1"


def source_path(module: str) -> str:
    """Return the path of a compiled module's Python source."""
    return os.path.join(_ROOT, *module.split(".")) + ".py"


def is_compiled(module: str) -> bool:
    """Tell whether importing `module` now would load its compiled form."""
    if pure_on_purpose():
        return False
    stem = source_path(module)[: -len(".py")]
    return any(os.path.exists(stem + suffix) for suffix in EXTENSION_SUFFIXES)


class _SourceFinder:
    """Finds the source of the compiled modules before their extensions (OTTLA_PURE=1)."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in MODULES:
            return None
        from importlib.util import spec_from_file_location

        file = source_path(name)
        return spec_from_file_location(name, file, loader=SourceFileLoader(name, file))


def activate() -> None:
    """Check that the compiled modules are there, or switch to their source on purpose.

    Raises:
        ImportError: a compiled module is missing and `OTTLA_PURE=1` is not set.
    """
    if pure_on_purpose():
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _SourceFinder)
        return
    missing = [module for module in MODULES if not is_compiled(module)]
    if missing:
        raise ImportError(
            f"ottla is installed without its compiled modules ({', '.join(missing)}). "
            "Build them where there is a C compiler: pip install --force-reinstall ottla "
            "(in a checkout: pip install -e .). "
            "OTTLA_PURE=1 runs their slow Python source on purpose."
        )
