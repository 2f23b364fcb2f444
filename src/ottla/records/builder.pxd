# The C side of builder.py: fields, and what other compiled modules may call without Python's protocol.

cdef class BatchBuilder:
    cdef bytearray _buffer
    cdef unsigned char* _data
    cdef Py_ssize_t _room
    cdef readonly Py_ssize_t size
    cdef readonly int count
    cdef readonly long long base_timestamp
    cdef readonly long long max_timestamp
    cpdef int append(
        self,
        long long timestamp_ms,
        bytes key,
        bytes value,
        object headers,
        Py_ssize_t size_max,
    ) except? -2
    cdef int _grow(self, Py_ssize_t wanted) except -1
    cdef int _varint(self, long long value) except -1
    cdef int _bytes(self, bytes data, Py_ssize_t size) except -1


cdef Py_ssize_t _varint_size(long long value)
cpdef bytes pack_headers(object headers)
cdef int _pack_varint(bytearray packed, long long value) except -1
