# The C side of group_commit.py: fields, and what is called without Python's protocol.

from ottla.log.partition_log cimport PartitionLog


cdef class Round:
    cdef list _syncs
    cdef list _jobs
    cdef readonly list parts
    cdef readonly bint is_one_sync
    cpdef list run(self)
    cpdef object end(self, list errors)


cdef class GroupCommit:
    cdef Py_ssize_t _logs_max
    cdef dict _dirty
    cdef list _jobs
    cdef Round _running
    cpdef object add(self, PartitionLog log)
    cpdef Round begin(self)
    cpdef object end(self, list errors)
