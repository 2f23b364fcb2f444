# The C side of cursor.py: what other compiled modules may call without Python's protocol.

from cpython.buffer cimport Py_buffer

# What a reader holds is a buffer in a structure of its own, and no object: so the garbage collector
# does not know it. It would clear a Py_buffer that it sees, and with it the only way to release it.
cdef struct HeldBuffer:
    Py_buffer view


cdef class Reader:
    cdef HeldBuffer _buffer
    cdef bint _held
    cdef const unsigned char* _data
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t end
    cpdef Py_ssize_t remaining(self)
    cpdef int need(self, Py_ssize_t size) except -1
    cpdef int skip(self, Py_ssize_t size) except -1
    cpdef bytes raw(self, Py_ssize_t size)
    cpdef object view(self, Py_ssize_t size)
    cpdef str text(self, Py_ssize_t size)
    cpdef int int8(self) except? -1
    cpdef int int16(self) except? -1
    cpdef int uint16(self) except? -1
    cpdef int int32(self) except? -1
    cpdef long long uint32(self) except? -1
    cpdef long long int64(self) except? -1
    cpdef double float64(self) except? -1
    cpdef long long uvarint(self) except? -1
    cpdef long long varint(self) except? -1
    cpdef long long varlong(self) except? -1
    cdef unsigned long long _varint_bits(self, int bytes_max) except? 1
    cpdef int finish(self) except -1


cdef class Writer:
    cdef bytearray _chunk
    cdef unsigned char* _data
    cdef Py_ssize_t _room
    cdef Py_ssize_t _used
    cdef list _parts
    cdef Py_ssize_t _parts_size
    cpdef Py_ssize_t size(self)
    cpdef list parts(self)
    cpdef bytes joined(self)
    cpdef list framed(self)
    cdef int _put_size(self, Py_ssize_t size) except -1
    cdef bytes _copy(self)
    cdef int _cut(self) except -1
    cdef int _reserve(self, Py_ssize_t size) except -1
    cpdef int raw(self, object data) except -1
    cpdef int int8(self, long long value) except -1
    cpdef int int16(self, long long value) except -1
    cpdef int uint16(self, long long value) except -1
    cpdef int int32(self, long long value) except -1
    cpdef int uint32(self, long long value) except -1
    cpdef int int64(self, long long value) except -1
    cdef int _big_endian(self, long long value, int size) except -1
    cpdef int float64(self, double value) except -1
    cpdef int uvarint(self, unsigned long long value) except -1
    cpdef int varint(self, long long value) except -1
