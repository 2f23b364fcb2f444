# The C side of connection.py: the fields of a connection, and its steps.

from ottla.wire.cursor cimport Reader, Writer


cdef class Connection:
    cdef public double active_ms
    cdef object _server
    cdef object _engine
    cdef object _frames
    cdef public object _transport
    cdef str _host
    cdef int _port
    cdef str _peer
    cdef object _context
    cdef object _answering
    cdef list _unsent
    cdef Py_ssize_t _unsent_bytes
    cdef bint _is_stuck
    cdef bint _is_reading
    cdef bint _is_open
    cpdef object go_on(self)
    cdef object _regulate(self)
    cdef object _refuse(self, str reason)
    cpdef object close(self)
    cdef object _answer(self, memoryview frame)
    cdef bint _answer_usual(self, object served, Reader reader, int correlation_id) except -1
    cdef object _answer_unserved(self, Reader reader, int correlation_id)
    cdef object _write(
        self, object served, int correlation_id, object context, long long received_ns, object response
    )
    cdef Writer _new_writer(self, int correlation_id)
    cdef object _keep(self, Writer writer)
    cdef object _send(self)
