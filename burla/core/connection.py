"""The client's conversation with a scheduler: hellos, beats, silence, whose message it is. Pure.

It holds the sessions of the open jobs and says which of them fails for want of an answer. Its
methods return what the shell must do, in order.
"""

from collections import deque
from typing import Literal, assert_never

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.blob_messages import BLOBS
from burla.protocol.detach_messages import ADOPT, BeforeStored, DetachAsked
from burla.protocol.fields import MACHINES, POLICIES
from burla.protocol.image_messages import IMAGES
from burla.protocol.input_messages import INPUTS
from burla.protocol.job_messages import JOBS, JobShown
from burla.protocol.key_messages import ServerKey
from burla.protocol.package_messages import PACKAGES

from .adopting import TOO_OLD, Adopting
from .commands import Command, HandInputs, Hold, Release
from .effects import Broken, DetachWanted, Effect, Forget, Held, Rejected, Send, Status, Subscribe
from .session import AboutJob, Session, Wanted

SILENCE_S = 600.0  # a scheduler that says nothing for this long is gone; by default
SILENCE_REPORT_S = 5.0  # it beats each second: the user is told after a few
LATE_S = 0.05  # the CloseJob of a job that went well waits so long for the next OpenJob
LATE_MAX = 8  # so many wait at most
CLOSED_KEPT = 256  # ids of closed jobs, told again when the connection that carried them broke


