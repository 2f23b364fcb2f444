# The C side of batch.py: fields, and what other compiled modules may call without Python's protocol.

from cpython.buffer cimport Py_buffer

cdef extern from "Python.h":
    int PyObject_GC_IsTracked(object)
    void PyObject_GC_Track(object)
    void PyObject_GC_UnTrack(object)


# What Bytes holds is a buffer in a structure of its own, and no object: so the garbage collector
# does not know it. It would clear a Py_buffer that it sees, and with it the only way to release it.
cdef struct HeldBuffer:
    Py_buffer view


cdef class Bytes:
    cdef HeldBuffer _buffer
    cdef bint _held
    cdef const unsigned char* data
    cdef readonly Py_ssize_t size
    cdef int int16(self, Py_ssize_t at)
    cdef long long uint32(self, Py_ssize_t at)
    cdef long long int32(self, Py_ssize_t at)
    cdef long long int64(self, Py_ssize_t at)
    cdef bytes slice(self, Py_ssize_t start, Py_ssize_t size)


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


cdef class Record:
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly long long offset
    cdef readonly long long timestamp_ms
    cdef public object _key
    cdef public object _value
    cdef list _headers
    cdef Bytes _source
    cdef Py_ssize_t _key_start
    cdef public Py_ssize_t _key_size
    cdef Py_ssize_t _value_start
    cdef public Py_ssize_t _value_size
    cdef Py_ssize_t _headers_start
    cdef Py_ssize_t _end


cdef class RecordIterator:
    cdef Bytes _source
    cdef Py_ssize_t _position
    cdef int _left
    cdef BatchHeader _header
    cdef str _topic
    cdef int _partition
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
    cdef int _advance(self, long long size, Py_ssize_t end) except -1
    cdef int _skip_headers(self) except -1
    cdef Record _make(self)
    cdef Record _next(self)


cdef class RecordsScan:
    cdef readonly long long max_timestamp
    cdef readonly long long max_timestamp_offset
    cdef readonly long long min_timestamp
    cdef readonly int first_null_key


cdef long long _varint(RecordIterator reader, Py_ssize_t end) except? -1
cdef long long _long_varint(RecordIterator reader, Py_ssize_t end) except? -1
cdef BatchHeader _header_at(Bytes data, Py_ssize_t position)
cdef list _read_headers(Bytes source, Py_ssize_t start, Py_ssize_t end)
