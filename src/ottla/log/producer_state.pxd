# The C side of producer_state.py: fields, and what other compiled modules may call.

from ottla.records.batch cimport BatchHeader


cdef class BatchMemory:
    cdef readonly long long first_sequence
    cdef readonly long long last_sequence
    cdef readonly long long last_offset
    cdef readonly long long timestamp


cdef class ProducerEntry:
    cdef public int epoch
    cdef readonly object batches
    cdef public long long last_timestamp
    cdef public int coordinator_epoch
    cdef public long long current_txn_first_offset
    cdef public bint is_incomplete


cdef class ProducerState:
    cdef dict _entries
    cpdef object check(self, BatchHeader header)
    cpdef object update(self, BatchHeader header, long long base_offset, object marker=*)


cdef BatchMemory _memory_of(BatchHeader header, long long base_offset)
