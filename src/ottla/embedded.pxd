# The C side of embedded.py: fields, and what is called without Python's protocol.

from ottla.broker.appending cimport Storing
from ottla.broker.caller cimport Caller
from ottla.broker.requests cimport Context
from ottla.client.network cimport Call
from ottla.client.produce_call cimport ProduceCall


cdef class EmbeddedNetwork:
    cdef public list bootstrap
    cdef readonly str address
    cdef readonly object broker
    cdef readonly Caller caller
    cdef readonly str client_id
    cdef readonly object clock
    cdef object _release
    cdef object _arrived
    cdef bint _has_driven
    cpdef object post(self, object arrived)
    cpdef object poll(self, double timeout_s)


cdef class EmbeddedChannel:
    cdef readonly str peer
    cdef EmbeddedNetwork _network
    cdef object _clock
    cdef object _listener
    cdef bint _open
    cpdef object send(self, Call call)
    cdef bint _append(self, ProduceCall call) except -1
    cpdef object why_gone(self)
    cdef object _hand_over(self, Answer answer)


cdef class Answer:
    cdef EmbeddedChannel _channel
    cdef readonly Call call
    cdef readonly Context context
    cdef readonly Storing storing
    cdef readonly object response
    cpdef object arrived(self, object response)
