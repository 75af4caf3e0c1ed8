"""One run of each fault, mixed among them; hundreds by hand: tests/support/chaos.py."""

from pathlib import Path

import chaos
import pytest
from chaos_record import Record, Verdict, judge
from chaos_safe import Watch, unsafe
from waiting import wait_until

from burla.protocol import messages as m
from burla.protocol.codec import pack_runs
from burla.protocol.stored_records import pack

CALLS = {"anna": [2], "bert": [1]}
GOOD = [
    *("begun anna 0 0 n0 1", "ended anna 0 0 n0 5", "begun anna 0 1 n0 2", "ended anna 0 1 n0 3"),
    *("begun bert 0 0 n0 6", "ended bert 0 0 n0 9"),
]
PRINTED = ["anna 0 0", "anna 0 1", "bert 0 0"]


@pytest.mark.parametrize(
    ("effects", "printed", "verdict"),
    [
        (GOOD, PRINTED, Verdict(0, 0, 0, 0)),
        (GOOD[2:], PRINTED, Verdict(1, 1, 0, 0)),
        (GOOD, PRINTED[1:], Verdict(1, 0, 0, 0)),
        (GOOD, [*PRINTED, "anna 0 0"], Verdict(0, 1, 0, 0)),
        ([*GOOD, "begun bert 0 0 n1 7"], PRINTED, Verdict(0, 0, 1, 0)),
        ([*GOOD[:4], "begun bert 0 0 n0 4", "ended bert 0 0 n0 9"], PRINTED, Verdict(0, 0, 0, 1)),
        ([*GOOD[:4], "begun bert 0 0 n1 4", "ended bert 0 0 n1 9"], PRINTED, Verdict(0, 0, 0, 0)),
        (["begun anna 0 0 n0 0", *GOOD], PRINTED, Verdict(0, 0, 1, 0)),  # killed: until when?
    ],
)
def test_what_is_wrong_is_seen(effects: list[str], printed: list[str], verdict: Verdict) -> None:
    assert judge(Record(CALLS, printed, effects)) == verdict


def test_a_call_that_was_killed_and_begun_again_there_did_not_last_until_the_second_end() -> None:
    effects = [
        *("begun anna 0 0 n0 0", "begun bert 0 0 n0 3", "ended bert 0 0 n0 4"),
        *("begun anna 0 0 n0 5", "ended anna 0 0 n0 9"),
    ]
    jobs, printed = {"anna": [1], "bert": [1]}, ["anna 0 0", "bert 0 0"]
    assert judge(Record(jobs, printed, effects)).shared == 0
    effects[2] = "ended bert 0 0 n0 6"
    assert judge(Record(jobs, printed, effects)).shared == 1


def test_calls_of_a_job_that_was_given_back_may_be_begun_again() -> None:
    effects = [*GOOD, "begun bert 0 0 n1 7", "begun anna 0 0 n0 8"]
    assert judge(Record(CALLS, PRINTED, effects, {"bert 0"})).repeated == 1


def test_what_nobody_asked_for_is_seen() -> None:
    with pytest.raises(AssertionError, match="nobody asked"):
        judge(Record(CALLS, [*PRINTED, "bert 0 1"], GOOD))


JOB = b"J" * 16


def outcomes(seq: int, lo: int, hi: int) -> bytes:
    run = m.Run(lo, hi, m.Kind.RESULTS, 1)
    said = m.JobOutcomes(
        job=JOB, lease=b"L" * 16, seq=seq, node="n", runs=pack_runs([(run, [b"x"])])[0], output=0
    )
    return b"".join(pack(said, [b"x"]))


def test_a_call_that_begins_when_its_outcome_is_on_the_disk_is_seen(tmp_path: Path) -> None:
    log = tmp_path / "jobs" / JOB.hex() / "outcomes-0.log"
    first, second, third = outcomes(1, 0, 2), outcomes(2, 2, 3), outcomes(2, 4, 5)
    with Watch(tmp_path) as watch:
        log.parent.mkdir(parents=True)
        log.write_bytes(first + second)
        wait_until(lambda: len(watch._seen) == 2, "both were seen")
        with log.open("r+b") as file:
            file.truncate(len(first))  # it was torn: that never counted
        wait_until(lambda: len(watch._seen) == 1, "that was seen")
        with log.open("ab") as file:
            file.write(third)
        wait_until(lambda: len(watch._seen) == 2, "and the next one")
    since = watch.safe_since()
    assert sorted(x for _, x in since) == [0, 1, 4]
    later = since[JOB.hex(), 1] + 1
    effects = [f"begun anna 3 {x} n0 {ns}" for x, ns in ((0, 1), (1, later), (2, later), (4, 1))]
    kept = {JOB.hex(): ("anna", 3)}
    assert [line.split()[3] for line in unsafe(since, effects, kept)] == ["1"]
    assert unsafe(since, effects, {}) == []


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("fault", "seed"),
    [
        ("scheduler killed", 1),
        ("mixed, with a network", 4),
        ("disk full", 2),
        ("detached midway", 4),
    ],
)
def test_nothing_is_lost_doubled_or_shared(fault: str, seed: int, tmp_path: Path) -> None:
    chaos.play(fault, seed, tmp_path)
