"""Conversations with one session, and one that anything may happen to."""

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from outcomes import payload_of

from burla.core.acks import ACK_LATE_S
from burla.core.effects import (
    Deliver,
    Effect,
    Fail,
    Finish,
    ReportWaiting,
    Send,
    Warn,
    Window,
    Write,
)
from burla.core.output_order import GAP_S, REPLAY_AGAIN_S, REPLAYS_MAX
from burla.core.session import WAIT_SAID_S, Session
from burla.protocol import messages as m
from burla.protocol.codec import pack_runs
from burla.protocol.ranges import Ranges

JOB, TOPIC, LEASE, OTHER = b"j" * 16, b"t" * 16, b"1" * 16, b"2" * 16
SPEC = m.OpenJob(
    job=JOB,
    topic=TOPIC,
    name="f",
    func_cpu=1,
    func_ram=None,
    max_parallelism=None,
    unpack=False,
    environment=b"",
)


def begin(*counts: int, prompt: bool = True) -> Session:
    """Return a linked session with one batch of `counts` inputs per leaf."""
    session = Session(SPEC, [b"function"], prompt, now_s=0)
    session.link(0)
    session.add_batch([(count, [b"x" * count]) for count in counts], 0)
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
    said = m.JobOutcomes(
        job=JOB,
        lease=lease,
        seq=seq,
        node="n",
        runs=table,
        output=output,
    )
    return said, payload


def printed(number: int, *chunks: bytes, lease: bytes = LEASE) -> tuple[m.JobOutput, list[bytes]]:
    return m.JobOutput(JOB, lease, number, (1,) * len(chunks)), list(chunks)


def shown(effects: list[Effect]) -> list[bytes]:
    return [chunk for effect in effects if isinstance(effect, Write) for chunk in effect.chunks]


def test_a_job_is_opened_fed_and_closed_when_all_outcomes_are_here() -> None:
    session = Session(SPEC, [b"function"], prompt=True, now_s=0)
    assert session.link(0) == [Send(SPEC, [b"function"])]
    sent = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 2, 1), m.Leaf(0, 2, 3, 2)))
    assert session.add_batch([(2, [b"a"]), (3, [b"b", b"c"])], 0) == [
        Send(sent, [b"a", b"b", b"c"])
    ]
    assert session.end_inputs(0) == [Send(m.InputsEnd(JOB, 5))]
    first = session.receive(*outcomes(1, (3, 5)), now_s=1)
    assert [type(effect) for effect in first] == [Deliver]
    last = session.receive(*outcomes(2, (0, 3)), now_s=1)
    assert isinstance(last[0], Deliver)
    assert (last[0].inputs, last[0].freed_bytes) == (3, 3)
    assert last[1:] == [Finish(), Send(m.CloseJob(JOB), is_late=True)]
    assert session.over


def test_outcomes_that_come_twice_are_delivered_once_and_acknowledged_again() -> None:
    session = begin(4)
    session.receive(*outcomes(1, (0, 2)), now_s=0)
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == []
    assert session.expire(1) == [Send(m.AckOutcomes(LEASE, 1))]
    assert session.receive(*outcomes(1, (0, 2)), now_s=0) == [Send(m.AckOutcomes(LEASE, 1))]
    overlap = session.receive(*outcomes(1, (1, 3), lease=OTHER), now_s=0)
    assert isinstance(overlap[0], Deliver)
    assert [part.fresh for part in overlap[0].parts] == [((2, 3),)]


def test_only_what_came_without_a_gap_is_acknowledged() -> None:
    session = begin(6)
    late = session.receive(*outcomes(2, (2, 4)), now_s=0)
    assert [type(effect) for effect in late] == [Deliver]
    assert session.expire(1) == []
    session.receive(*outcomes(1, (0, 2)), now_s=0)
    assert session.expire(1) == [Send(m.AckOutcomes(LEASE, 2))]


def test_a_generator_acknowledges_what_it_has_yielded() -> None:
    session = begin(6, prompt=False)
    assert [type(e) for e in session.receive(*outcomes(1, (0, 2)), now_s=0)] == [Deliver]
    assert [type(e) for e in session.receive(*outcomes(2, (2, 4)), now_s=0)] == [Deliver]
    assert session.consumed(LEASE, 2, 0) == []
    assert session.consumed(LEASE, 1, 0) == []
    assert session.next_deadline_s() == ACK_LATE_S
    assert session.expire(ACK_LATE_S) == [Send(m.AckOutcomes(LEASE, 2))]
    assert session.next_deadline_s() is None


def test_what_does_not_fit_is_ignored() -> None:
    session = begin(3)
    assert session.receive(*outcomes(1, (0, 4)), now_s=0) == []
    assert session.receive(*outcomes(1, (0, 2), kind=m.Kind.RESULT), now_s=0) == []
    said, _ = outcomes(1, (0, 2))
    assert session.receive(said, [b"a", b"b"], now_s=0) == []
    session.check()


