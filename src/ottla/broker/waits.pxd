# The C side of waits.py: fields, and what is called without Python's protocol.

from ottla.broker.requests cimport Pending


cdef class Waits:
    cdef list _heap
    cdef long long _number
    cdef Py_ssize_t _answered
    cpdef object add(self, Pending pending)
    cpdef bint is_due(self, double now_ms) except -1
    cpdef object expire(self, double now_ms)
