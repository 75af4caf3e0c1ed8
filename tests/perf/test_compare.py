"""Two commits beside each other: what is computed, and once for real."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perf.compare import Pairs, main as compare, median_range, name_of, paired
from perf.side import USUAL

ROOT = Path(__file__).parents[2]
needs_history = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a tree without commits")


def test_ratios_pair_measurements_of_the_same_round() -> None:
    assert Pairs("call", [1.0, 8.0, 3.0], [2.0, 4.0, 3.0]).ratios == [0.5, 1.0, 2.0]


def test_the_median_of_all_lies_in_the_range_as_surely_as_said() -> None:
    # Below the 4th of 15, were the median there, at most 3 would lie: as likely as 1.8 %.
    assert median_range([float(n) for n in range(1, 16)]) == (4.0, 12.0)
    assert median_range([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (1.0, 6.0)
    assert median_range([1.0, 2.0]) == (1.0, 2.0)
    assert median_range([7.0]) == (7.0, 7.0)


def test_sides_take_turns_at_being_first() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = paired(
        ["call", "loop"], 3, lambda case: side(f"a {case}", 2), lambda case: side(f"b {case}", 1)
    )
    assert next(found) == Pairs("call", [2.0] * 3, [1.0] * 3)
    assert order == ["a call", "b call", "b call", "a call", "a call", "b call"]
    assert [pairs.case for pairs in found] == ["loop"]


def test_what_is_no_commit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        compare(["no-such-commit"])
    assert left.value.code == 2
    assert "'no-such-commit' is no commit here" in capsys.readouterr().err


def run(tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "perf", "compare", "HEAD", *more, "--rounds", "2"]
    line += ["--scale", "0.01", "--json", str(tmp_path / "out.json")]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


@needs_history
@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("HEAD", "--over", "tcp", "--cases", "call", "cold")])
def test_two_commits_are_compared_in_pairs(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = run(tmp_path, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["before"] == name_of("HEAD")
    assert found["after"] == (name_of("HEAD") if more else "working tree")
    assert list(found["seconds"]) == (["call", "cold"] if more else list(USUAL))
    assert all(len(s) == 2 for pair in found["seconds"].values() for s in pair)
    assert f"{found['before']} -> {found['after']}" in done.stdout
