"""Columns as an Arrow record batch, over the same memory. Needs pyarrow (extra `arrow`)."""

from __future__ import annotations

import functools
from array import array
from typing import TYPE_CHECKING, Any

from ottla.errors import MissingExtra

if TYPE_CHECKING:
    from ottla.records.columns import BytesColumn, RecordColumns


def record_batch(columns: RecordColumns) -> Any:
    """Make a `pyarrow.RecordBatch`; see `RecordColumns.to_arrow`.

    Raises:
        MissingExtra: pyarrow is not installed.
        CorruptRecords: headers are not what the format says.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra(
            "to_arrow() needs pyarrow, which is not installed",
            "Nothing was lost: the columns are as they were.",
            ("Install it:  pip install 'ottla[arrow]'",),
        ) from error
    count = len(columns)
    topics: dict[str, int] = {}
    indices, partitions = array("i"), array("i")
    for run in columns.runs:
        index = topics.setdefault(run.topic, len(topics))
        indices.extend(array("i", [index]) * (run.stop - run.start))
        partitions.extend(array("i", [run.partition]) * (run.stop - run.start))
    topic = pyarrow.DictionaryArray.from_arrays(
        _fixed(pyarrow.int32(), count, indices), pyarrow.array(list(topics), pyarrow.string())
    )
    found = [
        topic,
        _fixed(pyarrow.int32(), count, partitions),
        _fixed(pyarrow.int64(), count, columns.offsets),
        _timestamps(columns),
        _bytes(pyarrow.binary(), columns.keys),
        _bytes(pyarrow.binary(), columns.values),
        _headers(columns),
    ]
    return pyarrow.RecordBatch.from_arrays(found, schema=_schema())


@functools.cache
def _schema() -> Any:
    """Return what the columns are; it is made once, which takes as long as a thousand records."""
    import pyarrow

    return pyarrow.schema(
        {
            "topic": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "partition": pyarrow.int32(),
            "offset": pyarrow.int64(),
            "timestamp": pyarrow.timestamp("ms", "UTC"),
            "key": pyarrow.binary(),
            "value": pyarrow.binary(),
            "headers": pyarrow.list_(_header_type()),
        }
    )


@functools.cache
def _header_type() -> Any:
    import pyarrow

    return pyarrow.struct([("name", pyarrow.string()), ("value", pyarrow.binary())])


@functools.cache
def _no_headers() -> Any:
    import pyarrow

    return pyarrow.array([], _header_type())


def _fixed(kind: Any, count: int, data: array[int] | memoryview) -> Any:
    import pyarrow

    return pyarrow.Array.from_buffers(kind, count, [None, pyarrow.py_buffer(data)])


def _bytes(kind: Any, column: BytesColumn) -> Any:
    import pyarrow

    validity = None if column.validity is None else pyarrow.py_buffer(column.validity)
    buffers = [validity, pyarrow.py_buffer(column.offsets), pyarrow.py_buffer(column.data)]
    return pyarrow.Array.from_buffers(kind, len(column), buffers, column.null_count)


def _timestamps(columns: RecordColumns) -> Any:
    import pyarrow
    from pyarrow import compute

    stamps = _fixed(pyarrow.int64(), len(columns), columns.timestamps)
    if len(columns) and compute.min(stamps).as_py() < 0:  # "none" is the only one there is
        none = pyarrow.scalar(None, pyarrow.int64())
        stamps = compute.if_else(compute.less(stamps, 0), none, stamps)
    return stamps.view(pyarrow.timestamp("ms", "UTC"))


def _headers(columns: RecordColumns) -> Any:
    import pyarrow

    if columns.has_headers:
        lists = [columns.headers(index) for index in range(len(columns))]
        return pyarrow.array(lists, pyarrow.list_(_header_type()))
    offsets = _fixed(pyarrow.int32(), len(columns) + 1, array("i", [0]) * (len(columns) + 1))
    return pyarrow.ListArray.from_arrays(offsets, _no_headers())
