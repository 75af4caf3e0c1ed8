"""Conversations with one session, and one that anything may happen to."""

import math

import msgspec
import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opening import open_job
from outcomes import payload_of

from burla.core.acks import ACK_LATE_S
from burla.core.commands import AddBatch, Close, Consumed, EndInputs, Written
from burla.core.effects import (
    Deliver,
    Effect,
    Fail,
    Finish,
    Part,
    ReportHanging,
    ReportWaiting,
    Send,
    Warn,
    Write,
)
from burla.core.hanging import FIRST_S
from burla.core.output_order import GAP_S, REPLAY_AGAIN_S, REPLAYS_MAX
from burla.core.session import Session
from burla.core.waiting import REPORT_S
from burla.protocol import messages as m
from burla.protocol.codec import pack_runs
from burla.protocol.deaths import decode_death
from burla.protocol.mac import NOT_SEALED, seal
from burla.protocol.ranges import Ranges

JOB, TOPIC, LEASE, OTHER = b"j" * 16, b"t" * 16, b"1" * 16, b"2" * 16
SPEC = open_job(JOB, TOPIC)
FINISH, ACK_1 = Finish(JOB), Send(m.AckOutcomes(LEASE, 1))


def batch(*counts: int, coming: int | None = None) -> AddBatch:
    """Return a batch of `counts` inputs per leaf, a byte each."""
    return AddBatch(JOB, [(n, [b"x" * n]) for n in counts], sum(counts), coming)


def begin(*counts: int, prompt: bool = True, coming: int | None = None) -> Session:
    """Return a connected session with one batch of `counts` inputs per leaf."""
    session = Session(SPEC, [b"function"], prompt)
    session.connect(0)
    session.handle(batch(*counts, coming=coming), 0)
    return session


def outcomes(
    seq: int,
    *runs: tuple[int, int],
    output: int = 0,
    lease: bytes = LEASE,
    kind: m.Kind = m.Kind.RESULTS,
) -> tuple[m.JobOutcomes, list[bytes]]:
    rows = [(m.Run(lo, hi, kind, 1), [b"%d-%d" % (lo, hi)]) for lo, hi in runs]
    table, payload = pack_runs(rows)
    said = m.JobOutcomes(job=JOB, lease=lease, seq=seq, node="n", runs=table, output=output)
    return said, payload


def part(lo: int, hi: int, *fresh: tuple[int, int], kind: m.Kind = m.Kind.RESULTS) -> Part:
    return Part(m.Run(lo, hi, kind, 1), fresh or ((lo, hi),), [b"%d-%d" % (lo, hi)])


def delivered(seq: int, *parts: Part, freed: int = 0, lease: bytes = LEASE) -> Deliver:
    inputs = sum(hi - lo for one in parts for lo, hi in one.fresh)
    return Deliver(JOB, lease, seq, "n", parts, inputs, freed)


def printed(number: int, *chunks: bytes, lease: bytes = LEASE) -> tuple[m.JobOutput, list[bytes]]:
    return m.JobOutput(JOB, lease, number, (1,) * len(chunks)), list(chunks)


def write(number: int, *chunks: bytes) -> Write:
    """Return what writes chunks of stdout, the last of which has this number."""
    return Write(JOB, LEASE, number, (1,) * len(chunks), chunks)


def test_a_job_is_opened_fed_and_over_when_all_outcomes_are_here() -> None:
    session = Session(SPEC, [b"function"], prompt=True)
    assert session.connect(0) == [Send(SPEC, [b"function"])]
    sent = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 2, 1), m.Leaf(0, 2, 3, 2)))
    leaves = [(2, [b"a"]), (3, [b"b", b"c"])]
    assert session.handle(AddBatch(JOB, leaves, 3), 0) == [Send(sent, [b"a", b"b", b"c"])]
    assert session.handle(EndInputs(JOB), 0) == [Send(m.InputsEnd(JOB, 5))]
    assert session.receive(*outcomes(1, (3, 5)), now_s=1) == [delivered(1, part(3, 5))]
    last = session.receive(*outcomes(2, (0, 3)), now_s=1)
    assert last == [delivered(2, part(0, 3), freed=3), FINISH]
    assert (session.over, session.went_well) == (True, True)


