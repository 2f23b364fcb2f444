# The C side of handing.py: fields, so that an iterator steps through them without Python's protocol.
from ottla.records.batch cimport BatchHeader, RecordIterator
from ottla.records.record cimport Py_REFCNT, Record


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
    cdef Record _next(self)


cdef class Batches(Handing):
    cdef list _readers
    cdef object _damaged
    cdef RecordIterator _reader
    cdef Record _last
    cdef Record _last_but_one
    cdef Py_ssize_t _turn
    cdef long long _given
    cdef Record _next(self)
    cdef Record _next_slowly(self)


cdef class EachRecord:
    cdef Attention _attention
    cdef object _following
    cdef Handing _handing


cdef object _where(RecordIterator reader)
