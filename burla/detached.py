"""Detached jobs, as their users see them: `burla.Job` and `burla.attach`.

Results are sealed with a secret that follows from the user's secret key and the id of the job: so
who has that key can check them from anywhere, and nobody else can have made them.
"""

import hmac
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast, overload

from burla.core.batches import Window
from burla.core.replay import Replay
from burla.protocol import messages as m, store_messages as sm
from burla.shell.caller import Caller
from burla.shell.curves import curve_for
from burla.shell.delivery import Delivery
from burla.shell.stored import StoredJob
from burla.transport.conversation import Conversation
from burla.transport.request import NoAnswer, NotTaken
from burla.values.held_parts import HeldFunction
from burla.values.rooms import Rooms
from burla.values.sharing import SharedInputs

from .config import CLUSTER_VARIABLE, cluster_address, reconnect_timeout_s
from .errors import (
    BadSetting,
    ClusterLost,
    ClusterUnreachable,
    JobFailed,
    JobNotFound,
    NotAuthorised,
    Refused,
)
from .options import Options, read_options

WAIT_FIRST_S, WAIT_MOST_S = 0.02, 0.5  # between two looks at how a job is
ANSWER_S = 8.0  # how long a cluster may take to say its first word
NEEDS_CLUSTER = (
    "the address of a cluster for a detached job: a private cluster ends with this process. Set it,"
    " store one by `burla login`, or start one on this machine by `burla up --local`"
)

