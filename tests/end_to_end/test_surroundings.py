"""What stands around a call is there in the function: variables, logging, warnings, limits."""

import logging
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from clusters import cluster
from scripts import run, succeed
from waiting import wait_until

from burla import remote_parallel_map

pytestmark = [pytest.mark.slow]
shared = pytest.mark.usefixtures("shared")

log = logging.getLogger("burla_test.end_to_end")


class Mine(UserWarning):
    pass


def test_the_environment_of_a_private_cluster_is_that_of_the_call(tmp_path: Path) -> None:
    source = """
    import os, subprocess, time
    from burla import remote_parallel_map as rpm

    def look(x):
        shown = subprocess.check_output("echo $TOKEN", shell=True, text=True).strip()
        mine = {k: v for k, v in os.environ.items() if not k.startswith("BURLA_")}
        return mine, shown, time.tzname[0]

    os.environ["FIRST"] = "1"
    rpm(look, [1])
    del os.environ["FIRST"]
    os.environ.update(TOKEN="set later", TZ="Asia/Tokyo")
    ((mine, shown, zone),) = rpm(look, [1], env={"NAMED": "n", "HOSTTYPE": None})
    threads = [k for k in mine if k.endswith("_NUM_THREADS")]
    expected = dict(os.environ, NAMED="n")
    for name in [*threads, "HOSTTYPE", *(k for k in expected if k.startswith("BURLA_"))]:
        expected.pop(name, None)
    for name in threads:
        del mine[name]
    assert mine == expected, (mine, expected)
    print(shown, zone)
    """
    assert succeed(source, tmp_path, private=True) == "set later JST\n"


def test_nothing_of_a_call_is_left_for_the_next_one(tmp_path: Path) -> None:
    source = """
    import decimal, logging, os, sys, warnings
    from burla import remote_parallel_map as rpm
    os.environ["GONE"] = "here"

    def leave(x):
        seen = os.environ.get("LEFT"), os.environ.get("GONE"), decimal.getcontext().prec
        seen += sys.getrecursionlimit(), logging.root.level, len(logging.root.handlers)
        os.environ["LEFT"] = "1"
        del os.environ["GONE"]
        decimal.getcontext().prec = 3
        sys.setrecursionlimit(3000)
        logging.basicConfig(level=10)
        warnings.simplefilter("error")
        return seen, os.getpid()

    seen = [rpm(leave, [1])[0] for _ in range(12)]
    print({one for one, _ in seen}, len({pid for _, pid in seen}) < 12)
    """
    expected = "{(None, 'here', 28, 1000, 30, 0)} True\n"
    assert succeed(source, tmp_path, private=True) == expected


