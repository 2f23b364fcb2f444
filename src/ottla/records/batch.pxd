# The C side of batch.py: fields, and what other compiled modules may call without Python's protocol.
cimport cython

# Record under another name: as its own it is a Python object in batch.py, for others to import.
from ottla.records.record cimport Bytes, Lot, PyObject_GC_UnTrack, Record as _Record, Walk


cdef class BatchHeader:
    cdef readonly Py_ssize_t position
    cdef readonly long long base_offset
    cdef readonly long long size
    cdef readonly int leader_epoch
    cdef readonly int magic
    cdef readonly long long crc
    cdef readonly int attributes
    cdef readonly int last_offset_delta
    cdef readonly long long base_timestamp
    cdef readonly long long max_timestamp
    cdef readonly long long producer_id
    cdef readonly int producer_epoch
    cdef readonly int base_sequence
    cdef readonly int records_count


@cython.final
cdef class RecordIterator(Walk):
    cdef int _left
    cdef BatchHeader _header
    cdef Lot _lot
    cdef bint _append_time
    cdef long long _timestamp
    cdef long long _offset
    cdef long long _key_size
    cdef Py_ssize_t _key_start
    cdef long long _value_size
    cdef Py_ssize_t _value_start
    cdef Py_ssize_t _headers_start
    cdef Py_ssize_t _end
    cpdef object first_at_or_after(self, long long timestamp_ms, long long offset)
    cdef int _finish(self) except -1
    cdef int _step(self) except -1
    cdef int _skip_headers(self) except -1
    cdef _Record _make(self)
    cdef _Record _fill(self, _Record record)
    cdef _Record _next(self)
    cdef _Record _quick(self, _Record spare)
    cdef bint _step_quickly(self) noexcept


cdef class RecordsScan:
    cdef readonly long long max_timestamp
    cdef readonly long long max_timestamp_offset
    cdef readonly long long min_timestamp
    cdef readonly int first_null_key


cdef BatchHeader _header_at(Bytes data, Py_ssize_t position)
