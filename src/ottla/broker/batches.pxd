# The C side of batches.py: what other compiled modules may call without Python's protocol.

from ottla.records.batch cimport BatchHeader


cdef class Prepared:
    cdef readonly object batch
    cdef readonly BatchHeader header
    cdef readonly long long log_append_time_ms


cpdef Prepared prepare(object batch, object config, int version, long long now_ms)