class Connection:
    """One connection, through all its reconnects."""

    def __init__(
        self, hello: m.ClientHello, answer_s: float, now_s: float, silence_s: float = SILENCE_S
    ) -> None:
        """Say hello first.

        Args:
            hello: who this client is.
            answer_s: how long the first answer to a job may take.
            now_s: the time.
            silence_s: how long the scheduler may be silent after that.
        """
        self.sessions: dict[bytes, Session] = {}
        self.refused: str | None = None  # why the scheduler does not take this client
        self._not_authorised = False  # that is why
        self._hello = hello
        self._answer_s, self._silence_s = answer_s, silence_s
        self._welcomed = False
        self._takes_blobs = False
        self._bytes_max = 0  # that the scheduler takes of a job at once; 0: it did not say
        self._has_store = False  # it keeps detached jobs
        self._store_takes_sizes = False  # likewise as `_takes_sizes` says
        self._adopts = False  # it takes over jobs that run
        self._held: set[bytes] = set()  # jobs that are being detached
        self._has_policies = False  # it knows what is to become of calls that fail
        self._tells_status = False  # it can say how a job stands
        self._has_packages = False  # it knows what a function needs of packages
        self._takes_sizes = False  # it takes the sizes of big inputs for them
        self._knows_images = False  # it gives jobs with one to nodes that run images
        self._knows_machines = False  # it knows what machines made for jobs are to be like
        self._hello_s = now_s
        self._heard_s: float | None = None
        self._beat_s = now_s + m.BEAT_S
        self._closed: deque[bytes] = deque(maxlen=CLOSED_KEPT)
        self._late: list[bytes] = []  # closed jobs of which the scheduler is told later
        self._late_s = 0.0  # when at the latest

    # --- what this process does ---

    def start(self) -> list[Effect]:
        """Return what to do first."""
        return [Send(self._hello)]

    def open(self, session: Session, now_s: float) -> list[Effect]:
        """Begin a job."""
        if self.refused is not None:
            return [Rejected(session.id, self.refused, self._not_authorised)]
        self.sessions[session.id] = session
        session.born_s = now_s
        self._late_s = now_s  # at once, but after the inputs, which are there already
        if self._welcomed:
            return self._after(session, self._connect(session, now_s), now_s)
        session.stall("the cluster has not answered yet", now_s)
        return []

    def handle(self, command: Command, now_s: float) -> list[Effect]:
        """Do what the caller of a job asks, if the job is still there."""
        session = self.sessions.get(command.job)
        if session is None:
            return []
        effects: list[Effect] = []
        match command:
            case Hold():
                self._held.add(session.id)
                return [Held(session.id, tuple(session.batches.done))]
            case Release():
                self._held.discard(session.id)
                if self._welcomed:
                    effects = self._connect(session, now_s)
            case HandInputs():
                if isinstance(session, Adopting):
                    effects = session.adopt(self.sessions.get(command.of))
            case _:
                effects = session.handle(command, now_s)
        return self._after(session, effects, now_s)

    def break_all(self, why: str) -> list[Effect]:
        """Fail all jobs because the cluster has ended."""
        effects: list[Effect] = [Broken(job, "ended", why) for job in self.sessions]
        self.sessions.clear()
        return effects

    def close_all(self) -> list[Effect]:
        """Close all jobs: this process ends."""
        effects: list[Effect] = [Send(m.CloseJob(job)) for job in self._late]
        if self._welcomed:
            effects += [Send(m.CloseJob(job)) for job in self.sessions]
        self._late.clear()
        self.sessions.clear()
        return effects

    # --- what the scheduler says ---

    def receive(
        self, message: m.SchedulerToClient, payload: list[bytes], now_s: float
    ) -> list[Effect]:
        """Take what the scheduler says to this client."""
        self._heard_s = now_s
        match message:
            case m.JobOutcomes() | m.JobOutput() | m.JobRunning() | m.LeaseLost():
                return self.hear_of_job(message, payload, now_s)
            case DetachAsked():
                is_ours = message.job in self.sessions
                return [DetachWanted(message.job, message.by)] if is_ours else []
            case m.JobStatus() | m.JobFailed() | m.CallLost() | sm.InputsStored():
                return self.hear_of_job(message, payload, now_s)
            case BeforeStored():
                return self.hear_of_job(message, payload, now_s)
            case m.BlobWanted() | m.InputWanted() | m.BatchWanted():
                return self._send_wanted(message, now_s)
            case JobShown():
                record = message.record
                is_ours = record is not None and record.summary.job in self.sessions
                return [Status(record.summary.job, record)] if record and is_ours else []
            case m.Heartbeat() | m.Nodes() | ServerKey():  # the shell has taken the last one
                return []
            case sm.StoredJobs() | sm.StoredPart():  # who asks has a connection of its own
                return []
            case m.Welcome():
                return self._welcome(message, now_s)
            case m.ClusterEnded():
                return self._end_all(f"it was ended: {message.by}")
            case m.HelloRequired():
                return self._say_hello_again(now_s)
            case m.Refused():
                return self.refuse(message)
            case _:
                assert_never(message)

    def hear_of_job(self, message: AboutJob, payload: list[bytes], now_s: float) -> list[Effect]:
        """Take what the scheduler says or publishes about a job."""
        session = self.sessions.get(message.job)
        if session is None or (self._held and self._is_held(message)):
            return []
        return self._after(session, session.receive(message, payload, now_s), now_s)

    def _is_held(self, message: AboutJob) -> bool:
        """Return whether a message is not taken, as its job is being detached: it comes again."""
        return isinstance(message, m.JobOutcomes) and message.job in self._held

    def _send_wanted(self, wanted: Wanted, now_s: float) -> list[Effect]:
        """Send what a job's nodes, or the scheduler, have asked for."""
        about = wanted.about if isinstance(wanted, m.BlobWanted) else wanted.job
        session = self.sessions.get(about)
        return [] if session is None else self._after(session, session.send_wanted(wanted), now_s)

    def refuse(self, why: m.Refused) -> list[Effect]:
        """Fail all jobs, and those to come, because the cluster does not take this client."""
        self.refused, self._not_authorised = why.reason, why.not_authorised
        effects: list[Effect] = [
            Rejected(job, why.reason, why.not_authorised) for job in self.sessions
        ]
        self.sessions.clear()
        return effects

    # --- time ---

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next. Costs O(open jobs of this process)."""
        due_s = min(self._beat_s, self._late_s) if self._late else self._beat_s
        for session in self.sessions.values():
            due_s = min(due_s, session.next_deadline_s())
        return due_s

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due at `now_s`."""
        effects: list[Effect] = []
        if self._late and now_s >= self._late_s:
            effects += self._take_late()
        for session in list(self.sessions.values()):
            if now_s >= session.next_deadline_s():
                effects += self._after(session, session.expire(now_s), now_s)
        if now_s >= self._beat_s:
            self._beat_s = now_s + m.BEAT_S
            effects.append(Send(m.Heartbeat()))
            for session in list(self.sessions.values()):
                effects += self._look_after(session, now_s)
        return effects

    def has_met(self) -> bool:
        """Return whether the scheduler has ever spoken to us."""
        return self._heard_s is not None

    def silent_s(self, now_s: float) -> float:
        """Return for how long the scheduler has not spoken though there was a job."""
        since_s = min((session.born_s for session in self.sessions.values()), default=now_s)
        return now_s - (since_s if self._heard_s is None else max(since_s, self._heard_s))

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert len(self._late) <= LATE_MAX
        for job, session in self.sessions.items():
            assert session.id == job
            assert not session.over
            assert session.opened or not self._welcomed
            session.check()

    # --- in one of those ---

    def _welcome(self, welcome: m.Welcome, now_s: float) -> list[Effect]:
        self._welcomed, self._bytes_max = True, welcome.bytes_max
        self._takes_blobs = BLOBS in welcome.features
        self._has_policies = POLICIES in welcome.features
        self._tells_status = JOBS in welcome.features
        self._has_packages = PACKAGES in welcome.features
        self._takes_sizes = INPUTS in welcome.features
        self._knows_machines = MACHINES in welcome.features
        self._knows_images = IMAGES in welcome.features
        self._has_store = sm.STORE in welcome.features
        self._store_takes_sizes = sm.STORE_SIZES in welcome.features
        self._adopts = self._has_store and ADOPT in welcome.features
        effects: list[Effect] = [Subscribe(welcome.publisher)]
        effects += [Send(m.CloseJob(job)) for job in self._closed]
        for session in list(self.sessions.values()):
            effects += self._after(session, self._connect(session, now_s), now_s)
        return effects

    def _connect(self, session: Session, now_s: float) -> list[Effect]:
        if isinstance(session, Adopting) and not self._adopts:
            return session.refuse(TOO_OLD)
        return session.connect(
            now_s,
            self._bytes_max,
            takes_blobs=self._takes_blobs,
            has_policies=self._has_policies,
            tells_status=self._tells_status,
            has_packages=self._has_packages,
            has_store=self._has_store,
            takes_sizes=self._store_takes_sizes if session.is_detached else self._takes_sizes,
            knows_machines=self._knows_machines,
            knows_images=self._knows_images,
        )

    def _end_all(self, why: str) -> list[Effect]:
        """Fail all jobs; the scheduler may have heard of one after it said so."""
        effects: list[Effect] = []
        for job in list(self.sessions):
            effects += self._give_up(self.sessions[job], "lost", why)
            if self._welcomed:
                effects.append(Send(m.CloseJob(job)))
        return effects

    def _say_hello_again(self, now_s: float) -> list[Effect]:
        """Say hello once for the many words that a new scheduler did not understand."""
        if not self._welcomed and now_s - self._hello_s < m.BEAT_S:
            return []
        self._welcomed, self._hello_s = False, now_s
        self._late.clear()  # all are in `_closed`, and told again
        for session in self.sessions.values():
            session.disconnect()
        return [Forget(), Send(self._hello)]

    def _look_after(self, session: Session, now_s: float) -> list[Effect]:
        """Give a job up that nobody answers, or note why it waits."""
        since_s = now_s - session.born_s
        heard_s = self._heard_s
        if not session.opened or heard_s is None or heard_s < session.born_s:
            if since_s < self._answer_s:
                return []
            return self._give_up(session, "unreachable", f"no answer for {since_s:.0f} s")
        silent_s = now_s - heard_s
        if silent_s >= self._silence_s:
            return self._give_up(
                session, "lost", f"its scheduler has been silent for {silent_s:.0f} s"
            )
        waits = f"its scheduler is silent; it may be so for {self._silence_s:.0f} s"
        session.stall(waits if silent_s >= SILENCE_REPORT_S else "", now_s)
        return []

    def _give_up(
        self, session: Session, how: Literal["unreachable", "lost"], why: str
    ) -> list[Effect]:
        del self.sessions[session.id]
        self._closed.append(session.id)
        return [Broken(session.id, how, why)]

    def _after(self, session: Session, effects: list[Effect], now_s: float) -> list[Effect]:
        """Return the effects of a session; if it is over, with what tells the scheduler.

        Of a job that went well nothing runs any more, so that this may wait for others: the
        scheduler is woken once.
        """
        if not session.over:
            return effects
        del self.sessions[session.id]
        self._held.discard(session.id)
        if session.is_detached and session.went_well:
            return effects  # it goes on without us
        self._closed.append(session.id)
        if not self._welcomed:
            return effects  # the next Welcome brings it up
        if not session.went_well:
            return [*effects, Send(m.CloseJob(session.id))]
        if not self._late:
            self._late_s = now_s + LATE_S
        self._late.append(session.id)
        return effects if len(self._late) <= LATE_MAX else [*effects, *self._take_late()]

    def _take_late(self) -> list[Effect]:
        effects: list[Effect] = [Send(m.CloseJob(job)) for job in self._late]
        self._late.clear()
        return effects
