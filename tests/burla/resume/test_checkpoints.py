"""Results that are kept by name: found again, whatever a kill or others leave."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from burla.cli import commands
from burla.commands.resume import NothingKept
from burla.errors import BadSetting
from burla.resume import checkpoints
from burla.resume.checkpoint_files import MAP_BYTES_MIN, ResultsFile
from burla.resume.checkpoints import Checkpoint, all_kept, drop
from burla.values.contents import NO_DIGEST

PARTS = {"code": b"c" * 16, "x": b"x" * 16}
A, B, C = (bytes([letter]) * 16 for letter in b"abc")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "burla" / "resume"


def opened(name: str = "n", parts: Any = PARTS) -> Checkpoint:
    return Checkpoint(name, "f", parts)


def kept(*records: tuple[bytes, bytes], many: bool = False) -> None:
    """Keep results, as a run does that ends."""
    checkpoint = opened()
    for digests, frame in records:
        checkpoint.keep(digests, [frame], many=many)
    checkpoint.close()


def loaded(checkpoint: Checkpoint, digest: bytes) -> bytes | None:
    place = checkpoint.take(digest)
    if place is None:
        return None
    return b"".join(checkpoint.frames_of(place >> checkpoints.OFFSET_BITS)[0])


def files(data: Path) -> list[Path]:
    return sorted(data.glob("*/*/*.results"))


def test_results_are_found_by_the_next_run_and_each_is_taken_once(data: Path) -> None:
    assert not opened().has_any()
    kept((A, b"one"), (B, b"two"))
    kept((A, b"three"))
    checkpoint = opened()
    found = [loaded(checkpoint, digest) for digest in (A, A, A, B, C)]
    assert found == [b"one", b"three", None, b"two", None]
    assert len(files(data)) == 1
    for path in (files(data)[0], *files(data)[0].parents[:3]):
        assert os.stat(path).st_mode & 0o077 == 0, path


def test_what_has_no_digest_is_not_kept(data: Path) -> None:
    kept((NO_DIGEST, b"one"))
    assert files(data) == []
    kept((A + NO_DIGEST, b"two"), many=True)
    checkpoint = opened()
    assert checkpoint.take(NO_DIGEST) is None
    assert loaded(checkpoint, A) == b"two"


def test_many_inputs_in_the_order_of_before_are_found_together() -> None:
    kept((A + B, b"ab"), (C, b"c"), many=True)
    assert opened().take_each(A + B + C) == [(0, 2, 0), (2, 1, 1 << checkpoints.OFFSET_BITS)]
    checkpoint = opened()
    first = checkpoint.take_each(C + B + A + A + B)
    assert first == [(0, 1, 1 << checkpoints.OFFSET_BITS), (3, 2, 0)]
    assert opened().take_each(B + C + A + A) == [
        (0, 1, 1),
        (1, 1, 1 << checkpoints.OFFSET_BITS),
        (2, 1, 0),
    ]


@pytest.mark.parametrize("left", range(1, 200, 7))
def test_a_torn_end_costs_what_it_held_and_is_cut_by_who_appends(data: Path, left: int) -> None:
    kept((A, b"one" * 9))
    whole = files(data)[0].stat().st_size
    kept((B, b"two" * 50))
    torn = min(whole + left, files(data)[0].stat().st_size - 1)
    os.truncate(files(data)[0], torn)
    kept((C, b"three"))
    checkpoint = opened()
    assert [loaded(checkpoint, one) for one in (A, B, C)] == [b"one" * 9, None, b"three"]


def test_a_result_whose_bytes_have_changed_is_none(data: Path) -> None:
    kept((A, b"one"), (B, b"two"))
    content = files(data)[0].read_bytes()
    files(data)[0].write_bytes(content.replace(b"one", b"One"))
    checkpoint = opened()
    assert (loaded(checkpoint, A), loaded(checkpoint, B)) == (None, b"two")
    assert [count for _, count, _ in opened().take_each(A + B)] == [1]


def test_a_big_result_is_mapped(data: Path) -> None:
    big = os.urandom(MAP_BYTES_MIN + 3)
    kept((A, b"x"), (B, big))
    checkpoint = opened()
    place = checkpoint.take(B)
    assert place is not None
    (frame,), is_many = checkpoint.frames_of(place >> checkpoints.OFFSET_BITS)
    assert (bytes(frame), is_many) == (big, False)
    assert isinstance(frame, memoryview)
    frame[:3] = b"abc"  # seen by nobody else
    assert loaded(opened(), B) == big


def test_runs_at_the_same_time_write_to_files_of_their_own(data: Path) -> None:
    one, other = opened(), opened()
    one.keep(A, [b"one"], many=False)
    other.keep(B, [b"two"], many=False)
    one.keep(C, [b"three"], many=False)
    assert len(files(data)) == 2
    checkpoint = opened()  # while both go on
    assert [loaded(checkpoint, d) for d in (A, B, C)] == [b"one", b"two", b"three"]
    for each in (one, other, checkpoint):
        each.close()


def test_a_file_that_cannot_be_locked_is_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: ResultsFile) -> bool:
        raise OSError(37, "No locks available")  # as file systems of other machines may have none

    kept((A, b"one"))
    monkeypatch.setattr(ResultsFile, "try_lock", refuse)
    checkpoint = opened()
    assert loaded(checkpoint, A) == b"one"
    checkpoint.keep(B, [b"two"], many=False)
    assert "No locks available" in checkpoint.problem


def test_a_file_that_cannot_be_read_is_not_written_to(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    kept((A, b"one"))
    with monkeypatch.context() as patch:
        patch.setattr("burla.resume.checkpoint_files._Heads.read", fail)
        checkpoint = opened()
    assert checkpoint.take(A) is None
    checkpoint.keep(B, [b"two"], many=False)
    checkpoint.close()
    after = opened()
    assert [loaded(after, digest) for digest in (A, B)] == [b"one", b"two"]


def test_another_function_has_nothing_and_it_is_told_what_has_changed() -> None:
    kept((A, b"one"))
    other = opened(parts={**PARTS, "x": b"y" * 16, "module m": b"m" * 16})
    assert (other.changed, other.has_any()) == ("module m, x", False)
    other.close()
    assert opened().changed == ""
    assert Checkpoint("n", "g", {"code": b""}).changed == ""  # another function, no change of one


def test_results_that_cannot_be_written_are_not_kept_and_the_reason_is_said(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    checkpoint = opened()
    checkpoint.keep(A, [b"one"], many=False)
    with monkeypatch.context() as patch:
        patch.setattr("burla.resume.checkpoint_files.write", full)
        checkpoint.keep(B, [b"two"], many=False)
    assert "No space left" in checkpoint.problem
    checkpoint.keep(C, [b"three"], many=False)
    checkpoint.close()
    after = opened()
    assert [loaded(after, digest) for digest in (A, B, C)] == [b"one", None, None]


def test_what_is_old_or_too_much_goes_but_not_what_is_used(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "used", "new"):
        checkpoint = opened(name)
        checkpoint.keep(A, [b"x" * 1000], many=False)
        checkpoint.close()
    places = {kept.name: kept.folder for kept in all_kept()}
    for name in ("old", "used"):
        os.utime(places[name] / "function.json", (1, 1))
    used = ResultsFile(next(places["used"].glob("*.results")))
    assert used.try_lock()
    opened("other").close()
    assert {kept.name for kept in all_kept()} == {"used", "new", "other"}
    used.close()
    monkeypatch.setattr(checkpoints, "BYTES_MAX", 1500)
    checkpoint = opened("other")
    checkpoint.keep(B, [b"y" * 2000], many=False)
    assert "no room" in checkpoint.problem
    assert {kept.name for kept in all_kept()} == {"new", "other"}


def test_without_a_home_or_rights_it_is_said_what_is_missing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.parent.mkdir()
    data.write_text("no folder")
    with pytest.raises(OSError, match=r"resume='n' cannot keep results in .*Not a directory"):
        opened()
    monkeypatch.setattr(checkpoints, "data_directory", lambda: None)
    with pytest.raises(BadSetting, match="XDG_DATA_HOME"):
        opened()


def test_the_command_lists_shows_and_drops(data: Path) -> None:
    kept((A, b"one"), (B, b"two"))
    opened("m").close()
    run = CliRunner().invoke
    listed = json.loads(run(commands, ["resume", "list", "--json"]).stdout)["kept"]
    facts = {(one["name"], one["function"], one["results"], one["days_left"]) for one in listed}
    assert facts == {("n", "f", 2, 29), ("m", "f", 0, 29)}
    shown = run(commands, ["resume", "show", "n"]).stdout.splitlines()
    assert shown[0].split() == [
        "NAME",
        "FUNCTION",
        "RESULTS",
        "SIZE",
        "LAST",
        "USED",
        "KEPT",
        "FOR",
    ]
    assert shown[1].split()[:3] == ["n", "f", "2"]
    for words in (["show", "x"], ["drop", "n", "x"]):
        error = run(commands, ["resume", *words]).exception
        assert isinstance(error, NothingKept)
        assert "nothing is kept under 'x'" in str(error)
    assert run(commands, ["resume", "drop"]).exit_code == 2
    assert run(commands, ["resume", "drop", "n"]).output.startswith("removed 0.0 MB")
    assert [kept.name for kept in all_kept()] == ["m"]
    drop("m")
    assert not any(data.iterdir())
