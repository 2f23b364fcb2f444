"""CRC-32C (Castagnoli), the checksum of record batches and snapshots.

One library behind one name: `crc32c` takes any buffer without a copy, uses the processor's
instruction and lets other threads run while it works through a large buffer.

The extension module is loaded past the library's package, which imports a command line and its own
version number with it: a quarter of what starting the client takes otherwise.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crc32c import crc32c
else:

    def _load() -> object:
        package = find_spec("crc32c")
        if package is None:
            raise ImportError("the library crc32c is not installed", name="crc32c")
        name = "crc32c._crc32c"
        spec = PathFinder.find_spec(name, package.submodule_search_locations)
        if spec is None or spec.loader is None:
            raise ImportError("this crc32c has no compiled module", name=name)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.crc32c

    crc32c = _load()

__all__ = ["crc32c"]