MODEL = bytes(range(256)) * (3 << 12)  # 3 MiB
NAMED = m.Blob(b"D" * 32, len(MODEL))
WITH_BLOB = msgspec.structs.replace(SPEC, blobs=(NAMED,))


def with_blob() -> Session:
    return Session(
        WITH_BLOB, [b"function", b"modules"], True, blobs={NAMED.digest: memoryview(MODEL)}
    )


def test_a_blob_is_named_and_sent_as_far_as_it_is_asked_for() -> None:
    session = with_blob()
    assert session.connect(0, takes_blobs=True) == [Send(WITH_BLOB, [b"function", b"modules"])]
    mib = m.BLOB_PIECE_BYTES
    assert session.send_wanted(m.BlobWanted(JOB, NAMED.digest, 5, mib + 7)) == [
        Send(m.BlobPiece(JOB, NAMED.digest, 5), [MODEL[5 : mib + 5]]),
        Send(m.BlobPiece(JOB, NAMED.digest, mib + 5), [MODEL[mib + 5 : mib + 7]]),
    ]


@pytest.mark.parametrize(
    ("digest", "start", "stop"),
    [(b"E" * 32, 0, 1), (NAMED.digest, len(MODEL), len(MODEL) + 1), (NAMED.digest, 0, 1 << 40)],
)
def test_what_is_none_of_its_blobs_is_not_sent(digest: bytes, start: int, stop: int) -> None:
    session = with_blob()
    session.connect(0, takes_blobs=True)
    assert session.send_wanted(m.BlobWanted(JOB, digest, start, stop)) == []


def test_a_scheduler_that_does_not_know_blobs_gets_the_function_whole() -> None:
    session = with_blob()
    (sent,) = session.connect(0)
    assert isinstance(sent, Send)
    assert sent.message == SPEC
    assert b"".join(sent.payload) == b"function" + MODEL + b"modules"
    assert [len(frame) for frame in sent.payload[1:-1]] == [m.BLOB_PIECE_BYTES] * 3


@pytest.mark.parametrize("name", ["files", "files/1", "own", "1"])
def test_files_that_a_scheduler_does_not_take_are_an_error_own_modules_stay(name: str) -> None:
    spec = msgspec.structs.replace(SPEC, blobs=(m.Blob(b"D" * 32, 1, m.BlobKind.NAMED, name),))
    session = Session(spec, [b"function"], True, blobs={b"D" * 32: memoryview(b"x")})
    (effect,) = session.connect(0)
    is_told = isinstance(effect, Fail) and "upgrades it with `burla up`" in effect.text
    assert is_told if name.startswith("files") else effect == Send(SPEC, [b"function"])


def test_blobs_count_for_what_the_scheduler_takes() -> None:
    session = with_blob()
    (failed,) = session.connect(0, len(MODEL), takes_blobs=True)
    assert isinstance(failed, Fail)
    assert f"has {len(MODEL) + 15:,} bytes" in failed.text


GOES_ON = msgspec.structs.replace(SPEC, policy=m.CallPolicy(goes_on=True))


@pytest.mark.parametrize("kind", [m.Kind.ERROR, m.Kind.DEATH])
def test_an_error_is_an_outcome_of_a_job_that_goes_on(kind: m.Kind) -> None:
    session = Session(GOES_ON, [], prompt=True)
    session.connect(0)
    session.handle(batch(3, coming=0), 0)
    failed = session.receive(*outcomes(1, (1, 2), kind=kind), now_s=0)
    assert failed == [delivered(1, part(1, 2, kind=kind))]
    rest = session.receive(*outcomes(2, (0, 1), (2, 3)), now_s=0)
    assert rest[-1] == FINISH
    assert session.went_well


