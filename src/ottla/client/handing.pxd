# The C side of handing.py: fields, so that an iterator steps through them without Python's protocol.

cdef class Attention:
    cdef public bint is_wanted


cdef class Handing:
    cdef readonly list records
    cdef public list readable
    cdef public dict begun
    cdef public bint one_by_one
    cdef public Py_ssize_t index
    cdef public Py_ssize_t read
    cdef Py_ssize_t _finished


cdef class EachRecord:
    cdef Attention _attention
    cdef object _following
    cdef Handing _handing
