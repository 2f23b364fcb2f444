# The C side of producer_core.py: fields, and what is called without Python's protocol.

from ottla.client.accumulator cimport Accumulator
from ottla.client.cluster cimport Cluster
from ottla.client.driver cimport Driver
from ottla.client.sender cimport Sender


cdef class ProducerCore:
    cdef readonly object config
    cdef readonly Cluster cluster
    cdef readonly Accumulator accumulator
    cdef readonly Sender sender
    cdef readonly Driver driver
    cdef readonly object clock
    cdef readonly object packer
    cdef public bint is_closed
    cdef object __weakref__


cdef class Unfinished:
    cdef list _batches
    cdef Py_ssize_t _left
