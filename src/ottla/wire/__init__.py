"""Bytes: cursors over buffers, CRC-32C, compression codecs and length-prefixed frames."""

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes; what is taken as a Buffer is read, never changed or resized."""

__all__ = ["Buffer"]
