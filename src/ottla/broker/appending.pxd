# The C side of appending.py: what an appended batch is, and who waits for it.

from ottla.broker.requests cimport Pending
from ottla.log.partition_log cimport PartitionLog


cdef class Appended:
    cdef readonly PartitionLog log
    cdef readonly long long base_offset
    cdef readonly long long end_offset
    cdef readonly long long log_append_time_ms


cdef class Storing(Pending):
    cdef readonly Appended appended
    cdef object _topic
    cdef int _partition
    cdef double _timeout_ms
    cdef object begin(self, object engine)
    cpdef object stored(self, object error)
    cpdef object expire(self)
    cdef object _refusal(self, int error, str message)


cpdef Storing append_usual(
    object engine, object topic_key, int partition, object records, int version, double timeout_ms
)


cpdef Appended append(object engine, object topic, int partition, object records, int version)
