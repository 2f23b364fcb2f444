# The C side of network.py: fields.


cdef class Call:
    cdef readonly object request
    cdef readonly object response_class
    cdef readonly object done
    cdef readonly bint expects_response
    cdef readonly bint traced
    cdef readonly object timeout_ms
    cdef public int version
    cdef public double deadline_ms
    cdef public long long sent_ns
    cdef public long long answered_ns
    cdef public object broker_events
