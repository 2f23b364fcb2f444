"""What a consumer does with its group's offsets: commit them, and ask for what is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ottla.client.consumer_core import ConsumerCore, by_partition
from ottla.client.lookup import TopicPartition
from ottla.client.offsets import OffsetAndMetadata
from ottla.errors import (
    BrokerUnavailable,
    ClientError,
    CommitFailed,
    ConfigError,
    KafkaError,
    RebalanceInProgress,
    Timeout,
)
from ottla.records.record import Record

if TYPE_CHECKING:
    from ottla.client.group import Group
    from ottla.client.offsets import Commit, Offsets
    from ottla.client.using import Using

Committable = (
    Record
    | Iterable[Record]
    | Mapping[TopicPartition, int | OffsetAndMetadata]
    | Mapping[tuple[str, int], int | OffsetAndMetadata]
)
"""What can be committed: records that were read, or offsets that are to be read next."""

OnCommit = Callable[[dict[TopicPartition, int], KafkaError | None], object]
"""Is called with what was to be committed, and with why it was not, or None."""

_LOG = logging.getLogger("ottla.client")
_API_TIMEOUT_S = 60.0


class Committing:
    """The offsets of a consumer's group."""

    _core: ConsumerCore
    _using: Using

    def commit(
        self, what: Committable | None = None, *, timeout: float = _API_TIMEOUT_S
    ) -> dict[TopicPartition, int]:
        """Commit, and return when it is stored.

        Args:
            what: a record or records that were handled; or the next offset to read by partition;
                None for everything that was given out.
            timeout: seconds.

        Returns:
            What is committed now: the next offset to read, by partition.

        Raises:
            CommitFailed: the partitions are not this member's any more; what was read of them is
                read again by whoever has them. It is never committed over another's commits.
            FencedMember: another member has the same group_instance_id.
            RebalanceInProgress: the group did not come to rest in time.
            Timeout: there was no answer in time; it may be committed.
            BrokerUnavailable: no broker was ever reached.
        """
        with self._using:
            group = self._group("commit")
            core = self._core
            with core.driver.held():
                commit = core.commit(self._offsets_of(what))
            in_time = core.driver.run_until(lambda: commit.is_done or self._is_hopeless(), timeout)
            if commit.is_done:
                if commit.error is not None:
                    raise self._named(group, commit.error)
                return {where: each.offset for where, each in commit.offsets.items()}
            with core.driver.held():
                group.offsets.forget(commit)
            raise self._no_outcome(commit, in_time=in_time, timeout=timeout)

    def commit_async(
        self, what: Committable | None = None, on_commit: OnCommit | None = None
    ) -> None:
        """Put a commit on its way; those of one consumer are stored in the order that it asks in.

        Args:
            what: see `commit`.
            on_commit: is called in a later poll with what was to be committed, and with why it was
                not, or None. Without it a failure is logged.
        """
        with self._using:
            self._group("commit")
            core = self._core

            def done(commit: Commit) -> None:
                offsets = {where: each.offset for where, each in commit.offsets.items()}
                tell = on_commit or _log_failure
                core.ended.append(lambda: tell(offsets, commit.error))
                core.attention = True

            with core.driver.held():
                core.commit(self._offsets_of(what), done)
            core.driver.push()

    def committed(
        self,
        partitions: Iterable[tuple[str, int]] | None = None,
        *,
        timeout: float = _API_TIMEOUT_S,
    ) -> dict[TopicPartition, int | None]:
        """Return what the group has committed: the next offset to read; None for nothing.

        Args:
            partitions: for which; None for the assigned ones.
            timeout: seconds.

        Raises:
            Timeout: there was no answer in time.
            BrokerUnavailable: no broker was ever reached.
        """
        with self._using:
            group = self._group("committed")
            core = self._core
            with core.driver.held():
                given = core.fetcher.partitions if partitions is None else partitions
                lookup = group.offsets.fetch([TopicPartition(*each) for each in given])
            try:
                core.driver.run_until(lambda: lookup.is_done or self._is_hopeless(), timeout)
            finally:
                with core.driver.held():
                    group.offsets.drop(lookup)
            if lookup.error is not None:
                raise lookup.error
            if not lookup.is_done:
                raise (
                    core.take_error()
                    or core.refusal
                    or Timeout(f"it is not known what is committed: no answer within {timeout:g} s")
                )
            return {
                where: None if each is None else each.offset for where, each in lookup.found.items()
            }

    # -- details

    def _group(self, what: str) -> Group:
        if self._core.group is None:
            raise ClientError(
                f"{what}() needs a group", next_steps=("Make the consumer with group='NAME'.",)
            )
        return self._core.group

    def _offsets_of(self, what: Committable | None) -> Offsets:
        if what is None:
            return self._core.given()
        if isinstance(what, Record):
            return by_partition([what])
        if isinstance(what, Mapping):
            return {
                TopicPartition(*where): each
                if isinstance(each, OffsetAndMetadata)
                else OffsetAndMetadata(_as_offset(each))
                for where, each in what.items()
            }
        return by_partition(what)

    def _is_hopeless(self) -> bool:
        """Tell whether waiting is of no use."""
        core = self._core
        is_unreachable = isinstance(core.fetcher.error, BrokerUnavailable)
        return (
            core.is_closed_by_another
            or is_unreachable
            or (core.group is not None and core.group.has_error)
        )

    def _named(self, group: Group, error: KafkaError) -> KafkaError:
        """Return why a commit failed; that another has taken the place says more than that."""
        if isinstance(error, CommitFailed) and group.fenced is not None:
            return group.fenced
        return error

    def _no_outcome(self, commit: Commit, *, in_time: bool, timeout: float) -> KafkaError:
        core = self._core
        if core.refusal is not None and core.is_closed_by_another:
            return core.refusal
        error = core.take_error() if in_time else None
        if error is not None:
            return error
        delay = commit.delay
        effect = "It may or may not be committed; where it is not, what was read is read again."
        if isinstance(delay, RebalanceInProgress):
            return RebalanceInProgress(
                f"the group did not come to rest within {timeout:g} s, and takes no commits",
                "Nothing was committed: what was read is read again, unless it is committed later.",
                ("Commit again; poll in between, where partitions are to be given back.",),
            )
        reason = "" if delay is None else f": {delay.what}"
        late = Timeout(f"a commit was not confirmed within {timeout:g} s{reason}", effect)
        late.__cause__ = delay
        return late


def _as_offset(offset: object) -> int:
    if isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0:
        return offset
    raise ConfigError(f"{offset!r} is no offset to commit")


def _log_failure(offsets: dict[TopicPartition, int], error: KafkaError | None) -> None:
    if error is not None:
        _LOG.warning("%s", error)
