"""What a nodelet tells of calls besides their outcomes: merged per report, and bounded."""

from burla.nodelet.core.events import CellReport
from burla.nodelet.core.tallying import SLOW_S, Tallying
from burla.protocol.deaths import TIMEOUT, Death, OutOfMemoryFigures
from burla.protocol.job_messages import (
    FAULT_CHARS_MAX,
    FAULTS_TOLD_MAX,
    LAST_WORDS_MAX,
    LASTED_S,
    LASTED_TOLD_MAX,
    TYPES_TOLD_MAX,
    EndedCall,
    Tally,
    ToldFault,
    bucket_of,
)
from burla.protocol.messages import Kind, LongCall, Run


def take(
    tally: Tallying, lo: int, hi: int, seconds: float, kind: Kind = Kind.RESULTS, **more: object
) -> None:
    report = CellReport(0, lo, hi, kind, seconds, [b"x"], **more)  # type: ignore[arg-type]
    tally.take(Run(lo, hi, kind, 1), [b"x"], report, 1)


def test_durations_are_merged_and_told_once() -> None:
    tally = Tallying()
    take(tally, 0, 1000, 0.001)  # a microsecond each
    take(tally, 1000, 2000, 0.001)
    take(tally, 2000, 2001, 0.02)
    assert tally.told() == Tally(((1, 2000), (bucket_of(0.02), 1)), busy_s=0.022)
    assert tally.told() is None


def test_the_slowest_call_has_a_name() -> None:
    tally = Tallying()
    for index, seconds in enumerate((0.2, 0.5, 0.3, SLOW_S / 2)):
        take(tally, index, index + 1, seconds)
    take(tally, 10, 1000, 60.0)  # of many calls none is known to be slow
    told = tally.told()
    assert told is not None
    assert told.slow == LongCall(1, 2, 0.5)


def test_errors_are_told_by_type_and_text_as_far_as_there_is_room() -> None:
    tally = Tallying()
    for index in range(20):
        take(tally, index, index + 1, 0.0, Kind.ERROR, told=("ValueError", "no" * 1000))
    told = tally.told()
    assert told is not None
    assert (told.failed, len(told.faults)) == (20, FAULTS_TOLD_MAX)
    assert told.faults[0] == ToldFault(0, b"ValueError", (b"no" * 1000)[:FAULT_CHARS_MAX])


def test_a_death_is_told_by_the_name_that_its_caller_sees() -> None:
    tally = Tallying()
    memory = OutOfMemoryFigures(3 << 30, 1 << 30, 8 << 30, 1 << 30)
    deaths = [
        Death("signal", 11, 3, last_words="oh"),
        Death("signal", 9, 1, killed_for=TIMEOUT),
        Death("signal", 9, 2, memory=memory),
    ]
    for index, death in enumerate(deaths):
        tally.take(Run(index, index + 1, Kind.DEATH, 1), [death.encode()], None, 1)
    tally.take(Run(9, 10, Kind.DEATH, 1), [b"junk"], None, 1)
    tally.take(Run(10, 11, Kind.ERROR, 1), [b"x"], None, 1)
    told = tally.told()
    assert told is not None
    assert told.faults == (
        ToldFault(0, b"WorkerDied", b"signal 11", 3, words=b"oh"),
        ToldFault(1, b"CallTimeout", b"it was killed"),
        ToldFault(2, b"OutOfMemory", b"it used 3 GB", 2, memory=3 << 30),
        ToldFault(9, b"WorkerDied", b""),
        ToldFault(10, b"error", b""),
    )


def test_of_a_call_that_failed_or_was_slow_it_is_told_what_it_took_and_printed() -> None:
    tally = Tallying()
    take(tally, 0, 1, 0.5, Kind.ERROR, told=("E", "no"), peak=7, words=b"x" * 5000 + b"last")
    take(tally, 1, 2, 0.7, peak=9, words=b"slow")
    told = tally.told()
    assert told is not None
    (fault,) = told.faults
    assert (fault.seconds, fault.memory, fault.words[-5:]) == (0.5, 7, b"xlast")
    assert len(fault.words) == LAST_WORDS_MAX
    assert (told.slow, told.slow_memory, told.slow_words) == (LongCall(1, 2, 0.7), 9, b"slow")
    take(tally, 2, 3, 0.0)
    again = tally.told()
    assert again is not None
    assert (again.slow_memory, again.slow_words, again.types) == (0, b"", ())


def test_calls_that_lasted_are_told_as_far_as_there_is_room() -> None:
    tally = Tallying()
    take(tally, 0, 1, LASTED_S / 2)
    take(tally, 1, 2, LASTED_S)
    take(tally, 2, 3, LASTED_S, Kind.ERROR)
    take(tally, 3, 30, 60.0)  # of many calls none is known to last
    for index in range(50):
        take(tally, 100 + index, 101 + index, 2.0)
    told = tally.told()
    assert told is not None
    assert told.ended[:2] == (EndedCall(1, 2, LASTED_S), EndedCall(2, 3, LASTED_S, True))
    assert len(told.ended) == LASTED_TOLD_MAX


def test_each_type_of_error_is_counted_and_has_an_example() -> None:
    tally = Tallying()
    for index in range(20):
        take(tally, index, index + 1, 0.0, Kind.ERROR, told=("ValueError", ""))
    take(tally, 20, 21, 0.0, Kind.ERROR, told=("KeyError", ""))
    for index in range(30):
        take(tally, 50 + index, 51 + index, 0.0, Kind.ERROR, told=(f"E{index}", ""))
    told = tally.told()
    assert told is not None
    assert told.types[:2] == ((b"ValueError", 20), (b"KeyError", 1))
    assert len(told.types) == TYPES_TOLD_MAX
    assert told.faults[0].type == b"ValueError"
    assert len(told.faults) == FAULTS_TOLD_MAX
