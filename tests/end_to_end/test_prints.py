"""What calls print appears here: all of it, whole, once, in time, on the same stream."""

import io
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zmq
from scripts import run, succeed

from burla import WorkerDied, remote_parallel_map
from burla.nodelet.core.streams import LINE_WAIT_S
from burla.shell import io_thread, output_channel
from burla.transport.sockets import take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def test_stdout_holds_what_was_printed_and_nothing_else(tmp_path: Path) -> None:
    source = """
    import ctypes, os, subprocess, sys
    from burla import remote_parallel_map

    def speak(x):
        print("print")
        sys.stdout.write("write\\n")
        os.write(1, b"descriptor\\n")
        ctypes.CDLL(None).printf(b"C code\\n")
        ctypes.CDLL(None).fflush(None)
        subprocess.run(["echo", "subprocess"])
        print("error", file=sys.stderr)
        os.write(2, b"error descriptor\\n")
        subprocess.run("echo error subprocess >&2", shell=True)
        sys.stdout.write("no newline")
        sys.stderr.write("error without newline")

    remote_parallel_map(speak, [0])
    print("|returned")
    """
    done = run(source, tmp_path)
    assert done.returncode == 0, done.stderr
    words = ["print", "write", "descriptor", "C code", "subprocess", "no newline|returned"]
    assert done.stdout.splitlines() == words
    assert done.stderr.splitlines() == [
        "error",
        "error descriptor",
        "error subprocess",
        "error without newline",
    ]


def test_c_code_that_does_not_flush_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    def speak(x: int) -> None:
        import ctypes

        ctypes.CDLL(None).printf(b"unflushed")

    remote_parallel_map(speak, [0])
    assert capsys.readouterr().out == "unflushed"


class Opener(io.StringIO):
    """A stdout that creates a file as soon as a word is written to it."""

    def __init__(self, words: dict[str, Path]) -> None:
        super().__init__()
        self.words = words

    def write(self, text: str) -> int:
        count = super().write(text)
        for word, path in self.words.items():
            if word in self.getvalue():
                path.touch()
        return count


@pytest.mark.parametrize("how", ["print", "no newline", "descriptor", "C", "subprocess"])
def test_a_print_shows_while_the_call_still_runs(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"

    def speak_and_wait(path: str) -> bool:
        import ctypes

        if how == "print":
            print("hello")
        elif how == "no newline":
            print("hello", end="", flush=True)
        elif how == "descriptor":
            os.write(1, b"hello")
        elif how == "C":
            ctypes.CDLL(None).puts(b"hello")
        else:
            subprocess.run(["echo", "hello"], check=True)
        until = time.monotonic() + 20
        while not os.path.exists(path):
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    monkeypatch.setattr(sys, "stdout", Opener({"hello": seen}))
    assert remote_parallel_map(speak_and_wait, [str(seen)]) == [True]


def test_it_goes_to_stdout_as_it_is_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    remote_parallel_map(lambda x: print("one", x), [1])
    monkeypatch.setattr(sys, "stdout", second)
    remote_parallel_map(lambda x: print("two", x), [2])
    assert (first.getvalue(), second.getvalue()) == ("one 1\n", "two 2\n")


def test_prints_of_a_generator_are_shown_before_it_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    list(remote_parallel_map(lambda x: print(x), range(100), generator=True))
    assert sorted(map(int, capsys.readouterr().out.split())) == list(range(100))


def test_last_words_before_a_crash_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def die(x: int) -> None:
        import ctypes

        print("last words")
        print("without newline", end="")
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)
        os._exit(1)

    with pytest.raises(WorkerDied):
        remote_parallel_map(die, [0])
    shown = capsys.readouterr().out
    assert shown.count("last words\nwithout newline") == 3


def test_what_was_printed_before_an_error_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(x: int) -> None:
        print("before")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # the text does not matter
        remote_parallel_map(fail, [0])
    assert capsys.readouterr().out == "before\n"


def test_a_hundred_thousand_lines_come_exactly_once(capsys: pytest.CaptureFixture[str]) -> None:
    remote_parallel_map(lambda x: print(f"line {x}"), range(100_000))
    lines = Counter(capsys.readouterr().out.splitlines())
    assert len(lines) == 100_000
    assert lines == Counter(f"line {x}" for x in range(100_000))


def test_long_lines_of_two_workers_are_neither_torn_nor_merged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def speak(x: int) -> None:
        print("äöü€"[x % 4] * (20_000 + x))

    remote_parallel_map(speak, range(100))
    lines = sorted(capsys.readouterr().out.splitlines(), key=len)
    assert lines == ["äöü€"[x % 4] * (20_000 + x) for x in range(100)]


