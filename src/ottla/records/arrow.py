"""Columns as an Arrow record batch, over the same memory. Needs pyarrow (extra `arrow`)."""

from __future__ import annotations

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
    found = {
        "topic": topic,
        "partition": _fixed(pyarrow.int32(), count, partitions),
        "offset": _fixed(pyarrow.int64(), count, columns.offsets),
        "timestamp": _timestamps(columns),
        "key": _bytes(pyarrow.binary(), columns.keys),
        "value": _bytes(pyarrow.binary(), columns.values),
        "headers": _headers(columns),
    }
    return pyarrow.RecordBatch.from_arrays(list(found.values()), names=list(found))


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

    header = pyarrow.struct([("name", pyarrow.string()), ("value", pyarrow.binary())])
    if columns.has_headers:
        lists = [columns.headers(index) for index in range(len(columns))]
        return pyarrow.array(lists, pyarrow.list_(header))
    offsets = _fixed(pyarrow.int32(), len(columns) + 1, array("i", [0]) * (len(columns) + 1))
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array([], header))
