"""The table of a classic group's states."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.classic import STATES, ClassicGroup, Rejoin, State
from ottla.errors import codes


def test_every_state_has_its_rules() -> None:
    assert set(STATES) == set(State)


def test_what_may_follow_is_what_kafka_lets_follow() -> None:
    """Kafka: ClassicGroupState's valid previous states, turned round."""
    previous = {
        State.EMPTY: {State.PREPARING_REBALANCE},
        State.PREPARING_REBALANCE: {State.STABLE, State.COMPLETING_REBALANCE, State.EMPTY},
        State.COMPLETING_REBALANCE: {State.PREPARING_REBALANCE},
        State.STABLE: {State.COMPLETING_REBALANCE},
        State.DEAD: set(State) - {State.DEAD},
    }
    for state, rules in STATES.items():
        assert rules.following == {each for each in State if state in previous[each]}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("following", list(State))
def test_a_group_goes_only_where_it_may(state: State, following: State) -> None:
    group = ClassicGroup("g", state=state)
    if following in STATES[state].following:
        group.move_to(following)
        assert group.state is following
    else:
        with pytest.raises(AssertionError, match="g: "):
            group.move_to(following)


def test_who_joins_again_unchanged_is_answered_at_once_only_where_a_generation_goes_on() -> None:
    answered = {Rejoin.REPEATED, Rejoin.REPEATED_TO_FOLLOWERS}
    states = {state for state, rules in STATES.items() if rules.rejoin in answered}
    assert states == {State.COMPLETING_REBALANCE, State.STABLE}


def test_a_dead_group_has_nobody() -> None:
    rules = ClassicGroup("g", state=State.DEAD).rules
    assert rules.sync == rules.heartbeat == rules.commit == codes.UNKNOWN_MEMBER_ID
    assert rules.delete == codes.GROUP_ID_NOT_FOUND
    assert not rules.following