def test_an_input_that_is_lost_has_that_outcome_once() -> None:
    session = Session(GOES_ON, [], prompt=True)
    session.connect(0)
    session.handle(batch(3), 0)
    said = m.CallLost(JOB, 1, ("a", "b", "c"))
    (lost,) = session.receive(said, [], now_s=0)
    assert isinstance(lost, Deliver)
    (one,) = lost.parts
    assert one.fresh == ((1, 2),)
    assert decode_death(one.frames[0]).nodes == ("a", "b", "c")
    assert session.receive(said, [], now_s=0) == []
    assert session.receive(m.CallLost(JOB, 3, ("a",)), [], now_s=0) == []  # it was never sent
    session.disconnect()
    (again, *_) = session.connect(1)
    assert getattr(again, "message").done == ((1, 2),)  # noqa: B009 - it is a Send of an OpenJob


def test_outcomes_that_come_twice_are_delivered_once_and_acknowledged_again() -> None:
    session = begin(4)
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == [delivered(1, part(0, 2))]
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == []
    assert session.expire(1) == [ACK_1]
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == [ACK_1]
    overlap = session.receive(*outcomes(1, (1, 3), lease=OTHER), now_s=0)
    assert overlap == [delivered(1, part(1, 3, (2, 3)), lease=OTHER)]


def test_what_is_all_known_is_not_delivered_but_acknowledged() -> None:
    session = begin(4)
    session.receive(*outcomes(1, (0, 2)), now_s=0)
    assert session.receive(*outcomes(1, (0, 2), lease=OTHER), now_s=0) == []
    assert session.expire(1) == [ACK_1, Send(m.AckOutcomes(OTHER, 1))]


def test_only_what_came_without_a_gap_is_acknowledged() -> None:
    session = begin(6)
    assert session.receive(*outcomes(2, (2, 4)), now_s=0) == [delivered(2, part(2, 4))]
    assert session.expire(1) == []
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == [delivered(1, part(0, 2))]
    assert session.expire(1) == [Send(m.AckOutcomes(LEASE, 2))]


def test_a_generator_acknowledges_what_it_has_yielded() -> None:
    session = begin(6, prompt=False)
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == [delivered(1, part(0, 2))]
    assert session.receive(*outcomes(2, (2, 4)), now_s=0) == [delivered(2, part(2, 4))]
    assert session.handle(Consumed(JOB, LEASE, 2), 0) == []
    assert session.handle(Consumed(JOB, LEASE, 1), 0) == []
    assert session.next_deadline_s() == ACK_LATE_S
    assert session.expire(ACK_LATE_S) == [Send(m.AckOutcomes(LEASE, 2))]
    assert session.next_deadline_s() == math.inf


def test_what_is_said_of_a_lease_that_is_not_known_changes_nothing() -> None:
    session = begin(1)
    assert session.handle(Consumed(JOB, OTHER, 1), 0) == []
    assert session.handle(Written(JOB, OTHER, 1), 0) == []
    session.check()


def test_what_does_not_fit_is_ignored() -> None:
    session = begin(3)
    assert session.receive(*outcomes(1, (0, 4)), now_s=0) == []
    assert session.receive(*outcomes(1, (0, 2), kind=m.Kind.RESULT), now_s=0) == []
    said, _ = outcomes(1, (0, 2))
    assert session.receive(said, [b"a", b"b"], now_s=0) == []
    session.check()


