"""A world whose scheduler keeps detached jobs, on a disk that loses what was not synced."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from doubles.node import big_leaf
from msgspec.structs import replace
from network import Faults, Said
from world import SimClient, World, result_of, small_pieces as small_pieces_of_callers

from burla.core import effects as c
from burla.core.replay import Replay
from burla.protocol import messages as m
from burla.protocol.fields import POLICIES
from burla.protocol.input_messages import INPUTS
from burla.protocol.store_messages import STORE, STORE_SIZES
from burla.protocol.stored_records import scan
from burla.scheduler.core import effects as s, nodes
from burla.scheduler.core.client import Client
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store import big_inputs as store_big_inputs, leaves, recovery
from burla.scheduler.store.effects import (
    Append,
    Delete,
    Effect,
    LoadBatch,
    LoadPieces,
    LoadSpec,
    LoadWhole,
    Log,
    Note,
    SaveFacts,
    ToCore,
    ToPeer,
)
from burla.scheduler.store.keeper import Keeper
from burla.scheduler.store.recovery import Found, InputRecord, Segment
from burla.scheduler.store.state import Ways

UPKEEP_S = 0.25


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let big inputs be of bytes where they are of megabytes, in the store, too."""
    small_pieces_of_callers(monkeypatch)
    monkeypatch.setattr(leaves, "PIECE_BYTES", 4)
    monkeypatch.setattr(leaves, "WINDOW_PIECES", 3)
    for module in (leaves, store_big_inputs):
        monkeypatch.setattr(module, "ALL_PIECES", 5)


Name = tuple[bytes, Log, int]  # of a file: job, log, segment


@dataclass
class ModelDisk:
    """Files in memory; what was not synced is lost with a crash, in part or all of it."""

    files: dict[Name, bytearray] = field(default_factory=dict)
    synced: dict[Name, bytes] = field(default_factory=dict)
    full_until_s: float = 0.0

    def write(self, what: Append) -> None:
        file = self.files.setdefault((what.job, what.log, what.segment), bytearray())
        if what.is_first:
            del file[what.at :]
        assert len(file) == what.at, "a hole, or something written over"
        for frame in what.frames:
            file += frame

    def sync(self, name: Name) -> None:
        self.synced[name] = bytes(self.files[name])

    def delete(self, job: bytes) -> None:
        for files in (self.files, self.synced):
            for name in [name for name in files if name[0] == job]:
                del files[name]

    def crash(self, world: World) -> None:
        """Keep what was synced, and any part of the rest, which may be wrong."""
        kept: dict[Name, bytearray] = {}
        for name, file in self.files.items():
            safe = self.synced.get(name)
            if safe is None and world.random.random() < 0.5:
                continue
            safe = safe or b""
            assert file.startswith(safe) or len(file) < len(safe)
            rest = bytearray(file[len(safe) :][: world.random.randint(0, len(file))])
            if rest and world.random.random() < 0.3:
                rest[world.random.randrange(len(rest))] ^= 1 << world.random.randrange(8)
            kept[name] = bytearray(safe) + rest
        self.files = kept
        self.synced = {name: bytes(file) for name, file in kept.items()}

    def segments(self, job: bytes, log: Log) -> list[Segment]:
        names = sorted(name for name in self.files if name[:2] == (job, log))
        return [
            Segment(number, len(self.files[job, log, number]), self._read((job, log, number)))
            for _, _, number in names
        ]

    def _read(self, name: Name):  # type: ignore[no-untyped-def]
        return lambda at, size: bytes(self.files[name][at : at + size])

    def find(self, job: bytes) -> Found:
        found = recovery.find(self.segments(job, Log.INPUTS), self.segments(job, Log.OUTCOMES))
        for one in found.damages:
            if one.is_cut:
                name = (job, one.log, one.segment)
                del self.files[name][one.at :]
                self.synced[name] = bytes(self.files[name])
        return found


