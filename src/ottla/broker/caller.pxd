# The C side of caller.py: fields, and what is called without Python's protocol.

from ottla.broker.appending cimport Storing
from ottla.broker.waits cimport Waits
from ottla.log.group_commit cimport GroupCommit, Round


cdef class Caller:
    cdef object _broker
    cdef object _engine
    cdef object _lock
    cdef GroupCommit _commit
    cdef Waits _waits
    cdef object _woken
    cdef bint _is_idle
    cdef bint _has_news
    cdef bint _has_turn
    cdef object __weakref__
    cdef object _check(self)
    cpdef object handle(self, object request, int version, object context)
    cpdef Storing append(
        self, object topic, int partition, object records, int version, double timeout_ms
    )
    cpdef object drive(self, double timeout_s)
    cdef Round _begin(self)
    cdef object _run(self, Round running)
    cdef object _expire(self)
    cdef object _wait(self, double timeout_s)
    cpdef object give_turn(self)
