# The C side of tcp.py: fields, and what is called without Python's protocol.

from ottla.client.network cimport Call
from ottla.client.produce_call cimport ProduceCall
from ottla.wire.cursor cimport Reader, Writer


cdef class TcpNetwork:
    cdef readonly list bootstrap
    cdef readonly str address
    cdef readonly bytes client_id
    cdef readonly object clock
    cdef object _poll
    cdef dict _watched
    cdef object _posted
    cdef object _inbox
    cdef object _bell


cdef class TcpChannel:
    cdef readonly str peer
    cdef TcpNetwork _network
    cdef object _sock
    cdef object _listener
    cdef object _frames
    cdef object _waiting
    cdef list _outbox
    cdef object _unsent
    cdef int _correlation_id
    cdef bint _open
    cdef object _arrived
    cpdef object send(self, Call call)
    cdef object _write_header(self, Writer writer, Call call)
    cdef object _send_one(self, object part)
    cdef object _drop(self, Py_ssize_t sent)
    cdef object _answer(self, memoryview frame)
