# The C side of partitioner.py: fields, and what other compiled modules may call without Python's protocol.

cdef class Partitioner:
    cdef readonly int partition
    cdef int _partitions
    cdef Py_ssize_t _sticky_bytes
    cdef Py_ssize_t _bytes
    cpdef int for_key(self, bytes key)
    cpdef bint appended(self, Py_ssize_t size)
    cpdef Py_ssize_t left(self)


cdef unsigned int _murmur2(bytes data, Py_ssize_t size)
