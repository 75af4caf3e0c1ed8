"""Outcomes that come in fragments are put together where they are unpickled from."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from opening import open_job

from burla.core.commands import AddBatch, Consumed
from burla.core.effects import Deliver, Effect, Fail, Finish, Send
from burla.core.session import Session
from burla.protocol import messages as m
from burla.protocol.codec import pack_big
from burla.protocol.mac import seal

JOB, LEASE = b"j" * 16, b"l" * 16
SPEC = open_job(JOB, fragments=True)
WHOLE = bytes(range(30))


def begin(prompt: bool = True, spec: m.OpenJob = SPEC, inputs: int = 2) -> Session:
    session = Session(spec, [b"function"], prompt)
    session.connect(0)
    session.handle(AddBatch(JOB, [(inputs, [b"x"])], 1, coming=0), 0)
    return session


def parts(
    index: int = 0, seq: int = 1, size: int = 10, secret: bytes = b""
) -> Iterator[tuple[m.JobOutcomes, list[bytes]]]:
    """Yield the fragments of one result."""
    run = m.Run(index, index + 1, m.Kind.RESULT, 1)
    for at in range(0, len(WHOLE), size):
        payload = [WHOLE[at : at + size]]
        is_last = at + size >= len(WHOLE)
        said = m.JobOutcomes(
            job=JOB,
            lease=LEASE,
            seq=seq + at // size,
            node="n",
            runs=pack_big(run, len(WHOLE)) if is_last else b"",
            output=0,
            fragment=m.Fragment(index, at, len(WHOLE)),
        )
        yield replace(said, seal=seal(secret, said, payload)), payload


def acks(effects: list[Effect]) -> list[int]:
    messages = [e.message for e in effects if isinstance(e, Send)]
    return [said.seq for said in messages if isinstance(said, m.AckOutcomes)]


def values(effects: list[Effect]) -> list[bytes]:
    delivered = [e for e in effects if isinstance(e, Deliver)]
    return [bytes(frame) for d in delivered for part in d.parts for frame in part.frames]


def hear(session: Session, *said: tuple[m.JobOutcomes, list[bytes]]) -> list[Effect]:
    effects: list[Effect] = []
    for one in said:
        effects += session.receive(*one, now_s=0)
        session.check()
    return effects


def test_a_value_is_delivered_with_its_last_fragment_as_one_frame() -> None:
    session = begin()
    first, second, last = parts()
    assert values(hear(session, first, second)) == []
    effects = hear(session, last)
    assert values(effects) == [WHOLE]
    assert Finish(JOB) not in effects


def test_fragments_are_safe_at_once_also_where_results_are_so_when_they_are_yielded() -> None:
    session = begin(prompt=False)
    *before, last = parts(size=5)
    assert acks([*hear(session, *before), *session.expire(1.0)]) == [4, 5]
    assert acks([*hear(session, last), *session.expire(2.0)]) == []
    effects = session.handle(Consumed(JOB, LEASE, 6), 2.0)
    assert acks([*effects, *session.expire(4.0)]) == [6]


def test_what_comes_twice_changes_nothing_and_what_comes_too_early_is_taken_when_it_is_due() -> (
    None
):
    session = begin()
    first, second, last = parts()
    effects = hear(session, first, last, first, second, second, last)
    assert values(effects) == [WHOLE]
    assert values(hear(session, *parts())) == []


def test_the_rest_of_one_whose_worker_died_is_dropped_and_acknowledged() -> None:
    session = begin()
    first, second, _ = parts()
    again = list(parts(seq=3))
    odd = replace(second[0], seq=6)
    assert values(hear(session, first, second, *again)) == [WHOLE]
    assert acks([*hear(session, (odd, second[1])), *session.expire(1.0)])[-1:] == [6]


def test_what_is_done_by_another_node_is_not_gathered() -> None:
    made: list[int] = []

    def room(size: int) -> memoryview | None:
        made.append(size)
        return memoryview(bytearray(size))

    session = Session(SPEC, [], True, room)
    session.connect(0)
    session.handle(AddBatch(JOB, [(2, [b"x"])], 1, coming=0), 0)
    assert values(hear(session, *parts())) == [WHOLE]
    effects = hear(session, *((replace(said, lease=b"o" * 16), part) for said, part in parts()))
    assert values(effects) == []
    assert made == [len(WHOLE)]


def test_where_there_is_no_memory_the_call_is_told_so_and_no_other() -> None:
    session = Session(SPEC, [], True, lambda size: None)
    session.connect(0)
    session.handle(AddBatch(JOB, [(2, [b"x"])], 1, coming=0), 0)
    assert values(hear(session, *parts())) == [b""]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_each_fragment_is_sealed(at: int) -> None:
    secret = b"s" * 32
    session = begin(spec=replace(SPEC, secret=secret))
    good = list(parts(secret=secret))
    said, payload = good[at]
    good[at] = said, [b"?" + payload[0][1:]]
    effects = hear(session, *good)
    assert [type(e) for e in effects if isinstance(e, Fail)] == [Fail]
    assert values(effects) == []


def test_a_fragment_that_is_said_to_lie_elsewhere_is_refused() -> None:
    secret = b"s" * 32
    session = begin(spec=replace(SPEC, secret=secret))
    (said, payload), *_ = parts(secret=secret)
    moved = replace(said, fragment=m.Fragment(1, 0, len(WHOLE)))
    assert any(isinstance(e, Fail) for e in hear(session, (moved, payload)))
