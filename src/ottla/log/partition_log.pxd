# The C side of partition_log.py: fields, and what other compiled modules may call.

from ottla.log.producer_state cimport ProducerState
from ottla.log.segment cimport Segment
from ottla.log.sync cimport Sync
from ottla.records.batch cimport BatchHeader


cdef class PartitionLog:
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly bytes topic_id
    cdef public object config
    cdef readonly str folder
    cdef public long long log_start_offset
    cdef public long long log_end_offset
    cdef public long long high_watermark
    cdef public long long recovery_point
    cdef public bint recovery_point_wanted
    cdef public long long bytes_unchecked
    cdef public ProducerState producers
    cdef public object failed
    cdef public list cuts
    cdef object _files
    cdef str _root
    cdef object _clock
    cdef object _epochs
    cdef object _segments
    cdef long long _stored_position
    cdef Segment _stored_segment
    cdef dict _unsynced
    cdef bint _new_names
    cdef bint _new_folder
    cdef dict _unsaved
    cdef object _taken
    cdef object _beginnings
    cdef object _waiting
    cdef readonly dict _watchers
    cdef object __weakref__
    cpdef object check_producer(self, BatchHeader header)
    cdef object _note_producer(self, object batch, BatchHeader header, long long base_offset)
    cpdef Sync begin_sync(self)
    cpdef object end_sync(self, Sync sync, object error)
    cpdef object when_stored(self, long long offset_end, object stored)
    cdef object _advance(self, long long offset, Segment segment, long long position)