class StoredWorld(World):
    """All of it, with a store."""

    features = (POLICIES, INPUTS, STORE, STORE_SIZES)

    def __init__(self, seed: int, faults: Faults | None = None, limits: Limits | None = None):
        self.disk = ModelDisk()
        self.limits = limits or Limits()
        self.safe: dict[tuple[bytes, int], int] = {}  # once safe: how often it has run
        self.life = 0
        self.synced_s = 0.0  # when the last group is made durable
        self.failed_writes: set[bytes] = set()  # jobs: what follows a failure fails, too
        super().__init__(seed, faults)

    # --- the scheduler ---

    def start_scheduler(self) -> None:
        self.life += 1
        self.failed_writes.clear()
        if self.life > 1:
            self._note_safe()
            self.disk.crash(self)
        there = nodes.expected(self.core.state) if self.life > 1 else None
        super().start_scheduler()
        self.core.state.former.awaited = set(there) if there is not None else None
        ways = Ways(lambda: self.random.randbytes(16), lambda user: user, lambda _: [""], self._is)
        self.keeper = Keeper(self.limits, ways)
        self._at()
        for job in sorted({name[0] for name in self.disk.files}):
            found = self.disk.find(job)
            if found.opened is None or found.spec is None:
                self.disk.delete(job)
                continue
            self._carry_out(self.keeper.restored(found))
        self._carry_out(self.keeper.begin())
        self._upkeep(self.life)

    def _note_safe(self) -> None:
        for job in self.keeper.state.jobs.values():
            ran = Counter(self.ran.get(job.id, []))
            for lo, hi in job.progress.done:
                for index in range(lo, hi):
                    self.safe.setdefault((job.id, index), ran[index])

    def _is(self, peer: bytes) -> bool:
        return isinstance(self.core.state.peers.get(peer), Client)

    def _at(self) -> None:
        self.keeper.at(self.clock.now_s, 1e9 + self.clock.now_s)

    def _upkeep(self, life: int) -> None:
        if life == self.life:
            self._at()
            self._carry_out(self.keeper.expire())
            self.clock.after(UPKEEP_S, lambda: self._upkeep(life))

    def _to_scheduler(self, peer: bytes, said: Said) -> None:
        message, payload = said
        if self._is(peer) and self.keeper.takes(message):
            self._at()
            self._carry_out(self.keeper.hear(peer, "", ("3.11", "u", "h"), message, payload))
        else:
            super()._to_scheduler(peer, said)

    def _do(self, effects: list[s.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, s.Send) and len(effect.peer) == 256:
                self._let_hear(effect.peer, effect.message, effect.payload)
            elif isinstance(effect, s.Publish) and self._is_kept(effect.message.job):
                peer, _ = self.core.follower(effect.message.job)
                if peer is not None:
                    self._let_hear(peer, effect.message, effect.payload)
            else:
                super()._do([effect])
        super()._do([])

    def _is_kept(self, job: bytes) -> bool:
        return job in self.keeper.state.jobs

    def _let_hear(self, peer: bytes, message: m.Message, payload: Sequence[bytes]) -> None:
        life = self.life

        def hear() -> None:
            if life == self.life:
                self._at()
                self._carry_out(self.keeper.hear_core(peer, message, payload))

        self.clock.after(0.0, hear)

    # --- the shell of the keeper ---

    def _carry_out(self, effects: list[Effect]) -> None:
        writes = [effect for effect in effects if isinstance(effect, Append)]
        for effect in effects:
            match effect:
                case ToCore():
                    said = (effect.message, list(effect.payload), self.clock.now_s, effect.user)
                    self._do(self.core.receive(effect.peer, *said))
                case ToPeer():
                    self._do([s.Send(effect.peer, effect.message, effect.payload)])
                case LoadBatch():
                    self._load(effect)
                case LoadPieces():
                    self._load_pieces(effect)
                case LoadWhole():
                    self._load_whole(effect)
                case LoadSpec():
                    self._load_spec(effect)
                case Delete():
                    self.disk.delete(effect.job)
                case _:
                    assert isinstance(effect, Append | SaveFacts | Note), effect
        if writes:
            self._write(writes)
        if self.is_check_due():
            self.keeper.check()

    def _write(self, writes: list[Append]) -> None:
        """Write now, and make it durable in a moment; then it is told, in order."""
        life, is_full = self.life, self.clock.now_s < self.disk.full_until_s
        done: list[tuple[Append, bool]] = []
        for write in writes:
            if is_full or (write.job in self.failed_writes and not write.is_first):
                self.failed_writes.add(write.job)
                done.append((write, False))
            else:
                self.failed_writes.discard(write.job)
                self.disk.write(write)
                done.append((write, True))

        def sync() -> None:
            if life != self.life:
                return
            self._at()
            for write, is_written in done:
                if is_written and self._name(write) in self.disk.files:
                    self.disk.sync(self._name(write))
                    self._carry_out(self.keeper.written([write.job]))
                elif not is_written:
                    self._carry_out(self.keeper.not_written(write.job, "full"))

        # a group is made durable after those before it
        mean_s = self.clock.now_s + self.random.expovariate(1 / 0.003)
        self.synced_s = max(self.synced_s, mean_s)
        self.clock.at(self.synced_s, sync)

    @staticmethod
    def _name(write: Append) -> Name:
        return write.job, write.log, write.segment

    def _after(self, delay_s: float, work) -> None:  # type: ignore[no-untyped-def]
        life = self.life

        def then() -> None:
            if life == self.life:
                self._at()
                self._carry_out(work())

        self.clock.after(delay_s, then)

    def _read(self, job: bytes, segment: int, at: int) -> tuple[m.Message | None, list[bytes]]:
        """Return what the record at a place says."""
        file = self.disk.files[job, Log.INPUTS, segment]
        record = next(scan(lambda at, size: bytes(file[at : at + size]), at))
        assert record.is_whole
        frames = record.frames(bytes(file[record.body_at : record.end]))
        return record.message(InputRecord), frames

    def _load(self, what: LoadBatch) -> None:
        said, payload = self._read(what.job, what.segment, what.at)
        assert isinstance(said, m.Inputs)
        self._after(0.001, lambda: self.keeper.loaded(what.job, what.number, said, payload))

    def _load_pieces(self, what: LoadPieces) -> None:
        wanted, pieces = what.wanted, []
        for number, place in enumerate(what.places, what.first):
            said, payload = self._read(what.job, *place)
            start = number * leaves.PIECE_BYTES
            assert isinstance(said, m.InputPiece)
            assert (said.leaf, said.start) == (wanted.leaf, start)
            begin, data = max(wanted.start, start), b"".join(payload)
            piece = m.InputPiece(wanted.lease, wanted.job, wanted.leaf, begin)
            pieces.append((piece, data[begin - start : wanted.stop - start]))
        self._after(0.001, lambda: self.keeper.pieces_loaded(what.job, *pieces))

    def _load_whole(self, what: LoadWhole) -> None:
        said, payload = self._read(what.job, what.segment, what.at)
        assert isinstance(said, m.Inputs)
        rest, parts, frames = iter(payload), [], list[bytes]()
        for leaf in said.leaves:
            own = [next(rest) for _ in range(leaf.frames)] or [b"le", b"af"]
            parts.append(m.Leaf(leaf.batch, leaf.start, leaf.count, len(own)))
            frames += own
        for big in what.leaves:
            pieces = [self._read(what.job, *place)[1] for place in big.places if place]
            assert b"".join(b"".join(piece) for piece in pieces) == big_leaf(big.size)
        whole = replace(said, leaves=tuple(parts))
        self._after(0.001, lambda: self.keeper.whole_loaded(what.job, whole, frames))

    def _load_spec(self, what: LoadSpec) -> None:
        said, function = self._read(what.job, 0, what.at)
        assert isinstance(said, m.OpenJob)
        self._after(0.001, lambda: self.keeper.spec_loaded(what.job, said, function))

    # --- what it has come to ---

    def has_ended(self, job: bytes) -> bool:
        kept = self.keeper.state.jobs.get(job)
        return kept is not None and kept.is_over()

    def results(self, job: bytes) -> tuple[dict[int, bytes], bytes]:
        """Return all results and the output of a job, as they are read from its files."""
        replay = Replay(job, b"", False)
        results: dict[int, bytes] = {}
        output = b""
        for segment in self.disk.segments(job, Log.OUTCOMES):
            for said in replay.take(segment.read(0, segment.size)):
                if isinstance(said, c.Write):
                    output += b"".join(said.chunks)
                elif isinstance(said, c.Deliver):
                    for part in said.parts:
                        for lo, hi in part.fresh:
                            for index in range(lo, hi):
                                assert index not in results, "delivered twice"
                                at = 8 * (index - part.run.lo)
                                results[index] = bytes(part.frames[0][at : at + 8])
        return results, output

    def check_kept(self, job: bytes, inputs: int) -> None:
        """Assert that a job has all its results, each its own, and none that was safe ran again."""
        results, _ = self.results(job)
        assert results == {index: result_of(job, index) for index in range(inputs)}
        ran = Counter(self.ran.get(job, []))
        again = {i: ran[i] for (j, i), times in self.safe.items() if j == job and ran[i] > times}
        assert not again, f"safe, and run again: {again}"


def detach(client: SimClient, inputs: int) -> bytes:
    """Detach a job; return its id."""
    return client.call(inputs, detached=b"").job