def test_lines_written_in_small_parts_are_neither_torn_nor_merged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def speak(x: int) -> float:
        begun_s = time.monotonic()
        for part in f"{x}: the quick brown fox\n":
            sys.stdout.write(part)
            sys.stdout.flush()
        return time.monotonic() - begun_s

    # The rest of a line is waited for so long: on a busy machine some may take longer.
    while max(remote_parallel_map(speak, range(500))) >= LINE_WAIT_S:
        capsys.readouterr()
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"{x}: the quick brown fox" for x in range(500))


def test_much_output_of_one_call_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    def speak(x: int) -> None:
        for line in range(200_000):
            print(f"{line:099}")

    remote_parallel_map(speak, [0])
    lines = capsys.readouterr().out.split()
    assert lines == [f"{line:099}" for line in range(200_000)]


def test_output_is_in_the_order_in_which_a_call_wrote_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def speak(x: int) -> None:
        for line in range(50):
            print(line)
            subprocess.run(["echo", str(line)], check=True)

    remote_parallel_map(speak, [0])
    assert capsys.readouterr().out.split() == [str(n) for line in range(50) for n in (line, line)]


def test_bytes_that_are_no_text_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    remote_parallel_map(lambda x: os.write(1, b"\xff\xfe bytes\n"), [0])
    assert capsys.readouterr().out == "\ufffd\ufffd bytes\n"


def test_lost_frames_of_the_channel_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped: list[Any] = []
    asked: list[Any] = []

    def take_some(socket: Any) -> Any:
        for frames in take(socket):
            if socket.type == zmq.SUB and len(dropped) % 3 < 2:
                dropped.append(frames)  # two in three are lost
                continue
            if socket.type == zmq.SUB:
                dropped.append(None)
            elif b"JobOutput" in frames[0]:
                asked.append(frames)
            yield frames

    monkeypatch.setattr(io_thread, "take_in_place", take_some)
    monkeypatch.setattr(output_channel, "take", take_some)

    def speak(x: int) -> None:
        print("line", x)
        time.sleep(0.002)

    remote_parallel_map(speak, range(500))
    lines = Counter(capsys.readouterr().out.splitlines())
    assert lines == Counter(f"line {x}" for x in range(500))
    assert any(dropped), "nothing was dropped"
    assert asked, "the gaps were repaired some other way"


def test_input_in_a_function_gets_end_of_file(capsys: pytest.CaptureFixture[str]) -> None:
    def ask(x: int) -> str:
        try:
            return input("name? ")
        except EOFError:
            return "end of file"

    assert remote_parallel_map(ask, [0]) == ["end of file"]
    assert remote_parallel_map(lambda x: sys.stdin.read() + str(os.read(0, 9)), [0]) == ["b''"]
    assert capsys.readouterr().out == "name? "


def test_a_function_that_closes_or_replaces_its_stdout_harms_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def close(x: int) -> int:
        if x == 0:
            sys.stdout.close()
        elif x == 1:
            sys.stdout = None  # as a daemon does
        return x

    assert remote_parallel_map(close, range(4)) == [0, 1, 2, 3]
    remote_parallel_map(lambda x: print("fine"), [0])
    assert capsys.readouterr().out == "fine\n"


def test_threads_get_their_own_prints_only() -> None:
    """Two calls at once, and each thread's stdout is its own, as in a web server."""

    class PerThread(io.TextIOBase):
        def __init__(self) -> None:
            self.written: list[str] = []

        def write(self, text: str) -> int:
            self.written.append(text)
            return len(text)

    out = {name: PerThread() for name in "ab"}
    gate = threading.Lock()

    def call(name: str) -> None:
        with gate:  # sys.stdout is one per process: swap, start, swap back
            before, sys.stdout = sys.stdout, out[name]
            results = remote_parallel_map(lambda x: print(name, x), range(200), generator=True)
            sys.stdout = before
        list(results)

    threads = [threading.Thread(target=call, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        lines = sorted("".join(out[name].written).splitlines())
        assert lines == sorted(f"{name} {x}" for x in range(200))


def test_a_closed_stdout_of_the_script_is_as_for_print(tmp_path: Path) -> None:
    source = """
    import sys
    from burla import remote_parallel_map
    results = remote_parallel_map(lambda x: print("nobody sees it") or x, [1, 2])
    assert results == [1, 2]
    open(sys.argv[0] + ".done", "w").close()
    """
    done = run(source, tmp_path, shell='exec "$@" >&-')
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "script.py.done").exists()


def test_the_seed_example(tmp_path: Path) -> None:
    source = """
from burla import remote_parallel_map

my_arguments = [1, 2, 3, 4]

def my_function(my_argument: int):
    print(f"Running remote computer #{my_argument} in the cloud!")
    return my_argument * 2

results = remote_parallel_map(my_function, my_arguments)

print(f"return values: {list(results)}")
"""
    for private in (False, True):
        *printed, last = succeed(source, tmp_path, private=private).splitlines()
        assert sorted(printed) == [
            f"Running remote computer #{x} in the cloud!" for x in (1, 2, 3, 4)
        ]
        assert last == "return values: [2, 4, 6, 8]"