def test_an_error_ends_the_job_when_the_output_ahead_of_it_is_there() -> None:
    session = begin(10)
    failed = session.receive(*outcomes(1, (4, 5), output=1, kind=m.Kind.ERROR), now_s=0)
    assert [type(effect) for effect in failed] == [Deliver]
    late = session.receive(*printed(1, b"last words"), now_s=0)
    assert shown(late) == [b"last words"]
    assert late[1:] == [Finish(), Send(m.CloseJob(JOB))]


def test_output_is_shown_in_order_and_once() -> None:
    session = begin(3)
    assert session.receive(*printed(3, b"c"), now_s=0) == []
    assert shown(session.receive(*printed(1, b"a"), now_s=0)) == [b"a"]
    assert shown(session.receive(*printed(1, b"a", b"b"), now_s=0)) == [b"b", b"c"]
    assert session.receive(*printed(2, b"b", b"c"), now_s=0) == []
    assert session.shown(LEASE, 3, 0) == [Send(m.AckOutput(LEASE, 3))]


def test_missing_output_is_asked_for_until_it_comes() -> None:
    session = begin(1)
    session.end_inputs(0)
    session.receive(*outcomes(1, (0, 1), output=2), now_s=1)
    assert session.next_deadline_s() == 1 + GAP_S
    assert session.expire(1) == []
    ask = Send(m.ReplayOutput(JOB, LEASE, 0))
    assert session.expire(1 + GAP_S) == [ask]
    assert session.expire(1.5) == []
    assert session.expire(1 + GAP_S + REPLAY_AGAIN_S) == [ask]
    assert session.receive(*printed(1, b"a", b"b"), now_s=3)[1:] == [
        Finish(),
        Send(m.CloseJob(JOB), is_late=True),
    ]


def test_output_of_a_lost_lease_is_given_up_and_that_is_said() -> None:
    session = begin(1)
    session.end_inputs(0)
    session.receive(*outcomes(1, (0, 1), output=3), now_s=0)
    session.receive(*printed(3, b"c"), now_s=0)
    assert session.receive(m.LeaseLost(JOB, LEASE, "n"), [], now_s=1) == []
    effects = session.expire(1 + GAP_S)
    assert shown(effects) == [b"c"]
    closed = Send(m.CloseJob(JOB), is_late=True)
    assert effects[1:] == [Warn("some output of node n is lost"), Finish(), closed]


def test_output_that_never_comes_is_given_up_in_the_end() -> None:
    session = begin(1)
    session.end_inputs(0)
    session.receive(*outcomes(1, (0, 1), output=1), now_s=0)
    asked = 0
    while not session.over:
        due_s = session.next_deadline_s()
        assert due_s is not None
        asked += sum(isinstance(effect, Send) for effect in session.expire(due_s))
    assert asked == REPLAYS_MAX + 1  # and CloseJob


def test_the_last_batch_says_that_it_is_the_last() -> None:
    session = Session(SPEC, [b"function"], prompt=True, now_s=0)
    session.link(0)
    first = session.add_batch([(2, [b"a"])], 0)
    last = session.add_batch([(3, [b"b"])], 0, last=True)
    said = [effect.message for effect in (*first, *last) if isinstance(effect, Send)]
    assert [message.total for message in said if isinstance(message, m.Inputs)] == [None, 5]
    assert len(said) == 2
    session.receive(*outcomes(1, (0, 5)), now_s=1)
    assert session.over


def test_after_a_reconnect_it_says_what_it_holds() -> None:
    session = begin(2)
    session.add_batch([(3, [b"yyy"])], 0)
    session.add_batch([(1, [b"z"])], 0)
    session.receive(*outcomes(1, (0, 3)), now_s=0)
    session.receive(*printed(1, b"a"), now_s=0)
    session.shown(LEASE, 1, 0)
    session.unlink()
    assert session.end_inputs(0) == []
    again = session.link(1)
    resumed = msgspec.structs.replace(SPEC, resumed=True, done=((0, 3),))
    assert again[0] == Send(resumed, [b"function"])
    assert [
        e.message.batch for e in again if isinstance(e, Send) and isinstance(e.message, m.Inputs)
    ] == [1, 2]
    assert again[3:] == [
        Send(m.InputsEnd(JOB, 6)),
        Send(m.AckOutcomes(LEASE, 1)),
        Send(m.AckOutput(LEASE, 1)),
    ]


def test_a_job_that_was_never_sent_is_not_resumed() -> None:
    session = Session(SPEC, [], prompt=True, now_s=0)
    assert session.add_batch([(1, [b"a"])], 0) == []
    first = session.link(0)[0]
    assert isinstance(first, Send)
    assert first.message == SPEC


def test_why_a_job_waits_is_said_after_a_moment_and_again_when_it_changes() -> None:
    session = begin(1)
    session.receive(m.JobStatus(JOB, "no node", 0, 0), [], now_s=1)
    assert session.next_deadline_s() == 1 + WAIT_SAID_S
    assert session.expire(1.5) == []
    assert session.expire(2) == [ReportWaiting("no node")]
    session.receive(m.JobStatus(JOB, "", 1, 1), [], now_s=3)
    session.receive(m.JobStatus(JOB, "no node", 0, 0), [], now_s=4)
    assert session.next_deadline_s() is None
    session.receive(m.JobStatus(JOB, "all nodes are busy", 0, 0), [], now_s=5)
    assert session.expire(6) == [ReportWaiting("all nodes are busy")]


