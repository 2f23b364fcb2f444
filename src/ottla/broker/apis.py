"""Which APIs are served, and in which versions; ApiVersions tells exactly these."""

from __future__ import annotations

from typing import NamedTuple


class Api(NamedTuple):
    """An API.

    Attributes:
        name: what its modules are called behind the key, that of its messages and its handler's.
        min_version: the first version that is served.
        max_version: the last one, inclusive.
    """

    name: str
    min_version: int
    max_version: int


API_VERSIONS = 18
"""The key of the API that tells what is here."""

APIS = {
    0: Api("produce", 0, 13),
    1: Api("fetch", 4, 18),
    2: Api("list_offsets", 0, 11),
    3: Api("metadata", 0, 13),
    8: Api("offset_commit", 0, 10),
    9: Api("offset_fetch", 0, 10),
    10: Api("find_coordinator", 0, 6),
    11: Api("join_group", 0, 9),
    12: Api("heartbeat", 0, 4),
    13: Api("leave_group", 0, 5),
    14: Api("sync_group", 0, 5),
    15: Api("describe_groups", 0, 6),
    16: Api("list_groups", 0, 5),
    API_VERSIONS: Api("api_versions", 0, 4),
    19: Api("create_topics", 2, 7),
    20: Api("delete_topics", 1, 6),
    21: Api("delete_records", 0, 2),
    22: Api("init_producer_id", 0, 5),
    23: Api("offset_for_leader_epoch", 0, 4),
    32: Api("describe_configs", 1, 4),
    37: Api("create_partitions", 0, 3),
    42: Api("delete_groups", 0, 2),
    44: Api("incremental_alter_configs", 0, 1),
    47: Api("offset_delete", 0, 0),
    60: Api("describe_cluster", 0, 2),
    68: Api("consumer_group_heartbeat", 0, 1),
    69: Api("consumer_group_describe", 0, 1),
}
"""By API key."""
