# The C side of queues.py: fields.

from ottla.client.delivery cimport Batch
from ottla.client.partitioner cimport Partitioner


cdef class PartitionQueue:
    cdef readonly str topic
    cdef readonly int partition
    cdef public Batch open
    cdef readonly object closed
    cdef readonly object retries
    cdef readonly list in_flight
    cdef public bint is_lingering
    cdef public object identity
    cdef public int next_sequence
    cdef public object confirmed_identity
    cdef public long long confirmed_ns


cdef class TopicQueue:
    cdef readonly str name
    cdef readonly list queues
    cdef public list pending
    cdef public Batch room
    cdef public Partitioner partitioner
