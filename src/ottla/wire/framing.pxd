# The C side of framing.py: fields, and what other compiled modules may call without Python's protocol.

cdef class FrameBuffer:
    cdef bytearray _chunk
    cdef object _lent
    cdef object _memory
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _room
    cdef long long _frame_bytes_max
    cdef bint _reuse
    cpdef Py_ssize_t pending(self)
    cpdef memoryview room(self)
    cpdef Py_ssize_t make_room(self) except -1
    cdef unsigned char* free(self)
    cpdef object received(self, Py_ssize_t size)
    cpdef memoryview next_frame(self)
    cdef Py_ssize_t _wanted(self)
    cdef object _replace(self, Py_ssize_t size, Py_ssize_t pending)
    cdef long long _announced(self) except? -1
