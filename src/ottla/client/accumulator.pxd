# The C side of accumulator.py: fields, and what other compiled modules may call without Python's protocol.

from ottla.client.delivery cimport Batch, Delivery
from ottla.client.queues cimport PartitionQueue, TopicQueue
from ottla.clock cimport SystemClock
from ottla.records.builder cimport BatchBuilder
from ottla.wire.memory cimport Spares


cdef class Accumulator:
    cdef readonly dict topics
    cdef readonly dict unknown
    cdef readonly dict incomplete
    cdef readonly dict ready
    cdef readonly list lingering
    cdef public object refusal
    cdef long long _opened
    cdef Spares _spares
    cdef Py_ssize_t _batch_buffer_size
    cdef Py_ssize_t _buffers_max
    cdef Py_ssize_t _idle_buffers_max
    cdef readonly Py_ssize_t buffered_bytes
    cdef Py_ssize_t _batch_size
    cdef Py_ssize_t _record_size_max
    cdef Py_ssize_t _buffer_memory
    cdef SystemClock _system_clock
    cdef TopicQueue _last_topic
    cdef object _clock
    cdef object _waiter
    cdef object _notify
    cdef object _to_pack
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
    cdef Delivery append_plain(self, object topic, bytes key, bytes value)
    cdef Py_ssize_t _append_run(
        self, Delivery behind, list values, Py_ssize_t start, int partition
    ) except -1
    cdef long long _now(self) except? -1
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
    cdef bint _open(self, PartitionQueue queue) except -1
    cdef object _linger(self, PartitionQueue queue)
    cdef Batch _new_batch(self, str topic, int partition, bint fills=*)
    cdef bytearray _full_buffer(self)
    cpdef list unknown_topics(self)
    cpdef object close_open(self, PartitionQueue queue)
    cpdef Batch take_open(self, PartitionQueue queue)
    cdef Batch _take_open(self, PartitionQueue queue)
    cdef object _take_due(self, double opened_ms)
    cdef object _lay_aside(self, PartitionQueue queue)
    cdef object _look_again(self, PartitionQueue queue)
    cdef Batch _oldest(self)
    cdef object _complete(self, Batch batch)
    cpdef PartitionQueue first_ready(self)
    cpdef object take_due(self, double opened_ms)
    cpdef object lay_aside(self, PartitionQueue queue)
    cpdef object look_again(self, PartitionQueue queue)
    cpdef Batch oldest(self)
    cpdef object complete(self, Batch batch)