State = Literal["sent", "waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How a detached job is.

    Attributes:
        state: "sent" while its caller still sends inputs, "waiting" for a node, "running", or how
            it has ended: "done" (all outcomes are there), "failed", "cancelled".
        inputs: how many it has; None while more may come.
        done: how many of them have their outcome.
        failed: how many of those are exceptions.
        why: why it waits, or failed; else empty.
        notice: which of the arguments nothing there heeds, as `region`; else empty.
        size: bytes that it takes in the store of the cluster.
        made: when it was detached.
        ended: when it ended; None: it has not.
        kept_until: when it is deleted; None: it has not ended.
    """

    state: State
    inputs: int | None
    done: int
    failed: int
    why: str
    size: int
    made: datetime
    ended: datetime | None
    kept_until: datetime | None
    notice: str = ""

    def has_ended(self) -> bool:
        """Return whether nothing more of it is called."""
        return self.state in ("done", "failed", "cancelled")


class Job:
    """A job that outlives its caller.

    `remote_parallel_map(..., detach=True)` returns one when its function and inputs are on the disk
    of the cluster's scheduler; `burla.attach(job_id)` finds it again, in whatever process has the
    same key. It is kept for 7 days after it has ended, unless the cluster says otherwise.

    Attributes:
        id: names it.
        name: of its function.
    """

    def __init__(self, job_id: str, address: str, name: str = "") -> None:
        """Name a job of a cluster; nobody is asked whether it is there."""
        self.id = job_id
        self.name = name
        self._address = address

    def __repr__(self) -> str:
        """Say which job it is."""
        return f"<burla.Job {self.id} of {self.name or '?'}>"

    def status(self) -> JobStatus:
        """Return how the job is.

        Raises:
            JobNotFound: it is not there: it was deleted, or is another user's.
            BurlaError: the cluster cannot be reached.
        """
        return _status(self._facts())

    @overload
    def results(
        self,
        generator: Literal[False] = False,
        *,
        ordered: bool = False,
        with_index: bool = False,
        output: bool = True,
    ) -> list[Any]: ...
    @overload
    def results(
        self,
        generator: Literal[True],
        *,
        ordered: bool = False,
        with_index: bool = False,
        output: bool = True,
    ) -> Iterator[Any]: ...
    def results(
        self,
        generator: bool = False,
        *,
        ordered: bool = False,
        with_index: bool = False,
        output: bool = True,
    ) -> list[Any] | Iterator[Any]:
        """Return the results as `remote_parallel_map` would, waiting for those that are not there.

        They stay in the store: this may be called again, also at the same time. Ctrl-C ends the
        wait, and not the job.

        Args:
            generator: return an iterator that yields results in the order of completion.
            ordered: with `generator=True`, yield in the order of the inputs.
            with_index: give each result as `(index of its input, result)`.
            output: write what the calls have printed.

        Raises:
            JobNotFound: it is not there: it was deleted, or is another user's.
            JobFailed: it has failed as a whole, or was cancelled.
            BurlaError: the cluster cannot be reached or is lost, or a call's process died.
            BaseException: what a call raised, unless the job was given `return_exceptions`.
        """
        if not isinstance(output, bool):
            raise TypeError(f"output must be True or False, not {output!r}")
        options = read_options(generator=generator, ordered=ordered, with_index=with_index)
        facts = self._facts()
        caller, replay = self._caller(facts, options, shows_output=output)
        if not generator:
            facts = self._watch(_is_sent, is_met=True)
            if facts.total is None:  # it ended while inputs were sent: that is raised
                return list(caller.stream())
            found, given = caller.collect(facts.total), replay.given
            return [one for at, one in enumerate(found) if at not in given] if given else found
        results = caller.stream()
        next(results)
        return results

    def wait(self, timeout: float | None = None) -> bool:
        """Return True when the job has ended, or False after `timeout` seconds."""
        return self._watch(lambda facts: facts.state in sm.ENDED, timeout).state in sm.ENDED

    def cancel(self) -> None:
        """Stop all calls of the job; the results that are there stay."""
        self._end(delete=False)

    def delete(self) -> None:
        """Stop the job and delete all that the cluster keeps of it."""
        self._end(delete=True)

    def _end(self, *, delete: bool) -> None:
        said = self._ask(sm.EndStored(bytes.fromhex(self.id), delete))
        if not said.jobs:
            raise JobNotFound(self.id)

    def _facts(self) -> sm.StoredJob:
        return self._watch(lambda facts: True)

    def _watch(
        self,
        is_enough: Callable[[sm.StoredJob], bool],
        timeout: float | None = None,
        *,
        is_met: bool = False,
    ) -> sm.StoredJob:
        """Ask how the job is, in one conversation, until that is enough or time is up."""
        until_s = None if timeout is None else time.monotonic() + timeout
        wait_s = WAIT_FIRST_S
        line = _Line(self._address, is_met=is_met)
        try:
            while True:
                facts = self._facts_of(line.put(sm.AskStored(bytes.fromhex(self.id))))
                left_s = wait_s if until_s is None else until_s - time.monotonic()
                if left_s <= 0 or is_enough(facts):
                    return facts
                time.sleep(min(wait_s, left_s))
                wait_s = min(WAIT_MOST_S, wait_s * 1.5)
        finally:
            line.close()

    def _facts_of(self, said: sm.StoredJobs) -> sm.StoredJob:
        if not said.jobs:
            raise JobNotFound(self.id)
        self.name = said.jobs[0].name
        return said.jobs[0]

    def _ask(self, question: sm.EndStored) -> sm.StoredJobs:
        line = _Line(self._address)
        try:
            return line.put(question)
        finally:
            line.close()

    def _caller(
        self, facts: sm.StoredJob, options: Options, *, shows_output: bool
    ) -> tuple[Caller, Replay]:
        """Return what collects the results, as for a job that is attached."""
        secret = secret_of(self._address, facts.job, facts.key)
        policy = facts.policy or m.CallPolicy()
        delivery = Delivery(
            options.generator,
            policy.goes_on,
            options.is_ordered,
            options.with_index,
            policy.timeout_s,
        )
        silence_s = reconnect_timeout_s()
        line = _Line(self._address, is_met=True)
        replay = Replay(facts.job, secret, policy.goes_on, Rooms(bytes_max=0).make)
        job = StoredJob(facts, replay, line, self._address, silence_s, shows_output=shows_output)
        nothing = SharedInputs(None), Window(), HeldFunction([])

        def connect() -> Any:
            raise AssertionError("a job that is read has no thread")

        return Caller(job, connect, (), iter(()), {}, *nothing, delivery), replay


def attach(job_id: str) -> Job:
    """Return a detached job by its id, on the cluster that is configured.

    Its results can be read with the key under which it was detached, from any computer.

    Raises:
        ValueError: that is no id of a job.
        JobNotFound: there is no such job of this user.
        BurlaError: the cluster cannot be reached, or none is configured.
    """
    try:
        is_id = len(bytes.fromhex(job_id)) == 16
    except (TypeError, ValueError):
        is_id = False
    if not is_id:
        raise ValueError(f"job_id must be 32 hexadecimal digits, as burla.Job.id, not {job_id!r}")
    job = Job(job_id.lower(), address_for_detached())
    job.status()
    return job


def address_for_detached() -> str:
    """Return the address of the configured cluster.

    Raises:
        BadSetting: there is none.
    """
    address = cluster_address()
    if address is None:
        raise BadSetting(CLUSTER_VARIABLE, None, NEEDS_CLUSTER)
    return address


def secret_of(address: str, job: bytes, key: str | None = None) -> bytes:
    """Return what seals the outcomes of a detached job; empty where nobody else can listen.

    Args:
        address: of the cluster.
        job: its id.
        key: public key under which it was detached; None: ours.

    Raises:
        JobFailed: that is not our key.
    """
    curve = curve_for(address)
    if curve is None:
        return b""
    if key is not None and key != curve.pair.public.hex():
        raise JobFailed(
            f"the results of this job are sealed for key {key[:16]}, and yours is"
            f" {curve.pair.public.hex()[:16]}: read them where the other key is (BURLA_CONFIG_DIR)"
        )
    return hmac.digest(curve.pair.secret, b"detached job" + job, "sha256")


class _Line:
    """A conversation, whose errors are those that users know.

    A cluster that was met just before is waited for as for one that is lost in the middle: it may
    be about to start again.
    """

    def __init__(self, address: str, *, is_met: bool = False) -> None:
        self._address = address
        self._line = Conversation(address, curve_for(address), m.SchedulerToClient, ANSWER_S)
        self._met = is_met

    def close(self) -> None:
        self._line.close()

    def ask(self, question: m.Message) -> None:
        try:
            self._line.ask(question)
        except NoAnswer as error:
            raise ClusterUnreachable(self._address, str(error)) from None

    def put(self, question: sm.AskStored | sm.EndStored) -> sm.StoredJobs:
        """Return the answer to a question about a job."""
        self.ask(question)

        def is_answer(said: m.Message) -> bool:
            return isinstance(said, sm.StoredJobs) and said.about == question.job

        silence_s = reconnect_timeout_s() if self._met else None
        return cast(sm.StoredJobs, self.wait(is_answer, sm.STORE, silence_s)[0])

    def wait(
        self, is_answer: Any, feature: str, silence_s: float | None = None
    ) -> tuple[m.Message, list[bytes]]:
        try:
            answer = self._line.wait(is_answer, feature, silence_s)
        except NoAnswer as error:
            kind = ClusterLost if self._met else ClusterUnreachable
            raise kind(self._address, str(error)) from None
        except NotTaken as error:
            raise (NotAuthorised if error.not_authorised else Refused)(str(error)) from None
        self._met = True
        return answer


def _is_sent(facts: sm.StoredJob) -> bool:
    return facts.total is not None or facts.state in sm.ENDED


def _status(facts: sm.StoredJob) -> JobStatus:
    return JobStatus(
        cast(State, str(facts.state)),
        facts.total,
        facts.done,
        facts.failed,
        facts.said,
        facts.size,
        datetime.fromtimestamp(facts.made_s, UTC),
        datetime.fromtimestamp(facts.ended_s, UTC) if facts.ended_s else None,
        datetime.fromtimestamp(facts.until_s, UTC) if facts.until_s else None,
        facts.notice,
    )
