"""What is kept of real jobs: errors by name, durations; and that it outlives the scheduler."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyte
import pytest
from clusters import Cluster, cluster
from terminals import at_terminal, set_size
from waiting import wait_until

from burla import cli, errors, remote_parallel_map
from burla.commands.report_types import schema

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("jobs"), 2) as made:
        yield made


def fails_at_3(x: int) -> int:
    if x == 3:
        raise ValueError(f"no {x}\nand more")
    return x


def sleep_long(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Return what a command says as JSON."""
    assert cli.main(["jobs", *words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    jsonschema.validate(said, schema())
    return said["data"]


def last(capsys: pytest.CaptureFixture[str]) -> Any:
    return told(capsys, "list")["jobs"][0]


def test_a_job_that_fails_is_kept_with_its_error(
    shared: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="no 3"):
        remote_parallel_map(fails_at_3, [3])
    wait_until(lambda: last(capsys)["state"] == "failed", "it is over")
    (error,) = told(capsys, "errors")["errors"]
    assert error.pop("seconds") > 0
    assert error.pop("memory_bytes") > 0
    assert error == {
        "input": 0,
        "type": "ValueError",
        "text": "no 3\nand more",
        "node": "node0",
        "tries": 1,
        "last_words": "",
    }
    assert told(capsys, "why")["why"] == "input 0: ValueError: no 3\nand more"


def test_errors_that_are_values_are_counted_and_calls_by_how_long_they_took(
    shared: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    found = remote_parallel_map(fails_at_3, [1, 2, 3] * 20, return_exceptions=True)
    assert sum(isinstance(one, ValueError) for one in found) == 20
    wait_until(lambda: last(capsys)["state"] == "complete", "it is over")
    shown = told(capsys, "show")
    assert (shown["done"], shown["failed"], shown["inputs"]) == (60, 20, 60)
    assert shown["options"]["return_exceptions"] is True
    assert sum(one["calls"] for one in shown["durations"]) == 60
    assert sum(one["calls"] for one in shown["by_node"]) == 60


def test_a_running_job_is_listed_and_can_be_stopped_from_elsewhere(
    shared: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            remote_parallel_map(sleep_long, [600.0] * 4)
        except errors.JobFailed as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: last(capsys)["state"] == "running", "it runs")
    shown = told(capsys, "show")
    assert (shown["function"], shown["slots"]) == ("sleep_long", 2)
    begun_s = time.monotonic()
    (stopped,) = told(capsys, "cancel", shown["job"][:12])
    thread.join(20)
    assert time.monotonic() < begun_s + 20
    assert stopped["job"] == shown["job"]
    assert "was cancelled by" in str(caught[0])
    assert told(capsys, "show", shown["job"])["state"] == "cancelled"


def test_what_is_kept_outlives_the_scheduler(
    shared: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = told(capsys, "list")
    assert before["total"] >= 3
    file = shared.directory / "s.jobs.sqlite3"  # made with the first that is written
    copy = tmp_path / "s.jobs.sqlite3"

    def is_filed() -> bool:
        from burla.scheduler.shell.record_file import RecordFile

        kept = RecordFile(file).read()
        return len(kept) == int(before["total"])

    wait_until(is_filed, "all is in the file")  # which a kill leaves as it is
    for suffix in ("", "-wal"):
        source = file.with_name(f"{file.name}{suffix}")
        copy.with_name(f"{copy.name}{suffix}").write_bytes(source.read_bytes())
    line = [sys.executable, "-m", "burla.scheduler", "--bind", f"ipc://{tmp_path}/s"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as again:
        try:
            assert again.stdout is not None
            address = again.stdout.readline().strip()
            now = told(capsys, "list", "--cluster", address)
        finally:
            again.terminate()
    assert [job["job"] for job in now["jobs"]] == [job["job"] for job in before["jobs"]]
    shown = told(capsys, "errors", "--cluster", os.environ["BURLA_CLUSTER"])
    assert shown["job"] == now["jobs"][0]["job"]


PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_the_page_about_jobs_works(
    shared: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    remote_parallel_map(fails_at_3, [1, 2])
    job = last(capsys)["job"]
    text = PAGE.read_text("utf-8")
    commands = text.split("```bash\n")[1].split("```")[0].splitlines()
    assert len(commands) == 8
    for line in commands:
        words = line.partition("#")[0].replace("3f2a", job).split()
        words += ["--once"] * (words[1] == "top")
        assert cli.main(words[1:]) == (words[2] in ("cancel", "detach")), line  # for it is over
    shows, lists = (part.split("```")[0] for part in text.split("```python\n")[1:])
    bin_ = Path(sys.executable).parent
    said = subprocess.run(
        [sys.executable, "-c", lists],
        env=os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith(f"{job[:8]} fails_at_3 complete 2 2\n")
    exec(shows, {})
    assert capsys.readouterr().out.endswith("\nover 3 3 0 None\n")


AT_TERMINAL = """
import sys, threading, time
from burla import remote_parallel_map

def work(x):
    time.sleep(0.02)
    if x % 10 == 0:
        print("printed", x)
    if x == 95:
        raise ValueError("ninety-five")
    return x

seen = []
try:
    for result in remote_parallel_map(work, range(100), generator=True, progress=seen.append):
        if result % 25 == 0:
            print("mine", result)
except ValueError as error:
    print("error:", error)
assert seen and not seen[-1].is_over and seen[-1].total == 100, seen
print("stop me")
try:
    remote_parallel_map(time.sleep, [600] * 4)
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_terminal_stays_whole(shared: Cluster, tmp_path: Path) -> None:
    """Prints of calls and of the caller, a resize, an error and Ctrl-C, at 40 columns."""
    script = tmp_path / "script.py"
    script.write_text(AT_TERMINAL)
    screen = pyte.HistoryScreen(80, 50)
    stream = pyte.ByteStream(screen)
    env = os.environ | {"TERM": "xterm"}
    # without a buffer each `print` of the script would come in pieces, with others between them
    env.pop("PYTHONUNBUFFERED", None)
    lived = 0
    line = [sys.executable, str(script)]
    size = {"columns": screen.columns, "lines": screen.lines}
    with at_terminal(line, env, **size) as (process, ours):
        is_small = is_stopped = False
        while data := read(ours):
            stream.feed(data)
            lived += data.count(b"work: ") + data.count(b"sleep: ")
            if b"printed 10" in data and not is_small:
                is_small = True
                screen.resize(columns=40)
                set_size(ours, 40, 50)
            if b"sleep: " in data and not is_stopped:
                is_stopped = True
                os.write(ours, b"\x03")
        assert process.wait(20) == 0
    assert lived > 1, "it was shown"
    lines = [line.rstrip() for line in screen.display if line.strip()]
    printed = [line for line in lines if line.startswith("printed")]
    assert sorted(printed) == sorted(f"printed {x}" for x in range(0, 100, 10))
    mine = [line for line in lines if line.startswith("mine")]
    assert sorted(mine) == sorted(f"mine {x}" for x in (0, 25, 50, 75))
    rest = [line for line in lines if line not in (*printed, *mine)]
    assert rest in (
        ["error: ninety-five", "stop me", "stopped"],
        ["error: ninety-five", "stop me", "^Cstopped"],
    )


def read(ours: int) -> bytes:
    try:
        return os.read(ours, 65536)
    except OSError:  # the other end is closed
        return b""


def says(x: int) -> int:
    import subprocess

    print("begin", x)
    subprocess.run(["echo", f"child {x}"], check=True)
    time.sleep(0.02)
    print("end", x, file=sys.stderr)
    return x


def logged(capsys: pytest.CaptureFixture[str], *words: str) -> list[Any]:
    """Return the lines of a log as JSON."""
    assert cli.main(["jobs", "logs", *words, "--json"]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for report in reports:
        jsonschema.validate(report, schema())
    return [report["data"] for report in reports]


def test_what_was_printed_is_kept_with_the_input_that_printed_it(
    shared: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    remote_parallel_map(says, range(12))
    capsys.readouterr()
    wait_until(lambda: last(capsys)["state"] == "complete", "it is over")
    lines = logged(capsys)
    assert len(lines) == 36
    said = [(line["text"].split()[-1], str(line["input"]), str(line["last"])) for line in lines]
    assert [one for one in said if len({*one}) > 1] == []
    lines = logged(capsys, "--input", "7")
    assert [line["text"] for line in lines] == ["begin 7", "child 7", "end 7"]
    assert cli.main(["jobs", "logs", "--input", "7", "--tail", "1"]) == 0
    assert capsys.readouterr().out == "end 7\n"


def test_who_follows_hears_all_of_it_once(
    shared: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = threading.Event()

    def told(progress: Any) -> None:
        begun.set()

    count = 60
    thread = threading.Thread(target=lambda: remote_parallel_map(says, range(count), progress=told))
    thread.start()
    assert begun.wait(20)
    assert cli.main(["jobs", "logs", "--follow"]) == 0
    thread.join(20)
    lines = capsys.readouterr().out.splitlines()
    mine = [f"{word} {x}" for x in range(count) for word in ("begin", "child", "end")]
    # what goes to the stdout of the caller is here as well
    assert sorted(lines) == sorted([*mine, *(line for line in mine if "end" not in line)])


ANY_PRINTS = """
import io, sys, time
from burla import remote_parallel_map

def work(x):
    kind = x % 8
    if kind == 0:
        print("half", end="", flush=True)
        time.sleep(0.3)
        print(" and half", x)
    elif kind == 1:
        print("over\\rwritten", x)
    elif kind == 2:
        print("\\x1b[31mred\\x1b[0m and \\x1b[1mbold\\x1b[0m", x)
    elif kind == 3:
        print("\\u5168\\u89d2" * 25, x)
    elif kind == 4:
        print("long " * 50, x)
    elif kind == 5:
        import tqdm
        for _ in tqdm.tqdm(range(4), "bar", ncols=30, mininterval=0, bar_format="{desc}{bar}{n}"):
            time.sleep(0.02)
    elif kind == 6:
        from rich.console import Console
        from rich.progress import track
        console = Console(force_terminal=True, width=30)
        console.print(f"[green]rich[/green] {x}", style="on blue")
        console.rule("rule")
    else:
        from joblib import Parallel, delayed
        print(Parallel(2, "threading", verbose=0)(delayed(abs)(-y) for y in range(3)), x)
        print("err", x, file=sys.stderr)
    time.sleep(0.06)
    return x

assert len(remote_parallel_map(work, range(16), max_parallelism=1)) == 16
print("mine")
"""


def shown_of(recorded: bytes, columns: int) -> list[str]:
    """Return what a terminal shows at last of what was written to it."""
    screen = pyte.Screen(columns, 300)
    pyte.ByteStream(screen).feed(recorded)
    return [line.rstrip() for line in screen.display]


def recorded_of(script: Path, progress: str, columns: int) -> bytes:
    """Return all bytes that a script writes to a terminal."""
    env = os.environ | {"TERM": "xterm", "BURLA_PROGRESS": progress}
    recorded = b""
    with at_terminal([sys.executable, str(script)], env, columns=columns) as (process, ours):
        while data := read(ours):
            recorded += data
        assert process.wait(20) == 0, recorded
    return recorded


@pytest.fixture(scope="module")
def silent(shared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return what the script writes where nothing is shown but what is printed."""
    remote_parallel_map(abs, [-1])  # its node is there
    script = tmp_path_factory.mktemp("silent") / "script.py"
    script.write_text(ANY_PRINTS)
    return recorded_of(script, "off", 80)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_torn_whatever_calls_print(
    shared: Cluster, tmp_path: Path, columns: int, silent: bytes
) -> None:
    """A terminal shows at last what it would without the line: no more, and nothing else."""
    script = tmp_path / "script.py"
    script.write_text(ANY_PRINTS)
    live = recorded_of(script, "live", columns)
    assert live.count(b"work: ") > 5, "it was shown"
    lines = [line for line in shown_of(live, columns) if not line.startswith("burla: work: 16")]
    wanted = shown_of(silent, columns)
    assert lines == wanted[: len(lines)], "but for a summary, of what took long"
