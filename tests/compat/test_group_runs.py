"""The runs of `python -m tests.compat` in a short form, and that they see what is wrong."""

from __future__ import annotations

import pytest

from tests.compat.crowd import Crowd
from tests.compat.group_runs import CASTS, PARTITIONS, Row, _judge, ottla_broker, run


def crowd_of(*told: list[dict[str, list[object]]]) -> Crowd:
    crowd = Crowd("ottla", "nowhere:1", "g", PARTITIONS)
    crowd.seen.extend(told)
    return crowd


def judged(crowd: Crowd, written: range) -> Row:
    row = Row("a group", len(written))
    _judge(row, crowd, {str(each) for each in written})
    return row


def values(*numbers: int) -> list[object]:
    return [str(number * PARTITIONS) for number in numbers]


def test_a_record_that_nobody_has_seen_is_missing() -> None:
    row = judged(crowd_of([{"seen": ["0", "1"]}], [{"seen": ["3"]}]), range(4))
    assert (row.missing, row.again, row.jumps) == (1, 0, 0)
    assert not row.is_good


def test_a_record_that_two_members_have_seen_is_seen_again_which_is_allowed() -> None:
    row = judged(crowd_of([{"seen": ["0", "1"]}], [{"seen": ["1", "2"]}]), range(3))
    assert (row.missing, row.again, row.jumps) == (0, 1, 0)
    assert row.is_good


def test_a_member_that_reads_on_behind_records_of_its_own_partition_has_jumped() -> None:
    told: list[dict[str, list[object]]] = [
        {"assigned": [0]},
        {"seen": values(0, 1)},
        {"seen": values(3)},
    ]
    assert judged(crowd_of(told), range(0)).jumps == 1


def test_a_member_that_was_given_a_partition_anew_has_not_jumped() -> None:
    told: list[dict[str, list[object]]] = [
        {"seen": values(0, 1)},
        {"assigned": []},
        {"assigned": [0]},
        {"seen": values(5, 6)},
    ]
    assert judged(crowd_of(told), range(0)).jumps == 0


@pytest.mark.slow
def test_all_clients_in_one_group_live_through_everything_while_somebody_writes() -> None:
    (cast,) = [each for each in CASTS if each.name == "all in one classic group"]
    with ottla_broker() as broker:
        row = run(cast, 3_000, broker)
    assert row.is_good, row
