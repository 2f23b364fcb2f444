# The C side of sync.py: fields, and what is called without Python's protocol.

from ottla.log.segment cimport Segment


cdef class Sync:
    cdef list _jobs
    cdef readonly list written
    cdef readonly long long offset
    cdef readonly Segment segment
    cdef readonly long long position
    cdef public object recovery_point