@pytest.mark.parametrize(("takes", "makes"), [(False, False), (True, False), (True, True)])
def test_outcomes_without_the_seal_of_the_job_fail_it_unopened(takes: bool, makes: bool) -> None:
    spec = msgspec.structs.replace(SPEC, secret=b"secret", blake3=takes)
    session = Session(spec, [], prompt=True)
    session.connect(0)
    session.handle(batch(2), 0)
    said, payload = outcomes(1, (0, 1))
    sealed = msgspec.structs.replace(said, seal=seal(b"secret", said, payload, blake3=makes))
    assert session.receive(sealed, payload, now_s=0) == [delivered(1, part(0, 1))]
    assert session.receive(*outcomes(2, (1, 2)), 0) == [Fail(JOB, "", NOT_SEALED.format("n"))]
    assert (session.over, session.went_well) == (True, False)


def test_an_error_ends_the_job_when_the_output_ahead_of_it_is_there() -> None:
    session = begin(10)
    failed = session.receive(*outcomes(1, (4, 5), output=1, kind=m.Kind.ERROR), now_s=0)
    assert failed == [delivered(1, part(4, 5, kind=m.Kind.ERROR))]
    late = session.receive(*printed(1, b"last words"), now_s=0)
    assert late == [write(1, b"last words"), FINISH]
    assert (session.over, session.went_well) == (True, False)


def test_nothing_behind_the_first_error_is_delivered() -> None:
    session = begin(10)
    said, payload = pack_runs(
        [(m.Run(i, i + 1, m.Kind.ERROR, 1), [b"%d-%d" % (i, i + 1)]) for i in (0, 3)]
    )
    message = m.JobOutcomes(job=JOB, lease=LEASE, seq=1, node="n", runs=said, output=0)
    first = delivered(1, part(0, 1, kind=m.Kind.ERROR))
    assert session.receive(message, payload, 0) == [first, FINISH]


def test_output_is_written_in_order_and_once() -> None:
    session = begin(3)
    assert session.receive(*printed(3, b"c"), now_s=0) == []
    assert session.receive(*printed(1, b"a"), now_s=0) == [write(1, b"a")]
    rest = session.receive(*printed(1, b"a", b"b"), now_s=0)
    assert rest == [write(2, b"b"), write(3, b"c")]
    assert session.receive(*printed(2, b"b", b"c"), now_s=0) == []
    assert session.handle(Written(JOB, LEASE, 3), 0) == [Send(m.AckOutput(LEASE, 3))]
    assert session.handle(Written(JOB, LEASE, 2), 0) == []


def test_missing_output_is_asked_for_until_it_comes() -> None:
    session = begin(1, coming=0)
    only = delivered(1, part(0, 1), freed=1)
    assert session.receive(*outcomes(1, (0, 1), output=2), now_s=1) == [only]
    assert session.next_deadline_s() == 1 + GAP_S
    assert session.expire(1) == []
    ask = Send(m.ReplayOutput(JOB, LEASE, 0))
    assert session.expire(1 + GAP_S) == [ask]
    assert session.expire(1.5) == []
    assert session.expire(1 + GAP_S + REPLAY_AGAIN_S) == [ask]
    assert session.receive(*printed(1, b"a", b"b"), now_s=3) == [write(2, b"a", b"b"), FINISH]


def test_output_of_a_lost_lease_is_given_up_and_that_is_said() -> None:
    session = begin(1, coming=0)
    session.receive(*outcomes(1, (0, 1), output=3), now_s=0)
    session.receive(*printed(3, b"c"), now_s=0)
    assert session.receive(m.LeaseLost(JOB, LEASE, "n"), [], now_s=1) == []
    lost = Warn(JOB, "some output of node n is lost")
    assert session.expire(1 + GAP_S) == [write(3, b"c"), lost, FINISH]


def test_output_that_never_comes_is_given_up_in_the_end() -> None:
    session = begin(1, coming=0)
    session.receive(*outcomes(1, (0, 1), output=1), now_s=0)
    ask = Send(m.ReplayOutput(JOB, LEASE, 0))
    for _ in range(REPLAYS_MAX):
        assert session.expire(session.next_deadline_s()) == [ask]
    lost = Warn(JOB, "some output of node n is lost")
    assert session.expire(session.next_deadline_s()) == [lost, FINISH]


