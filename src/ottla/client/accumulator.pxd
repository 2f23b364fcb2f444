# The C side of accumulator.py: fields, and what other compiled modules may call without Python's protocol.

from ottla.client.delivery cimport Batch, Delivery
from ottla.client.partitioner cimport Partitioner
from ottla.records.builder cimport BatchBuilder


cdef class PartitionQueue:
    cdef readonly str topic
    cdef readonly int partition
    cdef public Batch open
    cdef readonly object closed
    cdef readonly object retries
    cdef readonly object in_flight
    cdef public object identity
    cdef public int next_sequence


cdef class TopicQueue:
    cdef readonly str name
    cdef readonly list queues
    cdef public list pending
    cdef public Batch room
    cdef public Partitioner partitioner


cdef class Accumulator:
    cdef readonly dict topics
    cdef readonly dict incomplete
    cdef readonly Py_ssize_t buffered_bytes
    cdef Py_ssize_t _batch_size
    cdef Py_ssize_t _record_size_max
    cdef Py_ssize_t _buffer_memory
    cdef object _now_ms
    cdef object _clock
    cdef object _waiter
    cdef object _notify
    cdef object _lock
    cpdef object append(
        self,
        str topic,
        int partition,
        long long timestamp_ms,
        bytes key,
        bytes value,
        object headers,
    )
    cdef object _append_tuple(self, str topic, int partition, object given)
    cdef int _check_size(self, bytes key, bytes value, bytes packed) except -1
    cdef int _put(
        self,
        TopicQueue topic,
        Delivery delivery,
        int partition,
        long long timestamp_ms,
        bytes key,
        bytes value,
        bytes packed,
    ) except -1
    cdef Py_ssize_t _try(
        self,
        PartitionQueue queue,
        Delivery delivery,
        long long timestamp_ms,
        bytes key,
        bytes value,
        bytes packed,
    ) except? -2
