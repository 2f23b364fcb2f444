"""CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords, configs and DescribeCluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ottla.broker.requests import Context, Pending
from ottla.errors import DiskFull, StorageError, codes
from ottla.log.memory_files import MemoryFile
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_19_create_topics import CreateTopicsRequest
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.api_21_delete_records import DeleteRecordsRequest
from ottla.protocol.messages.api_32_describe_configs import DescribeConfigsRequest
from ottla.protocol.messages.api_37_create_partitions import CreatePartitionsRequest
from ottla.protocol.messages.api_44_incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.api_60_describe_cluster import DescribeClusterRequest
from tests.broker.asking import Asking, batch_of_values

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)
_Topic = CreateTopicsRequest.CreatableTopic
_Config = CreateTopicsRequest.CreatableTopicConfig
_Assignment = CreateTopicsRequest.CreatableReplicaAssignment


def topic(name: str = "t", partitions: int = 1, factor: int = 1, **configs: str) -> _Topic:
    return _Topic(
        name=name,
        num_partitions=partitions,
        replication_factor=factor,
        configs=[
            _Config(name=key.replace("_", "."), value=value) for key, value in configs.items()
        ],
    )


def create(asking: Asking, *topics: _Topic, version: int = 7, validate_only: bool = False) -> Any:
    request = CreateTopicsRequest(topics=list(topics), validate_only=validate_only)
    return asking.ask(request, version).topics


def test_a_topic_is_created_with_its_configs_and_survives_a_power_cut() -> None:
    asking = Asking()
    [result] = create(asking, topic(partitions=3, retention_ms="5000"))
    assert (result.error_code, result.num_partitions, result.replication_factor) == (0, 3, 1)
    assert result.topic_id != bytes(16)
    told = {each.name: (each.value, each.config_source) for each in result.configs}
    assert told["retention.ms"] == ("5000", 1)
    assert told["cleanup.policy"] == ("delete", 5)
    found = asking.after_power_cut().engine.cluster.topics["t"]
    assert (found.topic_id, found.partitions) == (result.topic_id, 3)
    assert found.configs == {"retention.ms": "5000"}


def test_it_is_answered_when_it_is_durable_and_a_failure_is_told() -> None:
    asking = Asking()
    reply = asking.ask_nowait(CreateTopicsRequest(topics=[topic()]))
    assert isinstance(reply, Pending)
    assert not reply.is_done
    begun = asking.engine.commit.begin()
    assert begun is not None
    asking.engine.commit.end([StorageError("the disk is gone")] * len(begun.parts))
    [result] = reply.response.topics  # type: ignore[union-attr]  # a CreateTopicsResponse
    assert result.error_code == codes.KAFKA_STORAGE_ERROR
    assert "the disk is gone" in (result.error_message or "")


def test_minus_1_stands_for_the_broker_s_defaults() -> None:
    [result] = create(Asking(num_partitions="4"), topic(partitions=-1, factor=-1))
    assert (result.error_code, result.num_partitions, result.replication_factor) == (0, 4, 1)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (topic("a b"), codes.INVALID_TOPIC_EXCEPTION),
        (topic(partitions=0), codes.INVALID_PARTITIONS),
        (topic(factor=3), codes.INVALID_REPLICATION_FACTOR),
        (topic(factor=0), codes.INVALID_REPLICATION_FACTOR),
        (topic(no_such="1"), codes.INVALID_CONFIG),
        (topic(retention_ms="soon"), codes.INVALID_CONFIG),
        (topic("__cluster_metadata"), codes.INVALID_TOPIC_EXCEPTION),
        (topic("there"), codes.TOPIC_ALREADY_EXISTS),
        (
            _Topic(
                name="t",
                num_partitions=-1,
                replication_factor=-1,
                assignments=[_Assignment(partition_index=0, broker_ids=[7])],
            ),
            codes.INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            _Topic(
                name="t",
                num_partitions=-1,
                replication_factor=-1,
                assignments=[_Assignment(partition_index=1, broker_ids=[1])],
            ),
            codes.INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            _Topic(
                name="t",
                num_partitions=2,
                replication_factor=1,
                assignments=[_Assignment(partition_index=0, broker_ids=[1])],
            ),
            codes.INVALID_REQUEST,
        ),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_what_cannot_be_created_is_told_and_not_created(
    wrong: _Topic, error: int, validate_only: bool
) -> None:
    asking = Asking()
    create(asking, topic("there"))
    [result] = create(asking, wrong, validate_only=validate_only)
    assert result.error_code == error
    assert result.error_message
    assert list(asking.engine.cluster.topics) == ["there"]


def test_one_name_twice_in_a_request_is_refused_and_the_others_are_created() -> None:
    asking = Asking()
    results = create(asking, topic("a"), topic("b"), topic("a"))
    assert [each.error_code for each in results] == [
        codes.INVALID_REQUEST,
        codes.NONE,
        codes.INVALID_REQUEST,
    ]
    assert list(asking.engine.cluster.topics) == ["b"]


def test_validate_only_creates_nothing() -> None:
    asking = Asking()
    [result] = create(asking, topic(), validate_only=True)
    assert result.error_code == codes.NONE
    assert asking.engine.cluster.topics == {}


def test_partitions_can_be_assigned_to_the_only_broker() -> None:
    asking = Asking()
    assignments = [_Assignment(partition_index=each, broker_ids=[1]) for each in range(2)]
    [result] = create(
        asking,
        _Topic(name="t", num_partitions=-1, replication_factor=-1, assignments=assignments),
    )
    assert (result.error_code, result.num_partitions) == (codes.NONE, 2)


def delete(asking: Asking, *names: str, version: int = 6) -> list[int]:
    states = [DeleteTopicsRequest.DeleteTopicState(name=name) for name in names]
    request = DeleteTopicsRequest(topics=states)
    if version < 6:
        request = DeleteTopicsRequest(topic_names=list(names))
    return [each.error_code for each in asking.ask(request, version).responses]


@pytest.mark.parametrize("version", [1, 5, 6])
def test_a_topic_is_deleted_with_its_files_and_does_not_come_back(version: int) -> None:
    asking = Asking()
    asking.create("t", 2)
    asking.produce("t", batch_of_values(b"a"))
    assert delete(asking, "t", "nothing", version=version) == [
        codes.NONE,
        codes.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    asking.sync()
    assert not [name for name in asking.files.list("store") if name.startswith("t-")]
    assert asking.after_power_cut().engine.cluster.topics == {}


def test_a_topic_is_deleted_by_its_id() -> None:
    asking = Asking()
    topic_id = asking.create("t")
    state = DeleteTopicsRequest.DeleteTopicState
    states = [
        state(topic_id=topic_id),
        state(topic_id=b"\1" * 16),
        state(name="t", topic_id=topic_id),
    ]
    found = asking.ask(DeleteTopicsRequest(topics=states)).responses
    assert [each.error_code for each in found] == [
        codes.NONE,
        codes.UNKNOWN_TOPIC_ID,
        codes.INVALID_REQUEST,
    ]
    assert found[0].name == "t"


def test_deleting_can_be_switched_off() -> None:
    asking = Asking(delete_topic_enable="false")
    asking.create("t")
    assert delete(asking, "t") == [codes.TOPIC_DELETION_DISABLED]
    assert "t" in asking.engine.cluster.topics


def grow(asking: Asking, count: int, name: str = "t", **settings: Any) -> int:
    asked = CreatePartitionsRequest.CreatePartitionsTopic(
        name=name, count=count, assignments=settings.pop("assignments", None)
    )
    request = CreatePartitionsRequest(topics=[asked], **settings)
    [result] = asking.ask(request).results
    code: int = result.error_code
    return code


def test_partitions_are_added_and_can_be_written_at_once() -> None:
    asking = Asking()
    asking.create("t")
    assert grow(asking, 3) == codes.NONE
    assert asking.produce("t", batch_of_values(b"a"), partition=2).error_code == codes.NONE
    assert asking.after_power_cut().engine.cluster.topics["t"].partitions == 3


def test_partitions_that_cannot_be_added_are_told() -> None:
    asking = Asking()
    asking.create("t", 2)
    assignment = CreatePartitionsRequest.CreatePartitionsAssignment
    assert grow(asking, 2) == codes.INVALID_PARTITIONS
    assert grow(asking, 1) == codes.INVALID_PARTITIONS
    assert grow(asking, 3, "nothing") == codes.UNKNOWN_TOPIC_OR_PARTITION
    wrong = [assignment(broker_ids=[9])]
    assert grow(asking, 3, assignments=wrong) == codes.INVALID_REPLICA_ASSIGNMENT
    assert grow(asking, 4, assignments=wrong) == codes.INVALID_REPLICA_ASSIGNMENT
    assert grow(asking, 3, validate_only=True) == codes.NONE
    assert asking.engine.cluster.topics["t"].partitions == 2
    assert grow(asking, 3, assignments=[assignment(broker_ids=[1])]) == codes.NONE


def delete_records(asking: Asking, offset: int, *, partition: int = 0) -> DeleteRecordsRequest:
    where = DeleteRecordsRequest.DeleteRecordsPartition(partition_index=partition, offset=offset)
    return DeleteRecordsRequest(
        topics=[DeleteRecordsRequest.DeleteRecordsTopic(name="t", partitions=[where])]
    )


def with_records(count: int = 5) -> Asking:
    asking = Asking()
    asking.create("t")
    for number in range(count):
        asking.produce("t", batch_of_values(b"%d" % number))
    return asking


@pytest.mark.parametrize(("offset", "start"), [(2, 2), (0, 0), (5, 5), (-1, 5)])
def test_deleted_records_do_not_come_back_after_a_power_cut(offset: int, start: int) -> None:
    asking = with_records()
    reply = asking.ask_nowait(delete_records(asking, offset))
    assert isinstance(reply, Pending)
    assert not reply.is_done
    asking.sync()
    [part] = reply.response.topics[0].partitions  # type: ignore[union-attr]  # its response
    assert (part.error_code, part.low_watermark) == (codes.NONE, start)
    again = asking.after_power_cut()
    assert again.fetch("t", start).log_start_offset == start
    if start:
        assert again.fetch("t", start - 1).error_code == codes.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize("offset", [6, -2])
def test_records_cannot_be_deleted_beyond_the_log(offset: int) -> None:
    asking = with_records()
    [part] = asking.ask(delete_records(asking, offset)).topics[0].partitions
    assert (part.error_code, part.low_watermark) == (codes.OFFSET_OUT_OF_RANGE, -1)
    missing = asking.ask(delete_records(asking, 1, partition=9)).topics[0].partitions[0]
    assert missing.error_code == codes.UNKNOWN_TOPIC_OR_PARTITION


def describe(asking: Asking, kind: int, name: str, **settings: Any) -> Any:
    resource = DescribeConfigsRequest.DescribeConfigsResource(
        resource_type=kind,
        resource_name=name,
        configuration_keys=settings.pop("keys", None),
    )
    [result] = asking.ask(DescribeConfigsRequest(resources=[resource], **settings)).results
    return result


def test_configs_are_told_with_types_sources_and_synonyms_where_they_are_wanted() -> None:
    asking = Asking(log_retention_bytes="7")
    asking.create("t", retention_ms="5")
    result = describe(asking, TOPIC, "t", include_synonyms=True)
    told = {each.name: each for each in result.configs}
    assert (told["retention.ms"].value, told["retention.ms"].config_source) == ("5", 1)
    assert told["retention.ms"].config_type == 5
    assert [each.name for each in told["retention.ms"].synonyms] == [
        "retention.ms",
        "log.retention.hours",
    ]
    assert (told["retention.bytes"].value, told["retention.bytes"].config_source) == ("7", 4)
    [only] = describe(asking, TOPIC, "t", keys=["cleanup.policy"]).configs
    assert (only.name, only.synonyms) == ("cleanup.policy", [])
    broker = {each.name: each for each in describe(asking, BROKER, "1").configs}
    assert broker["log.retention.bytes"].value == "7"
    assert broker["num.partitions"].read_only
    assert describe(asking, BROKER, "").configs == []


@pytest.mark.parametrize(
    ("came_to", "set_to", "told"),
    [
        (("here", 9092), None, ["PLAINTEXT://here:9092"]),
        (("::1", 9092), None, ["PLAINTEXT://[::1]:9092"]),
        (("here", 9092), ("there", 1), ["PLAINTEXT://there:1"]),
        (("", 0), None, []),  # no connection, and so no address
    ],
)
def test_the_broker_s_configs_have_the_address_that_clients_are_told(
    came_to: tuple[str, int], set_to: tuple[str, int] | None, told: list[str]
) -> None:
    asking = Asking()
    asking.engine.advertised = set_to
    resource = DescribeConfigsRequest.DescribeConfigsResource(
        resource_type=BROKER, resource_name="1", configuration_keys=["advertised.listeners"]
    )
    request = DescribeConfigsRequest(resources=[resource])
    [result] = asking.ask(request, context=Context(*came_to)).results
    found = [(each.value, each.config_source, each.read_only) for each in result.configs]
    assert found == [(address, 4, True) for address in told]


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (TOPIC, "nothing", codes.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", codes.INVALID_TOPIC_EXCEPTION),
        (BROKER, "9", codes.INVALID_REQUEST),
        (99, "x", codes.INVALID_REQUEST),
    ],
)
def test_configs_of_what_is_not_there_are_refused(kind: int, name: str, error: int) -> None:
    asking = Asking()
    assert describe(asking, kind, name).error_code == error
    assert alter(asking, kind, name, ("retention.ms", SET, "1")) in (
        error,
        codes.UNKNOWN_TOPIC_OR_PARTITION,
    )


def alter(
    asking: Asking,
    kind: int,
    name: str,
    *changes: tuple[str, int, str | None],
    validate_only: bool = False,
) -> int:
    resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
        resource_type=kind,
        resource_name=name,
        configs=[
            IncrementalAlterConfigsRequest.AlterableConfig(
                name=config, config_operation=operation, value=value
            )
            for config, operation, value in changes
        ],
    )
    request: ApiMessage = IncrementalAlterConfigsRequest(
        resources=[resource], validate_only=validate_only
    )
    [result] = asking.ask(request).responses
    code: int = result.error_code
    return code


def value_of(asking: Asking, name: str) -> str | None:
    [config] = describe(asking, TOPIC, "t", keys=[name]).configs
    value: str | None = config.value
    return value


def test_configs_are_set_deleted_appended_to_and_subtracted_from() -> None:
    asking = Asking()
    asking.create("t")
    assert alter(asking, TOPIC, "t", ("retention.ms", SET, "5")) == codes.NONE
    assert value_of(asking, "retention.ms") == "5"
    assert alter(asking, TOPIC, "t", ("cleanup.policy", APPEND, "compact")) == codes.NONE
    assert value_of(asking, "cleanup.policy") == "delete,compact"
    assert alter(asking, TOPIC, "t", ("cleanup.policy", SUBTRACT, "delete")) == codes.NONE
    assert value_of(asking, "cleanup.policy") == "compact"
    assert alter(asking, TOPIC, "t", ("retention.ms", DELETE, None)) == codes.NONE
    assert value_of(asking, "retention.ms") == "604800000"
    assert value_of(asking.after_power_cut(), "cleanup.policy") == "compact"


def test_a_change_counts_at_once() -> None:
    asking = Asking()
    asking.create("t")
    log = asking.engine.log_of("t", 0)
    assert log is not None
    assert log.config.durable
    alter(asking, TOPIC, "t", ("ottla.durability", SET, "os"), ("max.message.bytes", SET, "100"))
    assert not log.config.durable
    too_large = asking.produce("t", batch_of_values(b"x" * 200))
    assert too_large.error_code == codes.MESSAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("no.such", SET, "1"), codes.INVALID_CONFIG),
        (("no.such", DELETE, None), codes.INVALID_CONFIG),
        (("retention.ms", SET, "soon"), codes.INVALID_CONFIG),
        (("retention.ms", SET, None), codes.INVALID_REQUEST),
        (("retention.ms", APPEND, "5"), codes.INVALID_CONFIG),
        (("retention.ms", 9, "5"), codes.INVALID_REQUEST),
    ],
)
def test_one_wrong_change_keeps_the_others_of_its_resource_from_being_made(
    change: tuple[str, int, str | None], error: int
) -> None:
    asking = Asking()
    asking.create("t")
    assert alter(asking, TOPIC, "t", ("retention.bytes", SET, "5"), change) == error
    assert value_of(asking, "retention.bytes") == "-1"


def test_one_config_twice_is_refused_and_validate_only_changes_nothing() -> None:
    asking = Asking()
    asking.create("t")
    twice = (("retention.ms", SET, "5"), ("retention.ms", SET, "6"))
    assert alter(asking, TOPIC, "t", *twice) == codes.INVALID_REQUEST
    assert alter(asking, TOPIC, "t", twice[0], validate_only=True) == codes.NONE
    assert value_of(asking, "retention.ms") == "604800000"


@pytest.mark.parametrize("name", ["", "1"])
def test_the_broker_s_defaults_for_topics_are_changed_while_it_runs(name: str) -> None:
    asking = Asking()
    asking.create("t")
    assert alter(asking, BROKER, name, ("log.retention.ms", SET, "5")) == codes.NONE
    assert value_of(asking, "retention.ms") == "5"
    assert value_of(asking.after_power_cut(), "retention.ms") == "5"
    assert alter(asking, BROKER, name, ("num.partitions", SET, "5")) == codes.INVALID_REQUEST
    assert alter(asking, BROKER, name, ("log.retention.ms", DELETE, None)) == codes.NONE
    assert value_of(asking, "retention.ms") == "604800000"


def test_the_cluster_is_the_one_broker() -> None:
    asking = Asking()
    context = Context("here", 9092)
    response = asking.ask(DescribeClusterRequest(), context=context)
    assert response.cluster_id == asking.engine.cluster_id
    assert response.controller_id == 1
    assert [(each.broker_id, each.host, each.port) for each in response.brokers] == [
        (1, "here", 9092)
    ]
    controllers = asking.ask(DescribeClusterRequest(endpoint_type=2), context=context)
    assert controllers.error_code == codes.MISMATCHED_ENDPOINT_TYPE


@pytest.mark.parametrize("failing", ["open", "rename", "write"])
def test_records_that_cannot_be_removed_from_the_disk_are_gone_all_the_same(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    asking = with_records()
    original = getattr(asking.files, failing)

    def fail(path: str, *arguments: object, **options: object) -> object:
        if "/t-0/" not in path or options.get("create") is False:
            return original(path, *arguments, **options)
        raise DiskFull(f"no space left while writing to {path}")

    with monkeypatch.context() as patch:
        patch.setattr(asking.files, failing, fail)
        response = asking.ask(delete_records(asking, -1))
    result = response.topics[0].partitions[0]
    assert (result.error_code, result.low_watermark) == (codes.NONE, 5)
    assert asking.produce("t", batch_of_values(b"more")).base_offset == 5
    log = asking.engine.log_of("t", 0)
    assert log is not None
    asking.engine.remove_old_segments(log)
    asking.engine.remove_files()
    again = asking.after_power_cut()
    assert again.fetch("t", offset=4).error_code == codes.OFFSET_OUT_OF_RANGE
    assert again.fetch("t", offset=5).error_code == codes.NONE


class HeldBack:
    """A disk that is full, but for what is held back for this case."""

    def __init__(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = asking.engine.store
        for name in ("write", "open"):
            monkeypatch.setattr(asking.files, name, self._or_full(getattr(asking.files, name)))
        monkeypatch.setattr(MemoryFile, "append", self._or_full(MemoryFile.append))

    def _or_full(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any, **options: Any) -> Any:
            if self._store.full is None and options.get("create") is not False:
                raise DiskFull("no space left on the disk")
            return original(*arguments, **options)

        return method


def test_records_can_be_deleted_on_a_disk_that_nobody_knew_to_be_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = with_records()
    with monkeypatch.context() as patch:
        HeldBack(asking, patch)
        result = asking.ask(delete_records(asking, 3)).topics[0].partitions[0]
    assert (result.error_code, result.low_watermark) == (codes.NONE, 3)
    assert asking.after_power_cut().fetch("t", offset=2).error_code == codes.OFFSET_OUT_OF_RANGE


def test_records_can_be_deleted_while_a_look_for_room_holds_the_rest_of_a_full_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = with_records()
    asking.engine.store.note_full(DiskFull("no space left on the disk"))
    original = asking.files.write
    refused: list[str] = []

    def full_once(path: str, content: bytes) -> None:
        if not refused:
            refused.append(path)
            raise DiskFull(f"no space left while writing to {path}")
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(asking.files, "write", full_once)
        result = asking.ask(delete_records(asking, 3)).topics[0].partitions[0]
    assert refused
    assert (result.error_code, result.low_watermark) == (codes.NONE, 3)
    assert asking.after_power_cut().fetch("t", offset=2).error_code == codes.OFFSET_OUT_OF_RANGE


def test_topics_can_be_deleted_on_a_disk_that_nobody_knew_to_be_full_and_not_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = with_records()
    with monkeypatch.context() as patch:
        HeldBack(asking, patch)
        outcome = asking.engine.delete_topic(asking.engine.cluster.topics["t"])
        assert outcome.error == codes.NONE
        asking.engine.store.full = None
        assert asking.engine.create_topic("new", 1, {}).error == codes.KAFKA_STORAGE_ERROR
        assert asking.engine.store.full is not None
        asking.sync()
    assert "t" not in asking.after_power_cut().engine.cluster.topics
