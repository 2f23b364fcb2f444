# The C side of record.py: fields, and what other compiled modules may call without Python's protocol.

from cpython.buffer cimport Py_buffer

cdef extern from "Python.h":
    int PyObject_GC_IsTracked(object)
    void PyObject_GC_Track(object)
    void PyObject_GC_UnTrack(object)
    Py_ssize_t Py_REFCNT(object)
    object PyObject_GenericGetAttr(object, object)


cdef extern from *:
    """
    /* Has a class find the attributes of its objects with a function. */
    static CYTHON_INLINE void ottla_find_attributes_with(PyObject *type, getattrofunc find) {
        ((PyTypeObject *)type)->tp_getattro = find;
        PyType_Modified((PyTypeObject *)type);
    }
    """
    void find_attributes_with "ottla_find_attributes_with"(object, object (*)(object, object))


# What Bytes holds is a buffer in a structure of its own, and no object: so the garbage collector
# does not know it. It would clear a Py_buffer that it sees, and with it the only way to release it.
cdef struct HeldBuffer:
    Py_buffer view


cdef class Bytes:
    cdef HeldBuffer _buffer
    cdef bint _held
    cdef const unsigned char* data
    cdef readonly Py_ssize_t size
    cdef int int16(self, Py_ssize_t at)
    cdef long long uint32(self, Py_ssize_t at)
    cdef long long int32(self, Py_ssize_t at)
    cdef long long int64(self, Py_ssize_t at)
    cdef bytes slice(self, Py_ssize_t start, Py_ssize_t size)


cdef class Walk:
    cdef Bytes _source
    cdef Py_ssize_t _position
    cdef long long _varint(self, Py_ssize_t end) except? -1
    cdef int _advance(self, long long size, Py_ssize_t end) except -1


cdef class Lot:
    cdef readonly str topic
    cdef readonly int partition
    cdef Bytes source


cdef class Record:
    cdef Lot _lot
    cdef readonly long long offset
    cdef readonly long long timestamp_ms
    cdef public object _key
    cdef public object _value
    cdef list _headers
    cdef int _key_start
    cdef public int _key_size
    cdef int _value_start
    cdef public int _value_size
    cdef int _headers_start
    cdef int _end
    cdef object _read_value(self)


cdef list _read_headers(Bytes source, Py_ssize_t start, Py_ssize_t end)
