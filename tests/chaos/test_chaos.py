"""One run of each fault, mixed among them; hundreds by hand: tests/support/chaos.py."""

from pathlib import Path

import chaos
import pytest
from chaos_record import Record, Verdict, judge

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


def test_what_nobody_asked_for_is_seen() -> None:
    with pytest.raises(AssertionError, match="nobody asked"):
        judge(Record(CALLS, [*PRINTED, "bert 0 1"], GOOD))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("fault", "seed"),
    [("scheduler killed", 1), ("mixed, with a network", 4), ("disk full", 2)],
)
def test_nothing_is_lost_doubled_or_shared(fault: str, seed: int, tmp_path: Path) -> None:
    chaos.play(fault, seed, tmp_path)
