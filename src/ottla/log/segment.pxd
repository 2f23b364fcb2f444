# The C side of segment.py: fields, and what other compiled modules may call.

from ottla.records.batch cimport BatchHeader


cdef class Segment:
    cdef readonly long long base_offset
    cdef public object config
    cdef public long long size
    cdef public list damages
    cdef public bint is_contiguous
    cdef tuple _unchecked
    cdef object _files
    cdef str _stem
    cdef str _suffix
    cdef object _log
    cdef object _index
    cdef object _time_index
    cdef list _aborted
    cdef object _first_timestamp
    cdef tuple _max_timestamp
    cdef long long _bytes_since_index_entry
    cdef object _limits_of
    cdef long long _bytes_max
    cdef long long _index_bytes_max
    cdef long long _age_max_ms
    cpdef object append(self, object buffers, BatchHeader header, long long last_offset)
    cdef object _note(
        self, long long position, long long size, long long max_timestamp, long long last_offset
    )
    cdef object _note_limits(self, object config)
    cpdef bint must_roll(
        self, long long size, long long last_offset, long long max_timestamp, long long now_ms
    ) except -1
