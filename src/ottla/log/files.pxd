# The C side of files.py: fields, and what is called without Python's protocol.


cdef bint _is_gone(int descriptor) except -1


cdef class Descriptors:
    cdef Py_ssize_t _count_max
    cdef bint _read_only
    cdef object _open
    cdef OsFile _newest
    cdef int _newest_descriptor
    cdef int of(self, OsFile file) except -1
    cdef object _close_oldest(self)
    cdef object release(self, OsFile file)


cdef class OsFile:
    cdef readonly str path
    cdef public bint is_torn
    cdef Descriptors _descriptors
    cdef long long _size
    cdef int _syncing
    cdef bint _closed


cdef class FileSync:
    cdef OsFile _file
    cdef int _descriptor
