"""The exceptions: one for each of Kafka's codes, all exported, each with its three parts."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

import ottla.errors
from ottla.errors import BrokerError, KafkaError, broker_error, codes, tree
from ottla.errors.broker import BY_CODE

CODES: dict[str, int] = {
    name: value for name, value in vars(codes).items() if name.isupper() and value != codes.NONE
}
EFFECT = "Nothing was stored."
STEPS = ("Do this.", "Or that.")

TREE = [
    cls
    for _, cls in inspect.getmembers(tree, inspect.isclass)
    if issubclass(cls, KafkaError) and cls.__module__ == tree.__name__
]
ARGUMENTS: dict[type[KafkaError], tuple[Any, ...]] = {
    tree.CorruptLog: ("/some/00.log", 17, "no batch"),
    tree.StoreInUse: ("/some", 4711, "python app.py", "localhost:9092"),
    tree.DeliveryError: ("2 records were not delivered", EFFECT, STEPS),
    tree.FlushTimeout: ("2 records were not delivered", EFFECT, STEPS),
}


def test_every_code_has_a_class_of_its_own_and_no_class_is_left_over() -> None:
    assert set(BY_CODE) == set(CODES.values())
    assert len(set(BY_CODE.values())) == len(CODES)
    for name, code in CODES.items():
        cls = BY_CODE[code]
        assert (cls.code, cls.name) == (code, name)
        assert issubclass(cls, BrokerError)


def test_every_class_is_exported() -> None:
    wanted = {cls.__name__ for cls in (*BY_CODE.values(), *TREE)}
    assert wanted <= set(ottla.errors.__all__)
    assert all(hasattr(ottla.errors, name) for name in ottla.errors.__all__)
    assert len(set(ottla.errors.__all__)) == len(ottla.errors.__all__)


def test_every_class_says_what_it_is_and_descends_from_one() -> None:
    for cls in (*BY_CODE.values(), *TREE):
        assert cls.__doc__
        assert issubclass(cls, KafkaError)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_brokers_error_has_three_parts_and_its_code(code: int) -> None:
    error = broker_error(code, "the topic t", EFFECT, STEPS)
    assert type(error) is BY_CODE[code]
    assert error.code == code
    assert error.what == f"the topic t: {error.name}"
    assert str(error) == f"the topic t: {error.name}\n  {EFFECT}\n  Do this.\n  Or that."
    assert str(broker_error(code)) == BY_CODE[code].name


@pytest.mark.parametrize("code", [-2, 9999])
def test_a_code_that_is_not_known_stays_visible(code: int) -> None:
    error = broker_error(code, "the topic t")
    assert type(error) is BrokerError
    assert error.code == code
    assert str(error) == f"the topic t: error code {code}"
    assert not error.retriable


def test_what_may_be_tried_again_is_as_kafka_says() -> None:
    assert BY_CODE[codes.NOT_LEADER_OR_FOLLOWER].retriable
    assert BY_CODE[codes.NOT_LEADER_OR_FOLLOWER].refresh_metadata
    assert BY_CODE[codes.REQUEST_TIMED_OUT].retriable
    assert not BY_CODE[codes.REQUEST_TIMED_OUT].refresh_metadata
    assert not BY_CODE[codes.MESSAGE_TOO_LARGE].retriable
    for cls in BY_CODE.values():
        assert cls.retriable or not cls.refresh_metadata


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_the_text_is_what_happened_then_what_it_means_then_what_to_do(cls: Any) -> None:
    error = cls(*ARGUMENTS.get(cls, ("it broke", EFFECT, STEPS)))
    assert error.what
    assert isinstance(error.effect, str)
    assert all(isinstance(step, str) for step in error.next_steps)
    lines = [error.what, *filter(None, [error.effect]), *error.next_steps]
    assert str(error).splitlines() == [lines[0], *(f"  {line}" for line in lines[1:])]


def test_parts_that_there_are_not_take_no_lines() -> None:
    assert str(KafkaError("it broke")) == "it broke"
    assert str(KafkaError("it broke", "", STEPS)) == "it broke\n  Do this.\n  Or that."


def test_errors_of_a_store_say_where() -> None:
    corrupt = tree.CorruptLog("/some/00.log", 17, "no batch", EFFECT)
    assert str(corrupt) == f"/some/00.log is damaged at byte 17: no batch\n  {EFFECT}"
    assert (corrupt.path, corrupt.position, corrupt.reason) == ("/some/00.log", 17, "no batch")
    used = tree.StoreInUse("/some", 4711, "python app.py", "localhost:9092")
    assert used.what == "the store /some is in use by process 4711 (python app.py)"
    assert (used.path, used.pid, used.address) == ("/some", 4711, "localhost:9092")
    assert "by another process" in tree.StoreInUse("/some", 0, "").what


def test_errors_are_caught_as_the_builtin_ones_they_are() -> None:
    for cls, builtin in (
        (tree.BrokerUnavailable, ConnectionError),
        (tree.Timeout, TimeoutError),
        (tree.FlushTimeout, TimeoutError),
        (tree.BufferFull, BufferError),
        (tree.ConfigError, ValueError),
        (tree.RecordError, ValueError),
    ):
        assert issubclass(cls, builtin)


def test_a_brokers_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(broker_error(codes.MESSAGE_TOO_LARGE, "t", EFFECT, STEPS)))
    assert type(error) is BY_CODE[codes.MESSAGE_TOO_LARGE]
    assert (error.code, error.effect, error.next_steps) == (10, EFFECT, STEPS)


def test_a_store_in_use_says_how_to_share_it() -> None:
    held = str(tree.StoreInUse("./here", 17, "python app.py"))
    assert "the store ./here is in use by process 17 (python app.py)" in held
    assert "run `ottla serve` on the directory" in held
    served = str(tree.StoreInUse("./here", 17, "ottla serve", "127.0.0.1:9092"))
    assert "it is served already on 127.0.0.1:9092" in served