def test_elsewhere_changes_go_along_and_nobody_else_sees_them(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path_factory.mktemp("c")
    with cluster(directory, 1, bind="tcp://127.0.0.1:0") as made:
        monkeypatch.setenv("TOKEN", "s3cr3t")
        monkeypatch.setenv("PATH", "/of/the/caller:" + os.environ["PATH"])

        def look(x: int) -> tuple[str | None, ...]:
            return tuple(map(os.environ.get, ("TOKEN", "NAMED", "TERM_OF_ELSEWHERE", "PATH")))

        results = remote_parallel_map(look, [1, 2], env={"NAMED": "s3cr3t too"})
        for process in (made.scheduler, *made.nodelets):
            process.send_signal(signal.SIGUSR2)
        for token, named, term, path in results:
            assert (token, named, term) == ("s3cr3t", "s3cr3t too", None)
            assert path is not None
            assert not path.startswith("/of/the/caller")
        wait_until(lambda: len(list(directory.rglob("*-state.json"))) == 2, "two dumps")
        for file in directory.rglob("*"):
            assert not file.is_file() or b"s3cr3t" not in file.read_bytes(), file


@shared
def test_records_come_to_the_handlers_of_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    class Request:
        def __str__(self) -> str:
            return "GET /"

    def work(x: int) -> None:
        log.debug("not wanted")
        log.info("input %d", x, extra={"request": Request()})
        try:
            raise ValueError("inside")
        except ValueError:
            log.exception("failed: %s", Request())

    with caplog.at_level(logging.INFO, log.name):
        remote_parallel_map(work, [1, 2])
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == ["failed: GET /", "failed: GET /", "input 1", "input 2"]
    first = next(record for record in caplog.records if record.levelno == logging.INFO)
    assert (first.name, first.msg, first.funcName) == (log.name, "input %d", "work")
    assert vars(first)["request"] == "GET /"
    assert first.process != os.getpid()
    failed = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert failed.exc_text is not None
    assert failed.exc_text.endswith("ValueError: inside")
    assert "work" in failed.exc_text


@pytest.mark.parametrize("private", [False, True])
def test_format_level_files_and_order(private: bool, tmp_path: Path, request: Any) -> None:
    if not private:
        request.getfixturevalue("shared")
    source = """
    import logging, sys
    from burla import remote_parallel_map as rpm
    logging.basicConfig(level=logging.INFO, format="%(levelname)s-%(name)s-%(message)s")
    own = logging.getLogger("own")
    own.addHandler(logging.FileHandler("own.log"))
    own.propagate = False

    def work(x):
        print("before", file=sys.stderr)
        logging.info("here")
        print("half ", end="", file=sys.stderr)
        logging.debug("not here")
        logging.getLogger("a.b").warning("there")
        print("line", file=sys.stderr)
        own.info("to the file")

    rpm(work, [1])
    logging.disable(logging.CRITICAL)
    rpm(lambda x: logging.error("disabled"), [1])
    """
    done = run(source, tmp_path, private=private, cwd=tmp_path)
    said = "before\nINFO-root-here\nhalf WARNING-a.b-there\nline\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    assert (tmp_path / "own.log").read_text() == "to the file\n"


def test_records_keep_their_place_where_stdout_and_stderr_are_one(tmp_path: Path) -> None:
    source = """
    import logging, sys
    from burla import remote_parallel_map as rpm
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def work(x):
        print("out")
        logging.info("record")
        print("err", file=sys.stderr)

    rpm(work, [1])
    """
    done = run(source, tmp_path, private=True, shell='exec "$@" 2>&1')
    assert done.stdout == "out\nrecord\nerr\n"


@shared
def test_warnings_are_those_of_the_caller() -> None:
    def warn(x: int) -> int:
        warnings.warn("mine", Mine, stacklevel=1)
        warnings.warn("future", FutureWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", FutureWarning)
        assert remote_parallel_map(warn, range(20)) == list(range(20))
    assert [(str(one.message), one.category.__name__) for one in seen] == [("mine", "Mine")]
    assert Path(seen[0].filename).name == Path(__file__).name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Mine)
        with pytest.raises(UserWarning, match="mine"):
            remote_parallel_map(warn, [1])


def test_imports_that_were_quiet_here_are_quiet_there(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\n")
    source = """
    import warnings, old
    from burla import remote_parallel_map as rpm
    warnings.simplefilter("error")
    print(rpm(lambda x: old.__name__, [1]))
    """
    assert succeed(source, tmp_path, private=True) == "['old']\n"


def test_limits_managers_and_locale(tmp_path: Path) -> None:
    source = """
    import decimal, locale, multiprocessing, sys
    from burla import remote_parallel_map as rpm
    if __name__ == "__main__":
        sys.setrecursionlimit(20_000)
        sys.set_int_max_str_digits(0)
        decimal.getcontext().prec = 5
        locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")

        def deep(n):
            return n and 1 + deep(n - 1)

        def look(n):
            places = locale.setlocale(locale.LC_NUMERIC), str(decimal.Decimal(1) / 3)
            return deep(n), len(str(10**n)), *places

        print(rpm(look, [9000]))
        with multiprocessing.Manager() as manager:
            shared = manager.dict()
            rpm(lambda x: shared.update({x: x}), [1, 2])
            print(sorted(shared.items()))
    """
    expected = "[(9000, 9001, 'C.UTF-8', '0.33333')]\n[(1, 1), (2, 2)]\n"
    assert succeed(source, tmp_path, private=True) == expected


def test_what_was_set_in_a_module_of_ones_own_stays_here(tmp_path: Path) -> None:
    """As docs/calling.md says: modules are imported anew; globals of the script go along."""
    (tmp_path / "settings.py").write_text("epochs = 1\n")
    source = """
    import random, settings
    from burla import remote_parallel_map as rpm
    settings.epochs, epochs = 50, 50
    random.seed(0)
    print(rpm(lambda x: (settings.epochs, epochs), [1]))
    print(len(set(rpm(lambda x: random.random(), range(100)))))
    """
    assert succeed(source, tmp_path, private=True) == "[(1, 50)]\n100\n"


@shared
def test_a_nested_call_has_its_variables_while_it_runs() -> None:
    def outer(x: int) -> tuple[object, object]:
        inner = remote_parallel_map(lambda y: os.environ.get("N"), [1], env={"N": "inner"})
        return inner, os.environ.get("N")

    assert remote_parallel_map(outer, [1], env={"N": "outer"}) == [(["inner"], "outer")]
