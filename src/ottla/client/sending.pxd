# The C side of sending.py: fields, and what other compiled modules may call without Python's protocol.

from ottla.client.accumulator cimport Accumulator


cdef class Sending:
    cdef Accumulator _accumulator
    cdef object _sending_core
    cdef readonly object _key_serializer
    cdef readonly object _value_serializer
    cdef readonly object _lives
    cdef bint _is_plain
    cdef object _send(
        self,
        object topic,
        object value,
        object key,
        object headers,
        object partition,
        object timestamp_ms,
    )
