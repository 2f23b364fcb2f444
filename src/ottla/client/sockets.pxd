# The C side of sockets.py: the system's calls, fields, and what is called without Python's protocol.

from ottla.wire.framing cimport FrameBuffer


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int system_poll "poll"(pollfd* watched, unsigned long count, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_PEEK
    ssize_t system_send "send"(int number, const void* data, size_t size, int flags)
    ssize_t system_recv "recv"(int number, void* data, size_t size, int flags)


cdef class Watch:
    cdef readonly object sock
    cdef readonly int number
    cdef readonly int events
    cdef readonly object what
    cdef public bint is_over


cdef class Sockets:
    cdef dict _watches
    cdef list _laid_out
    cdef bytearray _polled
    cpdef object watch(self, object sock, int events, object what)
    cpdef object forget(self, object sock)
    cpdef object wait(self, double timeout_s)
    cdef object _wait(self, int timeout_ms)
    cdef object _lay_out(self)


cdef class Socket:
    cdef readonly object sock
    cdef int _number
    cpdef Py_ssize_t send(self, object data) except? -2
    cdef Py_ssize_t _send(self, object data) except? -2
    cpdef Py_ssize_t receive(self, FrameBuffer frames) except? -2
    cdef Py_ssize_t _receive(self, FrameBuffer frames) except? -2
    cpdef Py_ssize_t peek(self) except? -2
