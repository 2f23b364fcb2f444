# The C side of appending.py: what an appended batch is.

from ottla.log.partition_log cimport PartitionLog


cdef class Appended:
    cdef readonly PartitionLog log
    cdef readonly long long base_offset
    cdef readonly long long end_offset
    cdef readonly long long log_append_time_ms


cpdef Appended append(object engine, object topic, int partition, object records, int version)
