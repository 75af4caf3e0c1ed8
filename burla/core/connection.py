"""The client's conversation with a scheduler: hellos, beats, silence, whose message it is. Pure.

It holds the sessions of the open jobs and says which of them fails because nobody answers.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

from burla.protocol import messages as m

from .effects import Effect, Send
from .session import Session

BEAT_S = 1.0
SILENCE_S = 60.0  # a scheduler that says nothing for this long is gone
SILENCE_SAID_S = 5.0  # it beats each second: the user is told after a few
LATE_S = 0.05  # what may be said late waits so long for the next job: those of a loop are sooner
LATE_MAX = 8  # so many words wait at most
CLOSED_KEPT = 256  # ids of closed jobs, told again when the connection that carried them broke


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow this publisher, where the output of all jobs comes from."""

    publisher: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget what was to be sent and what came in pieces: all of it is said again."""


@dataclass(frozen=True, slots=True)
class ForJob:
    """Carry out an effect of the session of `job`."""

    job: bytes
    effect: Effect


@dataclass(frozen=True, slots=True)
class Broken:
    """A job can not go on: the cluster is not there, or not any more."""

    job: bytes
    how: Literal["unreachable", "lost", "ended"]  # no answer; silent since; known to have ended
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The scheduler does not take this client: so for all jobs."""

    job: bytes
    reason: str
    not_authorised: bool  # a matter of keys


ConnectionEffect = Send | Subscribe | Forget | ForJob | Broken | Rejected


