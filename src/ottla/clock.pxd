# The C side of clock.py: what other compiled modules may call without Python's protocol.

cdef class SystemClock:
    cpdef long long now_ms(self) except? -1
    cpdef double monotonic_ms(self) except? -1
    cpdef long long monotonic_ns(self) except? -1


cdef double monotonic_ms_of(object clock) except? -1
cdef long long monotonic_ns_of(object clock) except? -1
