"""When the user hears of calls that hang, and what."""

import math

import pytest

from burla.core.hanging import FIRST_S, SECONDS_MAX, STALE_S, Hanging
from burla.protocol import messages as m
from burla.protocol.ranges import Ranges

JOB, ONE, TWO = b"j" * 16, b"1" * 16, b"2" * 16
INPUTS = 100
TELL_S = 5.0


class Listener:
    """One that hears of calls every few seconds, and reads the lines."""

    def __init__(self) -> None:
        self.hanging, self.done, self.now_s = Hanging(), Ranges(), 0.0
        self.calls: dict[bytes, dict[tuple[int, int], float]] = {}  # by lease: begun when
        self.loading: dict[bytes, float] = {}
        self.names = {ONE: "n1", TWO: "n2"}

    def begin(self, index: int, lease: bytes = ONE, hi: int = 0) -> None:
        self.calls.setdefault(lease, {})[index, hi or index + 1] = self.now_s

    def load(self, lease: bytes) -> None:
        self.loading[lease] = self.now_s

    def end(self, index: int, lease: bytes = ONE) -> None:
        del self.calls[lease][index, index + 1]
        self.done.add(index, index + 1)
        self.hanging.outcome_s = self.now_s

    def tell(self) -> None:
        for lease in {**self.calls, **self.loading}:
            running = self.calls.get(lease, {}).items()
            calls = [m.LongCall(lo, hi, self.now_s - at_s) for (lo, hi), at_s in running]
            calls = [call for call in calls if call.seconds >= 10.0]
            calls.sort(key=lambda call: -call.seconds)
            load_s = self.now_s - self.loading.get(lease, self.now_s)
            said = m.JobRunning(
                JOB, lease, self.names[lease], tuple(calls[: m.LONG_CALLS_MAX]), load_s
            )
            self.hanging.hear(said, self.done, INPUTS, self.now_s)

    def wait(self, seconds: float, total: int | None = INPUTS) -> list[tuple[float, str]]:
        """Return the lines of the next seconds, and when each came."""
        lines = []
        for _ in range(round(seconds)):
            self.now_s += 1.0
            if self.now_s % TELL_S == 0:
                self.tell()
            if line := self.hanging.take_due(self.done, total, self.now_s):
                lines.append((self.now_s, line))
            assert self.hanging.due_s > self.now_s, "it would be asked for ever"
        return lines


def test_one_call_is_told_after_a_while_and_then_rarer_and_rarer() -> None:
    user = Listener()
    user.begin(17)
    user.done.add(0, 17)
    lines = user.wait(4 * 3600)
    assert [at_s for at_s, _ in lines] == [30, 60, 120, 300, 600, 1200, 2400, 4800, 9600]
    rest = "; 17 of 100 inputs are done"
    assert lines[0][1] == f"input 17 has run for 30 s on n1{rest}"
    assert lines[1][1] == f"input 17 has run for 1 min on n1{rest}"
    assert lines[-1][1] == f"input 17 has run for 2 h 40 min on n1{rest}"


def test_short_jobs_say_nothing() -> None:
    user = Listener()
    for index in range(10):
        user.begin(index)
        assert user.wait(25) == []
        user.end(index)
    assert user.wait(100) == []
    assert user.hanging.due_s == math.inf


def test_several_are_told_in_one_line_the_oldest_first() -> None:
    user = Listener()
    for index in range(5):
        user.begin(index, (ONE, TWO)[index % 2])
        user.wait(2)
    lines = user.wait(70)
    assert [at_s for at_s, _ in lines] == [30, 60]
    assert lines[0][1] == "input 0 has run for 30 s on n1; 0 of 100 inputs are done"
    assert lines[1][1] == (
        "5 calls have run for over 52 s: input 0 (1 min, on n1), input 1 (58 s, on n2),"
        " input 2 (56 s, on n1) and 2 more; 0 of 100 inputs are done"
    )


def test_where_all_calls_take_long_few_are_told() -> None:
    """Ten minutes each, on two nodes: what is usual is no news."""
    user, lines = Listener(), []
    for index in range(0, 40, 2):
        user.begin(index, ONE)
        user.begin(index + 1, TWO)
        lines += user.wait(600)
        user.end(index, ONE)
        user.end(index + 1, TWO)
    assert [at_s for at_s, _ in lines] == [30, 60, 120, 300, 600]


