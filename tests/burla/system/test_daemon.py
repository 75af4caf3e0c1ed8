"""How a daemon ends, shown on a tiny one that says when it runs and when it cleans up."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from waiting import wait_gone

from burla.system.owner import Owner
from burla.system.procfs import process_started

pytestmark = pytest.mark.slow

TINY = """
import asyncio, os, signal, sys
from burla.system import daemon, preparing
from burla.system.owner import Owner

async def main():
    print("runs", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)

{before}
preparing.prepare("tiny")
sys.exit(daemon.run(main, Owner.parse(sys.argv[1]) if sys.argv[1:] else None))
"""


@contextlib.contextmanager
def tiny(
    *arguments: str, before: str = "", code: str = TINY, shell: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    line = [*shell, sys.executable, "-c", code.replace("{before}", before), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has been waited for


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_a_signal_ends_it_cleanly(number: signal.Signals, code: int) -> None:
    with tiny() as process:
        assert first_line(process) == "runs"
        process.send_signal(number)
        out, err = process.communicate()
    assert out == "cleaned up\n"
    assert f"ending: {number.name}" in err
    assert process.returncode == code


def test_a_second_signal_does_not_interrupt_the_cleaning_up() -> None:
    cleaning = """
        print("cleans up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
"""
    code = TINY.replace("    finally:\n", f"    finally:{cleaning}")
    with tiny(code=code) as process:
        assert first_line(process) == "runs"
        process.terminate()
        assert first_line(process) == "cleans up"
        process.terminate()
        process.send_signal(signal.SIGINT)
        assert process.communicate("go on\n")[0] == "cleaned up\n"
    assert process.returncode == 0


def test_blocked_signals_are_taken_all_the_same() -> None:
    before = "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())"
    with tiny(before=before) as process:
        assert first_line(process) == "runs"
        process.terminate()
        assert process.communicate()[0] == "cleaned up\n"


def test_under_nohup_a_hangup_is_nothing() -> None:
    with tiny(before="signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        assert first_line(process) == "runs"
        process.send_signal(signal.SIGHUP)
        process.terminate()
        out, err = process.communicate()
    assert out == "cleaned up\n"
    assert "ending: SIGTERM" in err


def test_an_error_of_main_comes_out() -> None:
    code = TINY.replace('print("runs", flush=True)', "raise OSError('no disk')")
    with tiny(code=code) as process:
        assert "OSError: no disk" in process.communicate()[1]
    assert process.returncode == 1


def test_a_main_that_does_not_end_is_cut_off_and_shows_where_it_was() -> None:
    code = TINY.replace("await asyncio.sleep(0.05)", "import time; time.sleep(60)")
    with tiny(code=code, before="daemon.END_S = 0.3") as process:
        assert first_line(process) == "runs"
        process.terminate()
        assert "in main" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_it_ends_when_its_owner_is_killed(pidfd: bool, exact: bool, tmp_path: Path) -> None:
    directory = tmp_path / "private"
    directory.mkdir()
    (directory / "log").write_text("x")
    before = "" if pidfd else "del os.pidfd_open; daemon.OWNER_POLL_S = 0.02"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        started = process_started(owner.pid) if exact else None
        with tiny(str(Owner(owner.pid, started, str(directory))), before=before) as process:
            assert first_line(process) == "runs"
            owner.kill()
            owner.wait()
            out, err = process.communicate()
    assert out == "cleaned up\n"
    assert "its owner has ended" in err
    assert process.returncode == 0
    assert not directory.exists()


def test_it_ends_at_once_when_its_owner_ended_before_or_is_another_process_of_that_id() -> None:
    started = process_started(os.getpid())
    assert started is not None
    for owner in (Owner(os.getpid(), started - 1), Owner(2**22 + 1)):
        with tiny(str(owner)) as process:
            assert process.wait(20) == 0


def test_it_leaves_the_directory_to_an_owner_that_lives(tmp_path: Path) -> None:
    with tiny(f"{os.getpid()}::{tmp_path}") as process:
        assert first_line(process) == "runs"
        process.terminate()
        process.communicate()
    assert tmp_path.exists()


def test_it_does_not_follow_the_thread_that_started_it() -> None:
    script = textwrap.dedent(
        """
        import os, subprocess, sys, threading
        def start():
            line = [sys.executable, "-c", sys.argv[1], str(os.getpid())]
            daemon = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
            print(daemon.pid, daemon.stdout.readline(), end="", flush=True)
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        print("joined", flush=True)
        input()
        """
    )
    line = [sys.executable, "-c", script, TINY.replace("{before}", "")]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as owner:
        pid, word = first_line(owner).split()
        daemon = psutil.Process(int(pid))
        assert (word, first_line(owner)) == ("runs", "joined")
        with pytest.raises(psutil.TimeoutExpired):
            daemon.wait(0.2)
        owner.kill()
    wait_gone([daemon])


def test_closed_standard_streams_are_not_taken_by_sockets() -> None:
    code = TINY.replace(
        'print("runs", flush=True)', "os.write(7, os.readlink('/proc/self/fd/2').encode())"
    )
    reading, writing = os.pipe()
    line = [sys.executable, "-c", code.replace("{before}", "")]
    shell = ["bash", "-c", f'exec 7>&{writing} 0<&- 1>&- 2>&-; exec "$@"', "bash", *line]
    process = subprocess.Popen(shell, pass_fds=[writing])
    os.close(writing)
    try:
        assert os.read(reading, 100) == b"/dev/null"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_it_takes_the_descriptors_it_may_have() -> None:
    code = TINY.replace(
        'print("runs", flush=True)',
        "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)",
    )
    shell = ["bash", "-c", 'ulimit -Sn 128; ulimit -Hn 300; exec "$@"', "bash"]
    with tiny(code=code, shell=shell) as process:
        assert first_line(process) == "300 300"
        process.terminate()
        process.communicate()


def test_what_is_imported_is_not_looked_at_by_each_garbage_collection() -> None:
    code = TINY.replace('print("runs"', "import gc; print(gc.get_freeze_count() > 1000")
    with tiny(code=code) as process:
        assert first_line(process) == "True"
        process.terminate()
        process.communicate()
