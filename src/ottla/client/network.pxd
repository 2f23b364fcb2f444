# The C side of network.py: fields.


cdef class Call:
    cdef object _request
    cdef readonly object request_class
    cdef readonly int api_key
    cdef readonly int flexible_from
    cdef readonly int response_flexible_from
    cdef public int correlation_id
    cdef readonly object response_class
    cdef public object done
    cdef public bint expects_response
    cdef public bint traced
    cdef readonly object timeout_ms
    cdef public int version
    cdef public double deadline_ms
    cdef public long long sent_ns
    cdef public long long answered_ns
    cdef public object broker_events
    cdef object _begin(self, object request, object request_class, object response_class)
    cdef object _make_request(self)
    cpdef object finish(self, object response, object error)
