# The C side of requests.py: fields, and what is called without Python's protocol.


cdef class Context:
    cdef public str host
    cdef public int port
    cdef public object client_id
    cdef public str client_address
    cdef public list events
    cpdef object note(self, str event, object clock)


cdef class Pending:
    cdef readonly bint is_done
    cdef readonly object response
    cdef readonly object deadline_ms
    cdef object _expire
    cdef list _callbacks
    cdef object _begin(self)
    cpdef object finish(self, object response)
    cpdef object when_done(self, object callback)
    cdef object _call(self)
    cpdef object expire(self)
