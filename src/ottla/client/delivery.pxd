# The C side of delivery.py: fields, and what other compiled modules may call without Python's protocol.

from ottla.records.builder cimport BatchBuilder


cdef class BatchTimes:
    cdef public long long opened
    cdef public long long connected
    cdef public long long sent
    cdef public long long answered
    cdef public object broker_events
    cdef public long long ended
    cdef public str peer


cdef class Batch:
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly BatchBuilder builder
    cdef public Py_ssize_t held
    cdef readonly double created_ms
    cdef public int state
    cdef public long long base_offset
    cdef public long long append_time_ms
    cdef public object error
    cdef public int watched
    cdef public object data
    cdef public object identity
    cdef public int base_sequence
    cdef public int attempts
    cdef public int unanswered
    cdef public object refusal
    cdef public double next_try_ms
    cdef readonly BatchTimes times
    cdef public bint is_packing
    cdef readonly object waiter
    cdef list _callbacks
    cpdef bint has_callbacks(self)


cdef class Delivery:
    cdef Batch _batch
    cdef int _index
    cdef long long _timestamp
    cpdef object stamp(self, long long timestamp_ms)
    cdef void place(self, Batch batch, int index, long long timestamp_ms) noexcept
    cpdef object move(self, Batch batch, int index)
    cpdef bint follows(self, Delivery first, Py_ssize_t count)
