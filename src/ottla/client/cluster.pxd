# The C side of cluster.py: fields, and what is called without Python's protocol.

from ottla.client.node cimport Node


cdef class TopicInfo:
    cdef readonly str name
    cdef public bytes topic_id
    cdef public int error
    cdef public double error_since_ms
    cdef public object leaders
    cdef public list leader_epochs
    cdef public double updated_ms


cdef class Cluster:
    cdef readonly dict topics
    cdef readonly dict nodes
    cdef readonly int controller_id
    cdef readonly object cluster_id
    cdef readonly object matching
    cdef readonly object unreachable
    cdef readonly object updated_ms
    cdef object _network
    cdef object _config
    cdef object _clock
    cdef bint _create_topics
    cdef object _matches
    cdef bint _asked_all
    cdef list _bootstrap
    cdef list _all_nodes
    cdef bint _asking
    cdef bint _refresh
    cdef double _next_ask_ms
    cdef double _told_ms
    cdef double _age_max_ms
    cpdef bint was_reached(self)
    cpdef object all_nodes(self)
    cpdef Node leader_of(self, str topic, int partition)
    cpdef object problem_of(self, Node node)
    cpdef object step(self)
    cdef object _maybe_ask(self, double now)
    cdef object _judge(self, double now)