def test_the_last_batch_says_that_it_is_the_last() -> None:
    session = Session(SPEC, [b"function"], prompt=True)
    session.connect(0)
    first = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 2, 1),))
    assert session.handle(batch(2), 0) == [Send(first, [b"xx"])]
    last = m.Inputs(job=JOB, batch=1, start=2, leaves=(m.Leaf(1, 2, 3, 1),), total=5)
    assert session.handle(batch(3, coming=0), 0) == [Send(last, [b"xxx"])]
    whole = delivered(1, part(0, 5), freed=5)
    assert session.receive(*outcomes(1, (0, 5)), now_s=1) == [whole, FINISH]


def test_after_a_reconnect_it_says_what_it_holds() -> None:
    session = begin(2)
    held = [*session.handle(batch(3), 0), *session.handle(batch(1), 0)]
    session.receive(*outcomes(1, (0, 3)), now_s=0)
    session.receive(*printed(1, b"a"), now_s=0)
    session.handle(Written(JOB, LEASE, 1), 0)
    session.disconnect()
    assert session.handle(EndInputs(JOB), 0) == []
    resumed = msgspec.structs.replace(SPEC, resumed=True, done=((0, 3),))
    assert session.connect(1) == [
        Send(resumed, [b"function"]),
        *held,
        Send(m.InputsEnd(JOB, 6)),
        ACK_1,
        Send(m.AckOutput(LEASE, 1)),
    ]


def test_a_job_that_was_never_sent_is_not_resumed() -> None:
    session = Session(SPEC, [], prompt=True)
    assert session.handle(batch(1), 0) == []
    sent = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 1, 1),))
    assert session.connect(0) == [Send(SPEC, []), Send(sent, [b"x"])]


def test_why_a_job_waits_is_said_after_a_moment_and_again_when_it_changes() -> None:
    session = begin(1)
    assert session.receive(m.JobStatus(JOB, "no node"), [], now_s=1) == []
    assert session.next_deadline_s() == 1 + REPORT_S
    assert session.expire(1.5) == []
    assert session.expire(2) == [ReportWaiting(JOB, "no node")]
    assert session.next_deadline_s() == math.inf


def test_which_calls_hang_is_said_when_they_have_run_for_long() -> None:
    session = begin(4, coming=0)
    long = m.JobRunning(JOB, LEASE, "n", (m.LongCall(2, 3, FIRST_S - 10),), 0.0)
    assert session.receive(long, [], now_s=100) == []
    assert session.next_deadline_s() == 110
    session.receive(*outcomes(1, (0, 2)), now_s=105)
    session.expire(109)
    assert session.expire(110) == [
        ReportHanging(JOB, "input 2 has run for 30 s on n; 2 of 4 inputs are done")
    ]
    session.receive(m.LeaseLost(JOB, LEASE, "n"), [], now_s=111)
    session.expire(200)
    assert session.next_deadline_s() == math.inf


def test_a_job_that_cannot_go_on_fails() -> None:
    session = begin(1)
    effects = session.receive(m.JobFailed(JOB, "func_cpu", "too many"), [], now_s=0)
    assert effects == [Fail(JOB, "func_cpu", "too many")]
    assert (session.over, session.went_well) == (True, False)


@pytest.mark.parametrize(
    "command",
    [batch(1), EndInputs(JOB), Consumed(JOB, LEASE, 1), Written(JOB, LEASE, 1), Close(JOB)],
)
def test_what_is_asked_of_a_job_that_is_over_changes_nothing(
    command: AddBatch | EndInputs | Consumed | Written | Close,
) -> None:
    session = begin(1)
    assert session.handle(Close(JOB), 0) == []
    assert (session.over, session.went_well) == (True, False)
    assert session.handle(command, 0) == []
    assert session.receive(*outcomes(1, (0, 1)), now_s=0) == []
    assert session.expire(100) == []


