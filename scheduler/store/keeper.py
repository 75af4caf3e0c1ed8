"""Keeps detached jobs: takes their inputs, is their caller, and tells of them. Pure.

Towards the core of the scheduler the keeper is a client for each user who has detached jobs: so the
same custody, windows, quotas and turns hold as for callers that stay. It acknowledges what is on
the disk. Feed it what clients and the core say, what the shell has written and read, and the time;
carry out the effects that it returns, in order.
"""

from collections.abc import Iterable, Sequence

from burla.protocol import detach_messages as dm, messages as m, store_messages as sm
from burla.protocol.store_messages import StoredState
from burla.scheduler.core.store_limits import Limits

from . import adopting, big_inputs, ending, members, readers, uploads
from .effects import Effect, Log, Note, Recheck, ToCore
from .kept_job import KeptJob, Pending
from .members import Members
from .progress import OutcomeRecord
from .readers import Readers
from .recovery import Found
from .state import State, Ways

SWEEP_S = 1.0  # how often all jobs are looked at, also those that are over


class Keeper:
    """All detached jobs."""

    def __init__(self, limits: Limits, ways: Ways) -> None:
        """Start without jobs."""
        self.state = State(limits, ways)
        self._members, self._readers = Members(), Readers()
        self._rechecked: set[bytes] = set()  # jobs that are being looked at again
        self._suspects: set[bytes] = set()  # jobs with damage that go on
        self._beat_s = self._sweep_s = 0.0

    def at(self, now_s: float, wall_s: float, room: int | None = None) -> None:
        """Take note of the time, and of the free bytes on the disk, before anything else."""
        self.state.now_s, self.state.wall_s = now_s, wall_s
        if room is not None:
            self.state.room = room

    # --- what clients say ---

    def takes(self, message: m.Message) -> bool:
        """Return whether a client says this to the keeper and not to the core."""
        match message:
            case m.OpenJob():
                return message.detached is not None
            case m.Inputs() | m.InputsEnd() | m.CloseJob() | m.InputPiece():
                return message.job in self.state.jobs
            case m.BlobPiece():
                return message.about in self.state.jobs
            case _:
                return isinstance(message, sm.ClientAboutStore)

    def hear(
        self,
        peer: bytes,
        user: str,
        hello: tuple[str, str, str],
        message: m.Message,
        payload: list[bytes],
    ) -> list[Effect]:
        """Take what a client says.

        Args:
            peer: its connection.
            user: its public key.
            hello: its Python, user and host, as it said.
            message: for which `takes` is true.
            payload: its frames.
        """
        state = self.state
        tenant = state.ways.tenant_of(user)
        match message:
            case m.OpenJob():
                uploads.open_(state, peer, message, payload, tenant, (user, *hello))
            case m.Inputs() | m.InputsEnd() | m.CloseJob():
                if (job := state.of(tenant, message.job)) is not None and job.upload.source == peer:
                    uploads.hear(state, job, message, payload)
            case m.BlobPiece():
                if (
                    job := state.of(tenant, message.about)
                ) is not None and job.upload.source == peer:
                    uploads.piece(state, job, message, payload)
            case m.InputPiece():
                if (job := state.of(tenant, message.job)) is not None and job.upload.source == peer:
                    uploads.input_piece(state, job, message, payload)
            case dm.OutcomesBefore() | dm.GivenBefore():
                if (job := state.of(tenant, message.job)) is not None and job.upload.source == peer:
                    adopting.hear(state, job, message, payload)
            case sm.AskStored(job=None):
                mine = [job for job in state.jobs.values() if state.is_of(tenant, job)]
                readers.tell(state, peer, mine)
            case sm.AskStored(job=bytes(which)):
                found = state.of(tenant, which)
                readers.tell(state, peer, [] if found is None else [found], which)
            case sm.ReadStored():
                self._readers.ask(state, peer, state.of(tenant, message.job), message)
            case sm.EndStored():
                self._end_asked(peer, tenant, message)
            case _:
                pass
        return state.take_effects()

    def _end_asked(self, peer: bytes, tenant: str, asked: sm.EndStored) -> None:
        state = self.state
        job = state.of(tenant, asked.job)
        if job is not None and not job.is_ended:
            ending.close(state, job)
            ending.end(state, job, StoredState.CANCELLED, "it was cancelled")
        told = [] if job is None else [job]
        if job is not None and asked.delete:
            ending.delete(state, job)
            self._readers.forget(state, job.id)
            self._suspects.discard(job.id)
        readers.tell(state, peer, told, asked.job)

    # --- what the shell has done ---

    def written(self, jobs: Iterable[bytes]) -> list[Effect]:
        """Take note that the oldest that was to be written of each of these is on the disk."""
        state = self.state
        changed: dict[bytes, KeptJob] = {}
        seqs: dict[tuple[bytes, bytes], int] = {}
        for job_id in jobs:
            if (job := state.jobs.get(job_id)) is not None and job.pending:
                entry = job.take_written()
                state.settle(entry)
                self._is_on_disk(job, entry)
                changed[job_id] = job
                if isinstance(entry.said, m.JobOutcomes):
                    seqs[job_id, entry.said.lease] = entry.said.seq
        for (job_id, lease), seq in seqs.items():
            state.to_core(changed[job_id], m.AckOutcomes(lease, seq))
        if any(members.may_begin(job) for job in changed.values()):
            self._members.begin_next(state)
        for job in changed.values():
            adopting.look(state, job)
            if job.id not in state.jobs:
                continue
            uploads.tell(state, job)
            if not job.is_ended:
                members.feed(state, job)
                ending.look(state, job)
            self._readers.wake(state, job)
        if any(job.spec.adopted and members.may_begin(job) for job in changed.values()):
            self._members.begin_next(state)  # it is whole now
        return state.take_effects()

    def _is_on_disk(self, job: KeptJob, entry: Pending) -> None:
        state, said = self.state, entry.said
        if isinstance(said, m.Inputs | m.InputPiece | m.InputsEnd | m.OpenJob | m.BlobPiece):
            uploads.is_on_disk(state, job, entry)
        elif isinstance(said, OutcomeRecord):
            job.free(job.progress.note(said, sum(map(len, entry.payload))))
            adopting.is_on_disk(state, job, said)
            if isinstance(said, m.JobOutput):
                last = said.number + len(said.streams) - 1
                state.to_core(job, m.AckOutput(said.lease, last))
            elif isinstance(said, sm.StoreEnded):
                job.state, job.said, job.ended_s = said.state, said.said, said.ended_s
                job.slim()
                state.live.pop(job.id, None)
                state.save(job)
                if job.state is StoredState.DONE and job.id in self._suspects:
                    self._suspects.discard(job.id)
                    self._rechecked.add(job.id)
                    state.effects.append(Recheck(job.id))

    def not_written(self, job_id: bytes, why: str) -> list[Effect]:
        """Take note that the oldest that was to be written of a job could not be."""
        state = self.state
        job = state.jobs.get(job_id)
        if job is None or not job.pending:
            return []
        state.settle(job.pending.popleft())
        if not job.blocked:
            text = f"job {job_id.hex()[:8]} cannot be written down, and waits: {why}"
            state.effects.append(Note(text))
        state.block(job, f"the scheduler cannot write down its outcomes: {why}")
        if not job.is_kept:
            uploads.refuse(state, job, f"the scheduler cannot keep the job: {why}")
        elif not job.pending:
            before = job.size()
            job.rewind()
            state.count(job.opened.tenant, job.size() - before)
        return state.take_effects()

    def loaded(
        self, job_id: bytes, number: int, said: m.Inputs | None, payload: list[bytes]
    ) -> list[Effect]:
        """Take a batch that was read; None: it is not there any more."""
        if (job := self.state.jobs.get(job_id)) is not None:
            members.loaded(self.state, job, number, said, payload)
        return self.state.take_effects()

    def pieces_loaded(self, job_id: bytes, *pieces: tuple[m.InputPiece, bytes]) -> list[Effect]:
        """Take what was read of a big leaf; nothing: it is not there any more."""
        job = self.state.jobs.get(job_id)
        if job is not None and not job.is_ended:
            for said, data in pieces:
                self.state.to_core(job, said, [data])
            if not pieces:
                ending.fail(self.state, job, ending.INPUTS_LOST)
        return self.state.take_effects()

    def whole_loaded(
        self, job_id: bytes, said: m.Inputs | None, payload: list[bytes]
    ) -> list[Effect]:
        """Take a batch that was read with its big leaves; None: it is not there any more."""
        job = self.state.jobs.get(job_id)
        if job is not None and not job.is_ended:
            if said is None:
                ending.fail(self.state, job, ending.INPUTS_LOST)
            else:
                self.state.to_core(job, said, payload)
        return self.state.take_effects()

    def spec_loaded(
        self, job_id: bytes, spec: m.OpenJob | None, function: list[bytes]
    ) -> list[Effect]:
        """Take how a job was opened, as it was read; None: it is not there any more."""
        if (job := self.state.jobs.get(job_id)) is not None:
            self._members.spec_loaded(self.state, job, spec, function)
        return self.state.take_effects()

    def blob_loaded(self, job_id: bytes, said: m.BlobPiece, payload: list[bytes]) -> list[Effect]:
        """Take a piece of a blob that was read; nothing: it is not there any more."""
        job = self.state.jobs.get(job_id)
        if job is not None and not job.is_ended:
            if payload:
                self.state.to_core(job, said, payload)
            else:
                text = "what its function refers to is damaged on the scheduler's disk"
                ending.fail(self.state, job, text)
        return self.state.take_effects()

    def not_read(self, job_id: bytes) -> list[Effect]:
        """Take note that what a job needs cannot be read now."""
        job = self.state.jobs.get(job_id)
        if job is not None and not job.is_ended:
            ending.close(self.state, job)
            job.opening.is_awaited = False
            self.state.block(job, "the scheduler cannot read what it has stored of it: see its log")
        return self.state.take_effects()

    # --- what is found on the disk ---

    def restored(self, found: Found) -> list[Effect]:
        """Take a job that was found at the start."""
        state = self.state
        job = KeptJob.restored(found)
        state.enter(job)
        if found.damages:
            state.damaged[job.id] = len(found.damages)
        if job.is_kept or (job.total is not None and not job.upload.waiting):
            self._settle(job)
        else:
            job.upload.unheard_s = state.now_s  # its caller may come back
        return state.take_effects()

    def begin(self) -> list[Effect]:
        """Go on with what was found on the disk."""
        self._members.begin_next(self.state)
        return self.state.take_effects()

    def damaged(self, job_id: bytes, number: int) -> list[Effect]:
        """Take note that records of outcomes do not fit their checksums any more."""
        state = self.state
        if (job := state.jobs.get(job_id)) is not None and job.state is not StoredState.DONE:
            self._suspects.add(job_id)  # it is looked at when it has ended
        if job is not None and not job.pending:
            state.damaged[job_id] = state.damaged.get(job_id, 0) + number
            text = f"job {job_id.hex()[:8]} has {number} damaged records: what they held is lost"
            state.effects.append(Note(f"{text}, and run again"))
            if job.state is StoredState.DONE and job_id not in self._rechecked:
                self._rechecked.add(job_id)
                state.effects.append(Recheck(job_id))
        return state.take_effects()

    def rechecked(self, job_id: bytes, found: Found | None) -> list[Effect]:
        """Take what is left of a job that was complete; run again what is not.

        None: that cannot be told.
        """
        self._rechecked.discard(job_id)
        job = self.state.jobs.get(job_id)
        is_complete = job is not None and job.state is StoredState.DONE and not job.pending
        if job is not None and is_complete and found is not None and found.spec is not None:
            job.opening.at, job.progress = found.spec_at, found.progress
            job.forget_pending()
            self._settle(job)
            self._members.begin_next(self.state)
        return self.state.take_effects()

    def _settle(self, job: KeptJob) -> None:
        """Decide how a job is of which all is known again."""
        state, ended = self.state, job.progress.ended
        is_complete = job.progress.done.total == job.total
        if ended is not None and (ended.state is not StoredState.DONE or is_complete):
            job.state, job.said, job.ended_s = ended.state, ended.said, ended.ended_s
            job.end_said, job.is_kept = ended, True
            job.slim()
            state.live.pop(job.id, None)
        else:
            job.progress.ended, job.end_said = None, None
            job.state, job.said = StoredState.WAITING, ""
            state.live[job.id] = job
            if job.missing():
                job.is_kept = True
                ending.fail(state, job, ending.INPUTS_LOST)
            ending.look(state, job)
        state.save(job)

    # --- what the core says ---

    def hear_core(self, peer: bytes, message: m.Message, payload: Sequence[bytes]) -> list[Effect]:
        """Take what the core says to the keeper."""
        state = self.state
        if isinstance(message, m.Refused | m.HelloRequired | m.ClusterEnded):
            if isinstance(message, m.ClusterEnded):
                members.rest(state, peer, f"all jobs of the cluster were ended: {message.by}")
            why = message.reason if isinstance(message, m.Refused) else ""
            self._members.lose(state, peer, why)
            return state.take_effects()
        job = state.jobs.get(getattr(message, "job", getattr(message, "about", b"")))
        if job is None or job.peer != peer or job.is_ended:
            return []
        match message:
            case m.JobOutcomes() | m.JobOutput():
                job.state, job.said = StoredState.RUNNING, ""
                members.take(state, job, message, payload)
            case m.JobStatus():
                job.state = StoredState.WAITING if message.waiting else StoredState.RUNNING
                job.said, job.notice = message.waiting, message.notice or job.notice
            case sm.LeaseBegan():
                job.state, job.said = StoredState.RUNNING, ""
            case m.JobFailed(momentary=True):
                ending.close(state, job)
                job.said = ""
                state.block(job, message.text)
                self._members.hold(state, job.opened.tenant)
            case m.CallLost() | m.LeaseLost() | m.JobFailed():
                state.write(job, Log.OUTCOMES, message)
            case m.BlobWanted():
                members.want_blob(state, job, message)
            case m.InputWanted():
                big_inputs.wanted(state, job, message)
            case m.BatchWanted():
                big_inputs.wanted_whole(state, job, message)
            case _:
                pass
        return state.take_effects()

    # --- time ---

    def expire(self) -> list[Effect]:
        """Do what is due; to be called a few times a second."""
        state = self.state
        if state.now_s >= self._beat_s:
            self._beat_s = state.now_s + m.BEAT_S
            for peer, user in state.users.items():
                state.effects.append(ToCore(peer, user, m.Heartbeat()))
        self._readers.expire(state)
        for job in list(state.live.values()):
            self._expire(job)
        big_inputs.ask(state)
        if state.now_s >= self._sweep_s:
            self._sweep_s = state.now_s + SWEEP_S
            self._delete_old()
            self._members.forget_idle(state)
            for job in state.live.values():
                if not job.peer and job.is_written_down():
                    job.lighten()
        self._members.begin_next(state)
        return state.take_effects()

    def _delete_old(self) -> None:
        state = self.state
        until_s = state.wall_s - state.limits.keep_s
        for job in [job for job in state.jobs.values() if job.is_over() and job.ended_s <= until_s]:
            ending.delete(state, job)
            self._readers.forget(state, job.id)
            self._suspects.discard(job.id)

    def _expire(self, job: KeptJob) -> None:
        state = self.state
        uploads.expire(state, job)
        if job.id not in state.jobs or job.pending:
            return
        if job.blocked and state.now_s >= job.again_s and not state.why_full(job, 1):
            job.blocked = ""
            if job.is_ended:  # only its end could not be written down
                ending.end_again(state, job)
            elif job.peer:  # its nodes tell everything again
                self._members.open(state, job)
        if job.peer and not job.is_ended and members.look_for_gaps(state, job):
            self._members.open(state, job)
        if job.output_by_s is not None:
            for lease, seen in job.progress.lacks_output():
                state.to_core(job, m.ReplayOutput(job.id, lease, seen.output))
        ending.look(state, job)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        self.state.check()
