"""A keeper of detached jobs whose disk does at once what it is told."""

from collections.abc import Sequence
from typing import Any

from opening import open_job
from outcomes import payload_of, table_of

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.stored_records import scan
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store.effects import Append, Effect, LoadSpec, Log, ToCore, ToPeer, WriteBlob
from burla.scheduler.store.keeper import Keeper
from burla.scheduler.store.state import Ways

JOB, PEER, LEASE = b"J" * 16, b"p" * 16, b"L" * 16
HELLO = ("3.11", "u", "h")
USERS = {"key1": "ann", "key2": "ann", "key3": "bob"}


def tenant_of(key: str) -> str:
    return USERS.get(key, key)


class Stage:
    """A keeper whose disk does at once what it is told, unless it is full."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.keys = ["key1", "key2"]
        self.is_there = True
        ways = Ways(lambda: b"s" * 16, tenant_of, lambda _: self.keys, lambda _: self.is_there)
        self.keeper = Keeper(limits or Limits(), ways)
        self.now_s = 0.0
        self.full = ""
        self.is_damaged = False  # what is read back
        self.written: dict[tuple[bytes, int], bytes] = {}  # by job and place: what came in
        self.done: list[Effect] = []
        self.at(0.0)

    def at(self, now_s: float, room: int = 1 << 40) -> None:
        self.now_s = now_s
        self.keeper.at(now_s, 1000.0 + now_s, room)

    def do(self, effects: Sequence[Effect]) -> list[Effect]:
        """Return all that follows, with what is written on the disk at once."""
        todo, told = list(effects), list[Effect]()
        while todo:
            told.append(effect := todo.pop(0))
            if isinstance(effect, Append) and effect.segment == 0 and effect.log is Log.INPUTS:
                self.written[effect.job, effect.at] = b"".join(effect.frames)
            if isinstance(effect, Append | WriteBlob):
                if self.full:
                    todo += self.keeper.not_written(effect.job, self.full)
                else:
                    todo += self.keeper.written([effect.job])
            elif isinstance(effect, LoadSpec):
                todo += self.keeper.spec_loaded(effect.job, *self._read(effect))
            self.keeper.check()
        self.done += told
        return told

    def _read(self, what: LoadSpec) -> tuple[m.OpenJob | None, list[bytes]]:
        data = self.written[what.job, what.at]
        if self.is_damaged:
            return None, []
        record = next(scan(lambda at, size: data[at : at + size]))
        said = record.message(m.OpenJob)
        assert isinstance(said, m.OpenJob)
        assert what.at + record.end == what.end
        return said, record.frames(data[record.body_at :])

    def say(
        self, message: m.Message, payload: Sequence[bytes] = (), key: str = "key1"
    ) -> list[Any]:
        assert self.keeper.takes(message)
        told = self.do(self.keeper.hear(PEER, key, HELLO, message, list(payload)))
        return [effect.message for effect in told if isinstance(effect, ToPeer)]

    def core(self, message: m.Message, payload: Sequence[bytes] = ()) -> list[Any]:
        """Let the core say something; return what it is told."""
        job = self.keeper.state.jobs[JOB]
        return heard(self.do(self.keeper.hear_core(job.peer, message, payload)))

    def expire(self, now_s: float, room: int = 1 << 40) -> list[Effect]:
        self.at(now_s, room)
        return self.do(self.keeper.expire())

    def store(self, **more: Any) -> list[Any]:
        """Detach a job of two inputs."""
        self.say(open_job(JOB, detached=b"note", **more), [b"function"])
        leaf = m.Leaf(0, 0, 2, 1)
        return self.say(m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,), total=2), [b"leaf"])

    def status(self, key: str = "key1") -> sm.StoredJob:
        (told,) = self.say(sm.AskStored(JOB), key=key)
        (facts,) = told.jobs
        assert isinstance(facts, sm.StoredJob)
        return facts


def heard(effects: Sequence[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, ToCore)]


def opens(effects: Sequence[Effect]) -> list[m.OpenJob]:
    return [said for said in heard(effects) if isinstance(said, m.OpenJob)]


def outcomes_of(seq: int, lo: int, hi: int, **more: Any) -> tuple[m.JobOutcomes, list[bytes]]:
    runs = table_of([m.Run(lo, hi, m.Kind.RESULTS, 1)])
    said = m.JobOutcomes(job=JOB, lease=LEASE, seq=seq, node="n", runs=runs, output=0, **more)
    return said, payload_of(runs)
