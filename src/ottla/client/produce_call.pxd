# The C side of produce_call.py: fields, and what is called without Python's protocol.

from ottla.client.delivery cimport Batch
from ottla.client.network cimport Call
from ottla.wire.cursor cimport Reader, Writer


cdef class ProduceCall(Call):
    cdef readonly list batches
    cdef readonly list stored
    cdef readonly object told
    cdef readonly dict topic_ids
    cdef int _acks
    cdef readonly int request_timeout_ms
    cdef object _make_request(self)
    cpdef int version_max(self) except -1
    cpdef bint write(self, Writer writer) except -1
    cpdef bint read(self, Reader reader) except -1
    cdef bint _read(self, Reader reader) except -1
    cpdef object take(self, long long base_offset, long long append_time_ms)
    cpdef object finish(self, object response, object error)
