"""CRC-32C (Castagnoli), the checksum of record batches and snapshots.

One library behind one name: `crc32c` takes any buffer without a copy, uses the processor's
instruction and lets other threads run while it works through a large buffer.
"""

from crc32c import crc32c

__all__ = ["crc32c"]