def test_a_job_that_can_not_go_on_is_closed() -> None:
    session = begin(1)
    effects = session.receive(m.JobFailed(JOB, "func_cpu", "too many"), [], now_s=0)
    assert effects == [Fail("func_cpu", "too many"), Send(m.CloseJob(JOB))]
    assert session.receive(*outcomes(1, (0, 1)), now_s=0) == []
    assert session.close(0) == []


def test_the_window_always_lets_one_batch_in() -> None:
    window = Window()
    assert window.has_room()
    window.add(1, m.JOB_INPUT_WINDOW + 1)
    assert not window.has_room()
    window.free(Deliver(LEASE, 1, "n", (), 1, m.JOB_INPUT_WINDOW + 1))
    assert window == Window()


def test_an_endless_job_forgets_what_is_done() -> None:
    session = Session(SPEC, [], prompt=True, now_s=0)
    session.link(0)
    for number in range(10_000):
        session.add_batch([(2, [b"xx"])], 0)
        session.receive(*outcomes(number + 1, (2 * number, 2 * number + 2)), now_s=0)
    assert len(session._starts) < 2048
    session.check()


class AnythingMayHappen(RuleBasedStateMachine):
    """Nodes run, repeat and lose things; the connection comes and goes; output is dropped."""

    @initialize(prompt=st.booleans())
    def begin(self, prompt: bool) -> None:
        self.prompt = prompt
        self.session = Session(SPEC, [b"f"], prompt, 0)
        self.now_s = 0.0
        self.entered = 0
        self.ended = False
        self.linked = False
        self.ran = Ranges()
        self.said: dict[bytes, list[m.JobOutcomes]] = {LEASE: [], OTHER: []}
        self.chunks: dict[bytes, list[bytes]] = {LEASE: [], OTHER: []}
        self.acked = {LEASE: 0, OTHER: 0}
        self.wire: list[tuple[m.JobOutcomes | m.JobOutput, list[bytes]]] = []
        self.delivered = Ranges()
        self.waiting: list[Deliver] = []  # not yet consumed
        self.shown: dict[bytes, list[bytes]] = {LEASE: [], OTHER: []}
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
                    self.shown[effect.lease] += effect.chunks
                    assert effect.number == len(self.shown[effect.lease])
                    self.carry_out(self.session.shown(effect.lease, effect.number, self.now_s))
                case Finish():
                    self.finished += 1
                case Send(message=m.ReplayOutput(lease=lease, after=after)):
                    self.say_output(lease, after)
                case Send(message=m.AckOutcomes(lease=lease, seq=seq)):
                    assert seq <= len(self.said[lease])
                    self.acked[lease] = max(self.acked[lease], seq)
                case Send():
                    assert self.linked
                case _:
                    raise AssertionError(effect)

    def say_output(self, lease: bytes, after: int) -> None:
        if chunks := self.chunks[lease][after:]:
            self.wire.append(printed(after + 1, *chunks, lease=lease))

    @precondition(lambda self: not self.ended)
    @rule(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3))
    def add_batch(self, counts: list[int]) -> None:
        self.carry_out(self.session.add_batch([(n, [b"x" * n]) for n in counts], self.now_s))
        self.entered += sum(counts)

    @precondition(lambda self: not self.ended)
    @rule()
    def end(self) -> None:
        self.ended = True
        self.carry_out(self.session.end_inputs(self.now_s))

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
        if self.linked:
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

    @precondition(lambda self: self.linked)
    @rule()
    def break_connection(self) -> None:
        self.linked = False
        self.wire.clear()
        self.session.unlink()

    def say_again(self, said: list[m.JobOutcomes]) -> None:
        self.wire += [(one, payload_of(one.runs)) for one in said]

    @precondition(lambda self: not self.linked)
    @rule()
    def connect(self) -> None:
        self.linked = True
        if not self.session.over:
            self.carry_out(self.session.link(self.now_s))
        for lease, said in self.said.items():
            self.say_again(said[self.acked[lease] :])
            self.say_output(lease, 0)

    @precondition(lambda self: self.waiting)
    @rule(last=st.booleans())
    def consume(self, last: bool) -> None:
        one = self.waiting.pop(-1 if last else 0)
        self.carry_out(self.session.consumed(one.lease, one.seq, self.now_s))

    @rule(seconds=st.sampled_from([0.01, 0.1, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.carry_out(self.session.expire(self.now_s))

    @invariant()
    def holds(self) -> None:
        self.session.check()
        for lease, chunks in self.shown.items():
            assert chunks == self.chunks[lease][: len(chunks)]
        assert self.finished <= 1

    def teardown(self) -> None:
        """One healthy scheduler and node finish everything."""
        if not self.linked:
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
            self.carry_out(self.session.consumed(left.lease, left.seq, self.now_s))


AnythingMayHappen.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)
test_anything_may_happen = AnythingMayHappen.TestCase
