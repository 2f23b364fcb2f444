# The C side of memory.py: fields, and what other compiled modules may call without Python's protocol.

cdef class Spares:
    cdef Py_ssize_t _size
    cdef list _kept
    cpdef object put(self, bytearray buffer)
    cpdef bytearray take(self)
    cpdef object reduce(self, Py_ssize_t count)


cdef bint _is_free(bytearray chunk) except -1