class AnythingMayHappen(RuleBasedStateMachine):
    """Nodes run, repeat and lose things; the connection comes and goes; output is dropped."""

    @initialize(prompt=st.booleans())
    def begin(self, prompt: bool) -> None:
        self.prompt = prompt
        self.session = Session(SPEC, [b"f"], prompt)
        self.now_s = 0.0
        self.entered = 0
        self.ended = False
        self.connected = False
        self.ran = Ranges()
        self.said: dict[bytes, list[m.JobOutcomes]] = {LEASE: [], OTHER: []}
        self.chunks: dict[bytes, list[bytes]] = {LEASE: [], OTHER: []}
        self.acked = {LEASE: 0, OTHER: 0}
        self.wire: list[tuple[m.JobOutcomes | m.JobOutput, list[bytes]]] = []
        self.delivered = Ranges()
        self.waiting: list[Deliver] = []  # not yet consumed
        self.written: dict[bytes, list[bytes]] = {LEASE: [], OTHER: []}
        self.finished = 0

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver():
                    for part in effect.parts:
                        for lo, hi in part.fresh:
                            assert self.delivered.add(lo, hi) == hi - lo
                    if not self.prompt:
                        self.waiting.append(effect)
                case Write():
                    self.written[effect.lease] += effect.chunks
                    assert effect.number == len(self.written[effect.lease])
                    written = Written(JOB, effect.lease, effect.number)
                    self.carry_out(self.session.handle(written, self.now_s))
                case Finish():
                    self.finished += 1
                case Send(message=m.ReplayOutput(lease=lease, after=after)):
                    self.say_output(lease, after)
                case Send(message=m.AckOutcomes(lease=lease, seq=seq)):
                    assert seq <= len(self.said[lease])
                    self.acked[lease] = max(self.acked[lease], seq)
                case Send():
                    assert self.connected
                case _:
                    raise AssertionError(effect)

    def say_output(self, lease: bytes, after: int) -> None:
        if chunks := self.chunks[lease][after:]:
            self.wire.append(printed(after + 1, *chunks, lease=lease))

    @precondition(lambda self: not self.ended)
    @rule(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3))
    def add_batch(self, counts: list[int]) -> None:
        self.carry_out(self.session.handle(batch(*counts), self.now_s))
        self.entered += sum(counts)

    @precondition(lambda self: not self.ended)
    @rule()
    def end(self) -> None:
        self.ended = True
        self.carry_out(self.session.handle(EndInputs(JOB), self.now_s))

    @precondition(lambda self: self.entered)
    @rule(
        lease=st.sampled_from([LEASE, OTHER]),
        at=st.integers(0, 1000),
        count=st.integers(1, 6),
        prints=st.integers(0, 2),
        lost=st.booleans(),
    )
    def run(self, lease: bytes, at: int, count: int, prints: int, lost: bool) -> None:
        lo = at % self.entered
        hi = min(self.entered, lo + count)
        self.ran.add(lo, hi)
        before = len(self.chunks[lease])
        self.chunks[lease] += [b"%d" % (before + i) for i in range(prints)]
        if not lost:
            self.say_output(lease, before)
        seq = len(self.said[lease]) + 1
        said, payload = outcomes(seq, (lo, hi), output=before + prints, lease=lease)
        self.said[lease].append(said)
        if self.connected:
            self.wire.append((said, payload))

    @precondition(lambda self: self.wire)
    @rule(early=st.booleans())
    def hear(self, early: bool) -> None:
        dues = [
            i for i, (said, _) in enumerate(self.wire) if early or isinstance(said, m.JobOutcomes)
        ]
        self.hear_one(self.wire.pop(dues[0] if dues else 0))

    def hear_one(self, said: tuple[m.JobOutcomes | m.JobOutput, list[bytes]]) -> None:
        self.carry_out(self.session.receive(*said, now_s=self.now_s))

    @precondition(lambda self: self.connected)
    @rule()
    def break_connection(self) -> None:
        self.connected = False
        self.wire.clear()
        self.session.disconnect()

    def say_again(self, said: list[m.JobOutcomes]) -> None:
        self.wire += [(one, payload_of(one.runs)) for one in said]

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.connected = True
        if not self.session.over:
            self.carry_out(self.session.connect(self.now_s))
        for lease, said in self.said.items():
            self.say_again(said[self.acked[lease] :])
            self.say_output(lease, 0)

    @precondition(lambda self: self.waiting)
    @rule(last=st.booleans())
    def consume(self, last: bool) -> None:
        one = self.waiting.pop(-1 if last else 0)
        self.carry_out(self.session.handle(Consumed(JOB, one.lease, one.seq), self.now_s))

    @rule(seconds=st.sampled_from([0.01, 0.1, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.carry_out(self.session.expire(self.now_s))

    @invariant()
    def holds(self) -> None:
        self.session.check()
        for lease, chunks in self.written.items():
            assert chunks == self.chunks[lease][: len(chunks)]
        assert self.finished <= 1

    def teardown(self) -> None:
        """One healthy scheduler and node finish everything."""
        if not self.connected:
            self.connect()
        if not self.ended:
            self.end()
        for lo, hi in self.ran.missing(0, self.entered):
            self.run(LEASE, lo, hi - lo, 1, True)
        for lease, said in self.said.items():
            self.say_again(said)  # what was lost is sent again by its nodelet
            assert lease in self.chunks
        for _ in range(5):
            while self.wire:
                self.hear_one(self.wire.pop(0))
                self.holds()
            self.pass_time(2.0)
        assert self.finished == 1
        assert list(self.delivered) == ([(0, self.entered)] if self.entered else [])
        for left in self.waiting:
            self.carry_out(self.session.handle(Consumed(JOB, left.lease, left.seq), self.now_s))


AnythingMayHappen.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)
test_anything_may_happen = AnythingMayHappen.TestCase


# --- what the scheduler says that it does not take ---


def too_large_for(index: int | None, what: str, size: int, most: int) -> Fail:
    text = (
        f"{what} {size} bytes, and this cluster holds at most {most} bytes of functions and inputs"
        " for you at once. Send less, e.g. a path or URL from which the function reads, or ask an"
        " administrator of the cluster to allow more (burla-scheduler --tenant-bytes)"
    )
    return Fail(JOB, "", text, index)


def test_a_function_over_the_limit_is_not_sent() -> None:
    session = Session(SPEC, [b"function"], True)
    what = "the function, with all that it refers to, has"
    assert session.connect(0, 7) == [too_large_for(None, what, 8, 7)]
    assert session.over


def test_an_input_over_the_limit_is_not_sent_and_named() -> None:
    session = Session(SPEC, [b"function"], True)
    session.connect(0, 100)
    session.handle(batch(30), 0)
    large = AddBatch(JOB, [(1, [b"x" * 20]), (1, [b"x" * 50, b"x" * 50]), (4, [b"x" * 4])], 124)
    assert session.handle(large, 0) == [too_large_for(31, "input 31 has", 124, 100)]


def test_inputs_that_came_before_the_welcome_are_looked_at_then() -> None:
    session = Session(SPEC, [b"function"], True)
    assert session.handle(batch(60, 60), 0) == []
    effects = session.connect(0, 100)
    whole = too_large_for(0, "inputs 0 to 119 have together", 120, 100)
    assert effects[-1] == whole
    assert not any(isinstance(e, Send) and isinstance(e.message, m.Inputs) for e in effects)


def test_without_a_limit_all_is_sent() -> None:
    session = Session(SPEC, [b"function"], True)
    session.connect(0)
    assert isinstance(session.handle(batch(1000), 0)[0], Send)
