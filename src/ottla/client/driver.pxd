# The C side of driver.py: fields, and what is called without Python's protocol.
from cpython.pythread cimport PyLockStatus, PyThread_type_lock


cdef extern from "pythread.h" nogil:
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int may_be_interrupted
    )


cdef class Driver:
    cdef public bint parked
    cdef double _tick_s
    cdef int _tick_us
    cdef object _network
    cdef object _work
    cdef object _clock
    cdef object _lock
    cdef object _gate
    cdef object _turned
    cdef int _callers
    cdef long long _calls
    cdef int _waiting
    cdef int _holders
    cdef double _last_call_ms
    cdef unsigned long _driving
    cdef bint _is_taken
    cdef object _thread
    cdef object _bell
    cdef public bint _closed
    cdef object _held
    cdef PyThread_type_lock _ended
    cdef object _count_caller(self, int by)
    cdef object _count_holder(self, int by)
    cdef object _turn(self, double wait_s)
    cdef bint _take(self) except -1
    cdef object _release(self)
    cdef void _sleep(self) noexcept nogil
    cdef object _wait_for_turn(self, double seconds, object reached)
