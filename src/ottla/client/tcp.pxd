# The C side of tcp.py: fields, and what is called without Python's protocol.

from ottla.client.network cimport Call
from ottla.client.produce_call cimport ProduceCall
from ottla.client.sockets cimport Socket, Sockets, Watch
from ottla.wire.cursor cimport Reader, Writer
from ottla.wire.framing cimport FrameBuffer


cdef class TcpNetwork:
    cdef readonly list bootstrap
    cdef readonly str address
    cdef readonly bytes client_id
    cdef readonly object clock
    cdef Sockets _sockets
    cdef object _posted
    cdef object _inbox
    cdef object _bell


cdef class TcpChannel:
    cdef readonly str peer
    cdef TcpNetwork _network
    cdef object _sock
    cdef Socket _socket
    cdef object _listener
    cdef FrameBuffer _frames
    cdef list _waiting
    cdef list _outbox
    cdef object _unsent
    cdef int _correlation_id
    cdef bint _open
    cpdef object send(self, Call call)
    cdef object _write_header(self, Writer writer, Call call)
    cdef object _send_one(self, object part)
    cdef object _drop(self, Py_ssize_t sent)
    cdef object _answer(self, memoryview frame)
