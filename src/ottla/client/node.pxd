# The C side of node.py: fields, and what other compiled modules may call without Python's protocol.

from ottla.client.network cimport Call


cdef class Node:
    cdef readonly str host
    cdef readonly int port
    cdef readonly str peer
    cdef readonly object state
    cdef readonly bint was_ready
    cdef public int tries
    cdef public object failure
    cdef readonly double first_failure_ms
    cdef readonly long long connected_ns
    cdef public double next_try_ms
    cdef object _network
    cdef object _clock
    cdef double _request_timeout_ms
    cdef double _startup_timeout_ms
    cdef dict _versions
    cdef object _last_class
    cdef int _last_version_max
    cdef int _last_version
    cdef object _channel
    cdef object _give_up
    cdef double _deadline_ms
    cdef list _in_flight
    cpdef int in_flight(self)
    cdef object _forget(self, Call call)
    cpdef bint is_ready(self) except -1
    cpdef object send(self, Call call, int version_max=*)
    cdef int _version_of(self, Call call, int version_max) except? -2
    cdef double _timeout_ms(self, Call call) except? -1
    cpdef object answered(self, Call call, object response)
    cpdef object expire(self, double now_ms)
    cpdef object next_try(self, double now_ms)


cdef object sooner(object one, object other)
