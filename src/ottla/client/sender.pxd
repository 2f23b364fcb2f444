# The C side of sender.py: fields, and what is called without Python's protocol.

from ottla.client.accumulator cimport Accumulator
from ottla.client.delivery cimport Batch
from ottla.client.cluster cimport Cluster, TopicInfo
from ottla.client.node cimport Node
from ottla.client.produce_call cimport ProduceCall
from ottla.client.queues cimport PartitionQueue, TopicQueue


cdef class Sender:
    cdef public int flushing
    cdef public list unreported
    cdef public long long delivered
    cdef object _config
    cdef Cluster _cluster
    cdef Accumulator _accumulator
    cdef object _clock
    cdef object _identity
    cdef bint _asking_identity
    cdef double _next_identity_ms
    cdef object _identity_refusal
    cdef object _outcomes
    cdef object _known_ms
    cdef object _told
    cdef double _told_ms
    cdef bint _is_idempotent
    cdef int _required_acks
    cdef int _codec
    cdef object _compression_level
    cdef double _linger_ms
    cdef double _delivery_timeout_ms
    cdef int _request_timeout_ms
    cdef int _in_flight_max
    cdef Py_ssize_t _request_size_max
    cdef bint _traced
    cdef object _resolve_topics(self, double now)
    cdef object _expire(self, double now)
    cdef PartitionQueue _queue_of(self, Batch batch)
    cdef object _send_ready(self, double now)
    cdef object _send_one_ready(self, double now)
    cdef Py_ssize_t _room_of(self, Node node) except -1
    cdef double _waits_until(self, PartitionQueue queue, double now) except? -1
    cdef Node _leader(self, PartitionQueue queue)
    cdef object _send_to(self, Node node, list[PartitionQueue] queues, double now)
    cdef bint _is_blocked(self, PartitionQueue queue) except -1
    cdef Batch _next_batch(self, PartitionQueue queue, double now, Py_ssize_t room)
    cdef bint _may_follow(self, PartitionQueue queue, object identity) except -1
    cdef object _send(self, Node node, list[Batch] batches)
    cdef Batch _build(self, PartitionQueue queue, Batch batch)
    cdef bint _stamp_again(self, PartitionQueue queue, Batch batch) except -1
    cdef object _stored(self, Batch batch, long long base_offset, long long append_time_ms)
    cdef object _judge(self, list[Batch] batches, object response)
    cdef object _finish(self, Batch batch, int state, object error=*)
    cpdef object step(self)
    cpdef bint has_work(self) except -1
    cpdef object hurry(self, int by)
    cpdef object watch(self)
    cpdef object unwatch(self, list[Batch] batches)
    cdef object _settle(self, Batch batch, int state, object error)
    cdef list _watch(self, list[Batch] waiting, list[Batch] reported)
    cpdef long long take_delivered(self) except -1