class Connection:
    """One connection, through all its reconnects."""

    def __init__(self, hello: m.ClientHello, answer_s: float, now_s: float) -> None:
        """Say hello first, and wait for `answer_s` seconds for the first answer to a job."""
        self.sessions: dict[bytes, Session] = {}
        self.refused: str | None = None  # why the scheduler does not take this client
        self._not_authorised = False  # that is why
        self._hello = hello
        self._answer_s = answer_s
        self._welcomed = False
        self._hello_s = now_s
        self._heard_s: float | None = None
        self._beat_s = now_s + BEAT_S
        self._closed: deque[bytes] = deque(maxlen=CLOSED_KEPT)
        self._late: list[Send] = []
        self._late_s = 0.0  # when they are said at the latest
        self._effects: list[ConnectionEffect] = [Send(hello)]

    def start(self) -> list[ConnectionEffect]:
        """Return what to do first."""
        return self._hand_over()

    def open(self, session: Session, now_s: float) -> list[ConnectionEffect]:
        """Begin a job."""
        if self.refused is not None:
            return [Rejected(session.id, self.refused, self._not_authorised)]
        self.sessions[session.id] = session
        self._late_s = now_s  # at once, but after the inputs, which are there already
        if self._welcomed:
            self._add(session, session.link(now_s), now_s)
        else:
            self._add(session, session.stall("the cluster has not answered yet", now_s), now_s)
        return self._hand_over()

    def tell(
        self, job: bytes, event: Callable[[Session, float], list[Effect]], now_s: float
    ) -> list[ConnectionEffect]:
        """Let an event happen to the session of `job` if it is still there."""
        session = self.sessions.get(job)
        if session is not None:
            self._add(session, event(session, now_s), now_s)
        return self._hand_over()

    def receive(
        self, message: m.SchedulerToClient, payload: list[bytes], now_s: float
    ) -> list[ConnectionEffect]:
        """Take what the scheduler says to this client."""
        self._heard_s = now_s
        match message:
            case m.Welcome():
                self._welcome(message, now_s)
            case m.HelloRequired():
                self._introduce(now_s)
            case m.Refused():
                return self.refuse(message)
            case m.Heartbeat() | m.Nodes():
                pass
            case m.JobOutcomes() | m.JobOutput() | m.LeaseLost() | m.JobStatus() | m.JobFailed():
                return self.tell(
                    message.job, lambda s, now_s: s.receive(message, payload, now_s), now_s
                )
            case _:
                assert_never(message)
        return self._hand_over()

    def publish(
        self, message: m.JobOutput, payload: list[bytes], now_s: float
    ) -> list[ConnectionEffect]:
        """Take output that the scheduler published."""
        return self.tell(message.job, lambda s, now_s: s.receive(message, payload, now_s), now_s)

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next. Costs O(open jobs of this process)."""
        dues = [s.next_deadline_s() for s in self.sessions.values()]
        if self._late:
            dues.append(self._late_s)
        return min([self._beat_s, *(due for due in dues if due is not None)])

    def expire(self, now_s: float) -> list[ConnectionEffect]:
        """Do what is due at `now_s`."""
        if self._late and now_s >= self._late_s:
            self._say_late()
        for session in list(self.sessions.values()):
            self._add(session, session.expire(now_s), now_s)
        if now_s >= self._beat_s:
            self._beat_s = now_s + BEAT_S
            self._effects.append(Send(m.Heartbeat()))
            for session in list(self.sessions.values()):
                self._look_after(session, now_s)
        return self._hand_over()

    def break_all(self, why: str) -> list[ConnectionEffect]:
        """Fail all jobs because the cluster has ended."""
        self._effects += [Broken(job, "ended", why) for job in self.sessions]
        self.sessions.clear()
        return self._hand_over()

    def refuse(self, why: m.Refused) -> list[ConnectionEffect]:
        """Fail all jobs, and those to come, because the cluster does not take this client."""
        self.refused, self._not_authorised = why.reason, why.not_authorised
        self._effects += [Rejected(job, why.reason, why.not_authorised) for job in self.sessions]
        self.sessions.clear()
        return self._hand_over()

    def close_all(self, now_s: float) -> list[ConnectionEffect]:
        """Close all jobs: this process ends."""
        for session in list(self.sessions.values()):
            self._add(session, session.close(now_s), now_s)
        self._say_late()
        return self._hand_over()

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert not self._effects
        assert len(self._late) <= LATE_MAX
        for job, session in self.sessions.items():
            assert session.id == job
            assert not session.over
            assert session.opened or not self._welcomed
            session.check()

    def _welcome(self, welcome: m.Welcome, now_s: float) -> None:
        self._welcomed = True
        self._effects.append(Subscribe(welcome.publisher))
        self._effects += [Send(m.CloseJob(job)) for job in self._closed]
        for session in list(self.sessions.values()):
            self._add(session, session.link(now_s), now_s)

    def _introduce(self, now_s: float) -> None:
        """Say hello again, once for the many words that a new scheduler did not understand."""
        if not self._welcomed and now_s - self._hello_s < BEAT_S:
            return
        self._welcomed, self._hello_s = False, now_s
        self._late.clear()  # all are about jobs that are closed, which is told again
        for session in self.sessions.values():
            session.unlink()
        self._effects += [Forget(), Send(self._hello)]

    def _look_after(self, session: Session, now_s: float) -> None:
        since_s = now_s - session.born_s
        heard_s = self._heard_s
        if not session.opened or heard_s is None or heard_s < session.born_s:
            if since_s >= self._answer_s:
                self._break(session, "unreachable", f"no answer for {since_s:.0f} s")
            return
        silent_s = now_s - heard_s
        if silent_s >= SILENCE_S:
            self._break(session, "lost", f"its scheduler is silent since {silent_s:.0f} s")
        elif silent_s >= SILENCE_SAID_S:
            self._add(session, session.stall("its scheduler is silent", now_s), now_s)
        else:
            self._add(session, session.stall("", now_s), now_s)

    def _break(self, session: Session, how: Literal["unreachable", "lost"], why: str) -> None:
        del self.sessions[session.id]
        self._closed.append(session.id)
        self._effects.append(Broken(session.id, how, why))

    def _say_late(self) -> None:
        self._effects += self._late
        self._late.clear()

    def _add(self, session: Session, effects: list[Effect], now_s: float) -> None:
        for effect in effects:
            if not isinstance(effect, Send):
                self._effects.append(ForJob(session.id, effect))
            elif effect.is_late:
                self._late_s = self._late_s if self._late else now_s + LATE_S
                self._late.append(effect)
            else:
                self._effects.append(effect)
        if len(self._late) > LATE_MAX:
            self._say_late()
        if session.over and self.sessions.pop(session.id, None) is not None:
            self._closed.append(session.id)

    def _hand_over(self) -> list[ConnectionEffect]:
        effects, self._effects = self._effects, []
        return effects