def test_a_call_that_takes_twice_what_others_took_is_told() -> None:
    user = Listener()
    user.begin(0)
    user.wait(50)
    user.end(0)
    user.begin(1)
    (first, *_) = user.wait(200)
    assert 50 + 100 <= first[0] <= 50 + 115  # that it was over was heard a moment later
    assert first[1].startswith("input 1 has run for 1 min on n1")


def test_what_is_told_may_go_on_while_another_begins_to_hang() -> None:
    user = Listener()
    user.begin(1)
    user.wait(1000)
    user.begin(2, TWO)
    lines = user.wait(300)
    assert len(lines) == 2
    assert "input 2 (" in lines[0][1] + lines[1][1]


def test_however_calls_hang_lines_get_rare() -> None:
    user, lines = Listener(), []
    for index in range(90):
        user.begin(index, (ONE, TWO)[index % 2])
        lines += user.wait(20)
    assert len(lines) <= 10


def test_that_the_function_loads_is_told_unless_others_run_meanwhile() -> None:
    user = Listener()
    user.load(ONE)
    assert user.wait(31) == [(30, "the function has been loading for 30 s on n1")]
    user.load(TWO)
    lines = user.wait(130)
    assert lines[-1][1] == "the function has been loading for over 1 min on n1 and n2"
    busy = Listener()
    busy.load(ONE)
    for index in range(20):
        busy.begin(index, TWO)
        assert busy.wait(10) == []
        busy.end(index, TWO)
    lines = busy.wait(31)
    assert lines == [(230, "the function has been loading for 3 min on n1")]


def test_of_a_stride_that_cannot_be_cut_all_its_inputs_are_named() -> None:
    user = Listener()
    user.begin(20, hi=30)
    assert user.wait(31, total=None) == [
        (30, "one of the inputs 20 to 29 has run for 30 s on n1; 0 inputs are done")
    ]


def test_of_a_job_with_one_input_no_count_is_told() -> None:
    user = Listener()
    user.begin(0)
    assert user.wait(31, total=1) == [(30, "input 0 has run for 30 s on n1")]


def test_more_than_a_node_names_are_at_least_so_many() -> None:
    user = Listener()
    for index in range(40):
        user.begin(index)
    (line,) = user.wait(31)
    assert line[1].startswith(f"at least {m.LONG_CALLS_MAX} calls have run for over 30 s: input 0")


def test_what_is_over_or_lost_or_not_told_any_more_is_forgotten() -> None:
    over, lost, stale = Listener(), Listener(), Listener()
    for user in (over, lost, stale):
        user.begin(3)
        user.wait(27)
    over.done.add(3, 4)  # its outcome came, and the node's next word did not
    over.calls.clear()
    lost.hanging.lose(ONE)
    lost.calls.clear()
    stale.calls.clear()
    assert over.wait(100) == lost.wait(100) == []
    assert [at_s for at_s, _ in stale.wait(1000)] == [FIRST_S]
    assert stale.hanging.due_s == math.inf
    assert STALE_S < FIRST_S


@pytest.mark.parametrize("seconds", [0.0, 1e300, math.inf])
def test_what_a_node_says_wrong_does_no_harm(seconds: float) -> None:
    hanging = Hanging()
    calls = (m.LongCall(5, 5, seconds), m.LongCall(7, 3, seconds), m.LongCall(0, 1 << 50, seconds))
    hanging.hear(m.JobRunning(JOB, ONE, "n", calls, 0.0), Ranges(), INPUTS, 1.0)
    assert hanging.due_s == math.inf
    hanging.hear(m.JobRunning(JOB, ONE, "n", (), seconds), Ranges(), INPUTS, 1.0)
    hanging.take_due(Ranges(), INPUTS, 1.0)
    twice = (m.LongCall(5, 6, seconds),) * 2
    hanging.hear(m.JobRunning(JOB, ONE, "n", twice, seconds), Ranges(), INPUTS, 1.0)
    hanging.take_due(Ranges(), INPUTS, 1.0)
    assert hanging.due_s > 1.0
    assert math.inf > SECONDS_MAX
