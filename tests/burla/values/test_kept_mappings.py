"""What a worker keeps mapped of the files of inputs."""

import fcntl
import gc
import os
from pathlib import Path

import pytest
from waiting import wait_until

from burla.values.kept_mappings import IDLE_MAX, KeptMappings
from burla.values.raw_memory import Window

SIZE = 100_000


@pytest.fixture
def kept() -> KeptMappings:
    made = KeptMappings()
    made.allow(20 * SIZE)
    return made


def make(path: Path, content: bytes = b"a") -> str:
    path.write_bytes(content * SIZE)
    return str(path)


def lent(kept: KeptMappings, path: str, size: int = SIZE) -> memoryview:
    """Return what a worker has of a file."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = kept.lend(file, path, size)
        assert found is not None
        return found
    finally:
        os.close(file)


def write_anew(path: str, content: bytes) -> bool:
    """Return whether the caller could write a file anew."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Window(file, SIZE).write([content * SIZE])
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def mappings_of(path: str) -> list[str]:
    """Return the addresses at which a file is mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[0] for line in lines if line.endswith(path)]


def test_the_next_input_is_seen_in_the_same_mapping(kept: KeptMappings, tmp_path: Path) -> None:
    path = make(tmp_path / "one")
    first = lent(kept, path)
    assert bytes(first) == b"a" * SIZE
    assert not write_anew(path, b"b")
    del first
    (place,) = mappings_of(path)
    for content in (b"b", b"c", b"d"):
        assert write_anew(path, content)
        assert mappings_of(path) == [place]
        assert bytes(lent(kept, path)) == content * SIZE


def test_what_was_written_to_is_never_seen_again(kept: KeptMappings, tmp_path: Path) -> None:
    path = make(tmp_path / "one")
    value = lent(kept, path)
    value[50_000] = 1
    del value
    assert mappings_of(path) == []
    assert bytes(lent(kept, path)) == b"a" * SIZE


def test_what_was_looked_at_before_is_looked_at_again_only_after_a_fault(
    kept: KeptMappings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    faults = iter([1, 1, 2, 3])  # when it is lent and when it is given back, the first time not

    def ask(address: int, size: int) -> bool:
        asked.append(size)
        return True

    monkeypatch.setattr("burla.values.kept_mappings.is_as_in_file", ask)
    monkeypatch.setattr("burla.values.kept_mappings._faults", lambda: next(faults))
    path = make(tmp_path / "one")
    for expected in (1, 1, 2):
        lent(kept, path)
        assert len(asked) == expected
        assert len(mappings_of(path)) == 1
    assert list(faults) == []


def test_to_write_to_a_page_for_the_first_time_is_a_fault(
    kept: KeptMappings, tmp_path: Path
) -> None:
    path = make(tmp_path / "one")
    for at in (0, SIZE - 1, 50_000):
        assert bytes(lent(kept, path)) == b"a" * SIZE  # all its pages are there
        value = lent(kept, path)
        value[at] = 1
        del value
        assert mappings_of(path) == []


def test_a_part_that_is_still_referred_to_keeps_the_file_as_it_is(
    kept: KeptMappings, tmp_path: Path
) -> None:
    path = make(tmp_path / "one")
    part = lent(kept, path)[5:10]
    assert not write_anew(path, b"b")
    assert bytes(part) == b"aaaaa"
    del part
    assert write_anew(path, b"b")


def test_two_values_in_one_file_do_not_see_each_other(kept: KeptMappings, tmp_path: Path) -> None:
    path = make(tmp_path / "one")
    one, two = lent(kept, path), lent(kept, path)
    one[0] = 1
    assert two[0] == ord("a")
    del one, two
    assert len(mappings_of(path)) == 1
    assert lent(kept, path)[0] == ord("a")


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_ends_in_a_cycle_has_the_value_until_nothing_refers_to_it(
    kept: KeptMappings, tmp_path: Path, is_kept: bool
) -> None:
    """The collector calls what waits for the end of a cycle before any `__del__` in it."""
    path, saved = make(tmp_path / "one"), list[memoryview]()
    seen = list[tuple[int, bytes, bool]]()

    class Ends:
        def __init__(self) -> None:
            self.value, self.itself = lent(kept, path), self

        def __del__(self) -> None:
            seen.append((kept.lent, bytes(self.value[:1]), write_anew(path, b"b")))
            if is_kept:
                saved.append(self.value)
            self.value[0] = ord("x")

    Ends()
    gc.collect()
    assert seen == [(1, b"a", False)]
    assert kept.lent == len(saved)
    if saved:
        assert not write_anew(path, b"b")
        other = lent(kept, path)
        assert (saved[0][0], other[0]) == (ord("x"), ord("a"))
        del other
    saved.clear()
    gc.collect()
    assert kept.lent == 0
    assert write_anew(path, b"c")
    assert bytes(lent(kept, path)) == b"c" * SIZE


def test_a_child_that_was_forked_meanwhile_keeps_the_value(
    kept: KeptMappings, tmp_path: Path
) -> None:
    path = make(tmp_path / "one")
    value = lent(kept, path)
    (go, told), (says, saying) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(told)
        os.read(go, 1)
        os.write(saying, bytes(value[:1]))
        os._exit(0)
    del value
    assert not write_anew(path, b"b")
    os.close(told)
    assert os.read(says, 1) == b"a"
    os.waitpid(child, 0)
    for file in (go, says, saying):
        os.close(file)
    wait_until(lambda: write_anew(path, b"b"), "the lock of the child goes with it")


def test_how_much_is_kept_is_bounded(kept: KeptMappings, tmp_path: Path) -> None:
    paths = [make(tmp_path / f"{number}") for number in range(IDLE_MAX + 4)]
    for path in paths:
        lent(kept, path)
    assert [len(mappings_of(path)) for path in paths] == [0] * 4 + [1] * IDLE_MAX
    kept.allow(3 * SIZE)
    assert [len(mappings_of(path)) for path in paths] == [0] * (IDLE_MAX + 1) + [1] * 3
    kept.allow(0)
    assert not any(map(mappings_of, paths))


def test_what_is_bigger_than_all_or_shorter_than_told_is_not_kept(
    kept: KeptMappings, tmp_path: Path
) -> None:
    path = make(tmp_path / "one")
    with open(path, "rb") as file:
        assert kept.lend(file.fileno(), path, SIZE + 1) is None
        kept.allow(SIZE - 1)
        assert kept.lend(file.fileno(), path, 10) is None


def test_another_file_at_the_place_is_refused(kept: KeptMappings, tmp_path: Path) -> None:
    path, other = make(tmp_path / "one"), make(tmp_path / "two", b"b")
    with open(path, "rb") as file:
        os.rename(other, path)
        with pytest.raises(FileNotFoundError):
            kept.lend(file.fileno(), path, SIZE)


def test_no_descriptor_is_kept(kept: KeptMappings, tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    held = [lent(kept, make(tmp_path / f"{number}")) for number in range(30)]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert kept.lent == 30
    held.clear()
    assert kept.lent == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors
