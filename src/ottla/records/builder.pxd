# The C side of builder.py: fields, and what other compiled modules may call without Python's protocol.

cdef class BatchBuilder:
    cdef bytearray _buffer
    cdef unsigned char* _data
    cdef Py_ssize_t _room
    cdef readonly Py_ssize_t size
    cdef readonly int count
    cdef readonly long long base_timestamp
    cdef readonly long long max_timestamp
    cdef object _packed
    cpdef int append(
        self,
        long long timestamp_ms,
        bytes key,
        bytes value,
        object headers,
        Py_ssize_t size_max,
    ) except? -2
    cpdef Py_ssize_t append_values(
        self,
        long long timestamp_ms,
        list values,
        Py_ssize_t start,
        Py_ssize_t size_max,
        Py_ssize_t value_size_max,
    ) except -1
    cpdef bytearray take_buffer(self)
    cpdef memoryview build(
        self,
        int codec=*,
        object level=*,
        long long producer_id=*,
        int producer_epoch=*,
        int base_sequence=*,
        int attributes=*,
    )
    cdef int _grow(self, Py_ssize_t wanted) except -1


cdef void _put_int(unsigned char* data, Py_ssize_t at, int size, long long value) noexcept
cdef Py_ssize_t _put_varint(unsigned char* data, Py_ssize_t at, long long value) noexcept
cdef Py_ssize_t _put_bytes(
    unsigned char* data, Py_ssize_t at, bytes source, Py_ssize_t size
) noexcept
cdef Py_ssize_t _varint_size(long long value) noexcept
cpdef bytes pack_headers(object headers)
cdef int _pack_varint(bytearray packed, long long value) except -1
