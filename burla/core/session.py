"""One map call: what to send, what came back, in which order. Pure.

Feed a `Session` what its caller asks (`handle`), what the scheduler says (`receive`), when the
connection comes and goes (`connect`, `disconnect`) and the time (`expire`); carry out the effects
it returns, in order. Frames of outcomes pass through unopened. It keeps every batch until all its
outcomes are here, so that whatever dies can be told again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from msgspec.structs import replace

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.arriving import pieces_of
from burla.protocol.codec import WireError, read_runs, unpack_runs
from burla.protocol.deaths import Death
from burla.protocol.detach_messages import BeforeStored
from burla.protocol.job_messages import ShowJob
from burla.protocol.mac import NOT_SEALED, is_sealed
from burla.protocol.ranges import Range
from burla.protocol.too_large import size_of, too_large

from .batches import Batches
from .commands import (
    AddBatch,
    AddBefore,
    AskStatus,
    Close,
    Consumed,
    EndInputs,
    ForSession,
    Reopen,
    Written,
)
from .effects import (
    Deliver,
    Effect,
    Fail,
    Finish,
    Frames,
    Lacking,
    Part,
    ReportHanging,
    ReportRetried,
    ReportWaiting,
    Send,
    Slots,
    Warn,
    Write,
)
from .gathering import Gathering, Room, plain_room
from .hanging import Hanging
from .leases import Lease, Leases
from .output_order import Piece
from .retried import Retried
from .waiting import Waiting

FILES = "files"  # what blobs of a job's files are called, and what follows a slash behind it
NOT_TAKEN = (
    "files= of more than 64 KiB do not go to a cluster whose scheduler runs an older burla: an"
    " administrator upgrades it with `burla up`"
)

Runs = list[tuple[m.Run, list[bytes]]]
Contents = Mapping[bytes, memoryview]  # of blobs, by digest
AboutJob = (
    m.JobOutcomes
    | m.JobOutput
    | m.JobRunning
    | m.LeaseLost
    | m.JobStatus
    | m.JobFailed
    | m.CallLost
    | sm.InputsStored
    | BeforeStored
)
Wanted = m.BlobWanted | m.InputWanted | m.BatchWanted
TOO_OLD = (
    "the scheduler of the cluster runs an older burla, which does not know return_exceptions,"
    " timeout, retries and func_gpu: an administrator upgrades it with `burla up`, or leave these"
    " arguments out"
)

OLDER = "the scheduler of the cluster runs an older burla, which does not know of it"

NO_IMAGES = (
    "image={!r}: the scheduler of the cluster runs an older burla, which runs no images: an"
    " administrator upgrades it with `burla up`, or leave image out"
)

NO_STORE = (
    "the scheduler of the cluster runs an older burla, or has no store, and cannot keep a job whose"
    " caller goes: an administrator upgrades it with `burla up`, or leave detach out"
)


class Session:
    """One job, as the client knows it."""

    def __init__(
        self,
        spec: m.OpenJob,
        function: Frames,
        prompt: bool,
        room: Room = plain_room,
        blobs: Contents | None = None,
    ) -> None:
        """Start a job that has no inputs yet.

        Args:
            spec: opens it.
            function: frames of the function.
            prompt: acknowledge outcomes on receipt; else when `Consumed` says so.
            room: makes the memory in which a big outcome is gathered.
            blobs: what `spec` names.
        """
        self.id = spec.job
        self.topic = spec.topic  # may be replaced before it is opened
        self.born_s = 0.0  # when it was given to a connection
        self.opened = False  # the scheduler may know of it
        self.over = False
        self.went_well = False  # over, and nothing of it runs any more
        self._spec, self._function, self._prompt = spec, list(function), prompt
        self._room = room
        self._blobs = {} if blobs is None else blobs
        self.is_detached = spec.detached is not None  # it ends here when all of it is stored there
        self._connected = False
        self._bytes_max = 0
        self.batches = Batches(spec.job)
        self._failed = False  # an outcome is an error: only output is awaited
        self._leases = Leases()
        self._waiting = Waiting()
        self._retried = Retried()
        self._hanging = Hanging()
        self._slots = 0  # as the caller was told
        self._known: dict[str, Any] = {}  # of the scheduler: arguments of `connect`
        self._carried: frozenset[str] = frozenset()  # packages that go along, as a node lacked them
        self._is_lacking = False  # the caller is to send some, or to give up
        self._effects: list[Effect] = []

    # --- the connection ---

    def connect(
        self,
        now_s: float,
        bytes_max: int = 0,
        *,
        takes_blobs: bool = False,
        has_policies: bool = True,
        tells_status: bool = False,
        has_packages: bool = False,
        has_store: bool = True,
        takes_sizes: bool = False,
        knows_machines: bool = True,
        knows_images: bool = True,
    ) -> list[Effect]:
        """Note that the scheduler listens: tell it all that it may not know.

        Args:
            now_s: when.
            bytes_max: it takes so many bytes of a job at once; 0: it did not say.
            takes_blobs: else the function is sent whole.
            has_policies: it knows what is to become of calls that fail.
            tells_status: it can say how a job stands.
            has_packages: it knows what a function needs of packages.
            has_store: it keeps detached jobs.
            takes_sizes: it takes the sizes of big inputs for them, as this job needs it; else they
                are sent whole.
            knows_machines: it knows what machines that are made for a job are to be like.
            knows_images: it knows of images in which calls run.
        """
        self._connected, self._bytes_max = True, bytes_max
        self._known = {"bytes_max": bytes_max, "takes_blobs": takes_blobs}
        self._known |= {"has_policies": has_policies, "has_packages": has_packages}
        self._known |= {"tells_status": tells_status}
        self._known |= {"has_store": has_store, "takes_sizes": takes_sizes}
        self._known |= {"knows_machines": knows_machines, "knows_images": knows_images}
        self.batches.sends_whole = not takes_sizes
        if self.is_detached and not has_store:
            self._fail(m.JobFailed(self.id, "", NO_STORE))
            return self._settle()
        if self._spec.policy is not None and not has_policies:
            self._fail(m.JobFailed(self.id, "", TOO_OLD))
            return self._settle()
        if self._spec.image and not knows_images:
            self._fail(m.JobFailed(self.id, "", NO_IMAGES.format(self._spec.image)))
            return self._settle()
        self._waiting.stall("", now_s)
        spec = replace(self._spec, topic=self.topic)
        if spec.packages and not has_packages:
            spec = replace(spec, packages=b"")
        if spec.machines is not None and not knows_machines:
            notice = f"without effect: {', '.join(spec.machines.said())} ({OLDER})"
            self._effects += [Warn(self.id, new) for new in self._waiting.new(notice)]
            spec = replace(spec, machines=None)
        if self.opened:
            spec = replace(
                spec, resumed=True, done=_greatest(self.batches.done), tried=self._retried.open()
            )
        elif self._carried:  # it was open, and has failed
            self._send(m.CloseJob(self.id))
            spec = replace(spec, done=_greatest(self.batches.done))
        self.opened = True
        function = self._function
        if spec.blobs and not takes_blobs:
            named = [blob.name for blob in spec.blobs if blob.kind is m.BlobKind.NAMED]
            if any(name.partition("/")[0] == FILES for name in named):
                self._fail(m.JobFailed(self.id, "", NOT_TAKEN))
                return self._settle()
            # Own modules stay here, as they always did for such a cluster: few calls need them.
            parts = [blob for blob in spec.blobs if blob.kind is not m.BlobKind.NAMED]
            contents = [self._blobs[blob.digest] for blob in parts]
            function = [*function[:1], *_frames_of(contents), *function[1:]]
            spec = replace(spec, blobs=())
        if not self._send_if_taken(spec, function):
            return self._settle()
        for batch in self.batches.open():
            if not self._send_if_taken(*self.batches.to_send(batch)):
                return self._settle()
        if self.batches.total is not None:
            self._send(m.InputsEnd(self.id, self.batches.total))
        for lease in self._leases.known.values():
            if lease.acks.safe:
                self._acknowledge(lease)
            if lease.written:
                self._send(m.AckOutput(lease.id, lease.written))
        return self._settle()

    def disconnect(self) -> None:
        """Note that the scheduler does not hear us; everything is told again by `connect`."""
        self._connected = False

    def stall(self, why: str, now_s: float) -> None:
        """Note why the scheduler does nothing for the job; empty: it listens."""
        self._waiting.stall(why, now_s)

    # --- what the caller asks ---

    def handle(self, command: ForSession, now_s: float) -> list[Effect]:
        """Do what the calling thread asks; nothing once the job is over."""
        if self.over:
            return []
        match command:
            case AddBatch():
                batch = self.batches.add(command.leaves, command.size, command.coming)
                self._send_if_taken(*self.batches.to_send(batch))
            case EndInputs():
                self.batches.total = self.batches.end
                self._send(m.InputsEnd(self.id, self.batches.end))
            case Consumed():
                if (lease := self._leases.known.get(command.lease)) is not None:
                    self._make_safe(lease, command.seq, now_s)
            case Written():
                lease = self._leases.known.get(command.lease)
                if lease is not None and command.number > lease.written:
                    lease.written = command.number
                    self._send(m.AckOutput(lease.id, lease.written))
            case AskStatus():
                if self._known.get("tells_status"):
                    self._send(ShowJob(self.id.hex(), brief=True))
            case Reopen():
                self._spec, self._carried = command.spec, command.lacking
                self._blobs = {**self._blobs, **command.contents}
                self.opened = self._is_lacking = False
                if self._connected:
                    return self.connect(now_s, **self._known)
            case Close():
                self._end()
            case AddBefore():
                pass  # of an adopted job
            case _:
                assert_never(command)
        return self._settle()

    # --- what the scheduler says ---

    def receive(self, message: AboutJob, payload: list[bytes], now_s: float) -> list[Effect]:
        """Take one message about this job; what does not fit is ignored, as is what is repeated."""
        if self.over:
            return []
        match message:
            case m.JobOutcomes():
                spec = self._spec
                if not is_sealed(spec.secret, message, payload, blake3=spec.blake3):
                    self._effects.append(Fail(self.id, "", NOT_SEALED.format(message.node or "?")))
                    self._end()
                elif message.fragment is None:
                    self._take_outcomes(message, payload, now_s)
                else:
                    self._take_fragment(message, message.fragment, payload, now_s)
            case m.JobOutput():
                self._take_output(message, payload, now_s)
            case m.JobRunning():
                self._hanging.hear(message, self.batches.done, self.batches.end, now_s)
            case m.LeaseLost():
                self._hanging.lose(message.lease)
                lease = self._leases.of(message.lease, message.node)
                lease.output.lose(now_s)
                lease.gathering = None
            case m.JobStatus():
                self._waiting.hear(message.waiting, now_s)
                self._effects += [Warn(self.id, new) for new in self._waiting.new(message.notice)]
                if self._spec.lazy and message.slots != self._slots:
                    self._slots = message.slots
                    self._effects.append(Slots(self.id, message.slots))
            case m.JobFailed():
                if not message.packages or self._carried.issuperset(message.packages):
                    self._fail(message)
                elif not self._is_lacking:  # else it is said again
                    self._is_lacking = True
                    self._effects.append(Lacking(self.id, message.packages, message.text))
            case sm.InputsStored():
                self._take_stored(message)
            case BeforeStored():
                pass
            case m.CallLost():
                if message.index < self.batches.end:
                    fresh, freed = self.batches.finish(message.index, message.index + 1)
                    if fresh:
                        part = Part(*loss_of(message, fresh))
                        self._effects.append(Deliver(self.id, b"", 0, "", (part,), 1, freed))
            case _:
                assert_never(message)
        return self._settle()

    # --- time ---

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next; inf: not before something else happens."""
        due_s = min(self._waiting.due_s, self._leases.ack_s, self._hanging.due_s)
        return min(due_s, self._leases.look_s()) if self._leases.lacking else due_s

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        if self.over:
            return []
        for lease in self._leases.take_unacknowledged(now_s):
            self._acknowledge(lease)
        for lease in list(self._leases.lacking.values()):
            self._look_for_output(lease, now_s)
        if why := self._waiting.take_due(now_s):
            self._effects.append(ReportWaiting(self.id, why))
        batches = self.batches
        if which := self._hanging.take_due(batches.done, batches.total, now_s):
            self._effects.append(ReportHanging(self.id, which))
        return self._settle()

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert not self._effects
        if not self.over:
            self.batches.check()
        self._leases.check()
        if self._is_complete() and not self._leases.lacking:
            assert self.over

    # --- outcomes ---

    def _take_outcomes(self, said: m.JobOutcomes, payload: list[bytes], now_s: float) -> None:
        runs = self._runs_of(said, payload)
        if not runs and not said.tried:
            return
        lease = self._leases.of(said.lease, said.node)
        if not lease.acks.take(said.seq, sum(map(len, payload))):
            if said.seq <= lease.acks.told:  # the acknowledgement was lost
                self._acknowledge(lease)
            return
        self._hanging.outcome_s = now_s
        lease.output.announce(said.output, now_s)
        self._leases.look(lease)
        self._retried.take(one for one in said.tried if one.index not in self.batches.done)
        parts, inputs, freed = [], 0, 0
        for run, frames in runs:
            if self._failed:
                break
            fresh, freed_now = self.batches.finish(run.lo, run.hi)
            if not fresh:
                continue
            for lo, hi in fresh:
                inputs += hi - lo
            freed += freed_now
            self._retried.forget(fresh)
            parts.append(Part(run, tuple(fresh), frames))
            self._failed = not _goes_on(self._spec) and run.kind in (m.Kind.ERROR, m.Kind.DEATH)
        if parts:
            self._effects.append(
                Deliver(
                    self.id,
                    said.lease,
                    said.seq,
                    said.node,
                    tuple(parts),
                    inputs,
                    freed,
                    said.call_s,
                )
            )
        if self._prompt or not parts:
            self._make_safe(lease, said.seq, now_s)

    def _take_stored(self, said: sm.InputsStored) -> None:
        """Let go of inputs that the scheduler has on its disk."""
        if not self.is_detached or said.stop > self.batches.end:
            return
        fresh, freed = self.batches.finish(0, said.stop)
        inputs = sum(hi - lo for lo, hi in fresh)
        if inputs:
            self._effects.append(Deliver(self.id, b"", 0, "", (), inputs, freed))
        self.batches.is_stored = said.total is not None and said.total == self.batches.total

    def _take_fragment(
        self, said: m.JobOutcomes, fragment: m.Fragment, payload: list[bytes], now_s: float
    ) -> None:
        """Take the next part of a big outcome. What comes before its turn is sent again."""
        lease = self._leases.of(said.lease, said.node)
        if lease.acks.has(said.seq):
            if said.seq <= lease.acks.told:  # the acknowledgement was lost
                self._acknowledge(lease)
            return
        if said.seq != lease.acks.came + 1:
            return
        size = sum(map(len, payload))
        if fragment.at == 0 and 0 < size < fragment.size:
            is_wanted = bool(self.batches.done.missing(fragment.index, fragment.index + 1))
            room = self._room(fragment.size) if is_wanted and not self._failed else None
            lease.gathering = Gathering(fragment, room)
        gathering = lease.gathering
        self._hanging.outcome_s = now_s
        if gathering is not None and gathering.fits(fragment, size):
            gathering.add(payload)
        else:  # the rest of one whose worker has died
            gathering = lease.gathering = None
        if gathering is not None and gathering.is_whole():
            lease.gathering = None
            self._take_outcomes(said, gathering.frames(), now_s)
        else:  # safe as soon as it is here; what came before it may not be
            lease.acks.take(said.seq, size)
            self._make_safe(lease, said.seq, now_s)

    def _runs_of(self, said: m.JobOutcomes, payload: list[bytes]) -> Runs:
        """Return the runs and their frames, if they lie in what was sent."""
        try:
            if payload == [b""]:  # there was no room for it
                runs = [(run, payload) for run, *_ in read_runs(said.runs)]
            else:
                runs = unpack_runs(said.runs, payload)
        except WireError:
            return []
        for run, _ in runs:
            single = run.kind != m.Kind.RESULTS
            if not run.lo < run.hi <= self.batches.end or (single and run.hi != run.lo + 1):
                return []
        return runs

    def _make_safe(self, lease: Lease, seq: int, now_s: float) -> None:
        at_once = lease.acks.make_safe(seq)
        if self._is_complete() or lease.acks.safe == lease.acks.told:
            return  # the job is about to be closed, or an earlier message is not safe
        if at_once:
            self._acknowledge(lease)
        else:
            self._leases.acknowledge_later(lease, now_s)

    def _acknowledge(self, lease: Lease) -> None:
        self._leases.acknowledged(lease)
        self._send(m.AckOutcomes(lease.id, lease.acks.tell()))

    # --- output ---

    def _take_output(self, said: m.JobOutput, chunks: list[bytes], now_s: float) -> None:
        if len(said.streams) == len(chunks) > 0:
            lease = self._leases.of(said.lease, "")
            piece = Piece(said.number, said.streams, tuple(chunks))
            self._write(lease, lease.output.take(piece, now_s))

    def _write(self, lease: Lease, pieces: list[Piece]) -> None:
        self._effects += [Write(self.id, lease.id, p.last, p.streams, p.chunks) for p in pieces]
        self._leases.look(lease)

    def _look_for_output(self, lease: Lease, now_s: float) -> None:
        """Ask for output that is missing, or write what there is and say that some is lost."""
        output = lease.output
        if output.look_s is None or now_s < output.look_s:
            return
        if output.ask(now_s):
            self._send(m.ReplayOutput(self.id, lease.id, output.due - 1))
            return
        self._write(lease, output.give_up())
        self._effects.append(Warn(self.id, f"some output of node {lease.node or '?'} is lost"))

    # --- what is asked for ---

    def send_wanted(self, wanted: Wanted) -> list[Effect]:
        """Send what a node or the scheduler has asked for, if it is one of ours."""
        match wanted:
            case m.BlobWanted():
                content = self._blobs.get(wanted.digest)
                if content is not None and wanted.stop - wanted.start <= m.BLOB_WINDOW:
                    for start, stop in pieces_of(wanted.start, min(wanted.stop, len(content))):
                        said = m.BlobPiece(self.id, wanted.digest, start)
                        self._send(said, [bytes(content[start:stop])])
            case m.InputWanted():
                for piece, frames in self.batches.pieces(wanted):
                    self._send(piece, frames)
            case m.BatchWanted():
                if (batch := self.batches.get(wanted.batch)) is not None:
                    self._send_if_taken(*batch.whole())
            case _:
                assert_never(wanted)
        return self._settle()

    # --- ends ---

    def _is_complete(self) -> bool:
        if self.is_detached:
            return self.batches.is_stored
        return self._failed or self.batches.done.total == self.batches.total

    def _settle(self) -> list[Effect]:
        """Finish a job that has all it can get; hand over the effects."""
        if not self.over and self._is_complete() and not self._leases.lacking:
            if which := self._retried.summary():
                self._effects.append(ReportRetried(self.id, which))
            self._effects.append(Finish(self.id))
            self.went_well = not self._failed
            self._end()
        effects, self._effects = self._effects, []
        return effects

    def _fail(self, why: m.JobFailed) -> None:
        failed = Fail(
            self.id, why.argument, why.text, why.index, why.nodes, why.away_s, why.limit_s
        )
        self._effects.append(failed)
        self._end()

    def _end(self) -> None:
        self.over = True
        self.batches.drop()

    def _send_if_taken(self, message: m.OpenJob | m.Inputs, payload: Frames) -> bool:
        """Send what the scheduler takes; else fail, without a byte sent, and return False."""
        if self._connected and 0 < self._bytes_max < size_of(message, payload):
            text, index = too_large(message, payload, self._bytes_max)
            self._fail(m.JobFailed(self.id, "", text, index))
            return False
        self._send(message, payload)
        return True

    def _send(self, message: m.Message, payload: Frames = ()) -> None:
        if self._connected:
            self._effects.append(Send(message, payload))


def _goes_on(spec: m.OpenJob) -> bool:
    return spec.policy is not None and spec.policy.goes_on


def _greatest(done: Iterable[Range]) -> tuple[Range, ...]:
    """Return what is done, the greatest ranges if there are too many to tell."""
    greatest = sorted(done, key=lambda one: one[0] - one[1])
    return tuple(sorted(greatest[: m.RANGES_MAX]))


def _frames_of(contents: Iterable[memoryview]) -> list[bytes]:
    """Return what follows the first frame of a function that is sent whole."""
    parts = [(one, pieces_of(0, len(one))) for one in contents]
    return [bytes(one[start:stop]) for one, pieces in parts for start, stop in pieces]


def loss_of(said: m.CallLost, fresh: list[Range]) -> tuple[m.Run, tuple[Range, ...], list[bytes]]:
    """Return the outcome of an input that has no other one than the loss of its nodes."""
    death = Death("node", 0, len(said.nodes), nodes=said.nodes)
    run = m.Run(said.index, said.index + 1, m.Kind.DEATH, 1)
    return run, tuple(fresh), [death.encode()]
