import asyncio
import importlib
import linecache
import os
import pickle
import subprocess
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest

from burla.values.pickling import ResultNotPicklableError
from burla.values.tracebacks import Failure, StandInError, dump_error, load_error


class FormattedError(Exception):
    """Hands on other arguments than it takes, as many do."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"failed with {code}")
        self.code = code
        self.detail = detail


class SlotsError(Exception):
    __slots__ = ("slot",)


class ReducedError(Exception):
    def __init__(self, a: str, b: int) -> None:
        super().__init__(a)
        self.b = b

    def __reduce__(self) -> Any:
        return ReducedError, (self.args[0], self.b)


class BadReduceError(ReducedError):
    def __reduce__(self) -> Any:
        return BadReduceError, ()


class LosingError(ReducedError):
    """Pickles itself without what its text is made of, as urllib3's do."""

    def __reduce__(self) -> Any:
        return LosingError, ("?", self.b)


class Unloadable:
    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    raise RuntimeError("boom")


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    why: str


class NoAttributesError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NewError(Exception):
    def __new__(cls, *, key: int) -> "NewError":
        return super().__new__(cls, key)

    def __init__(self, *, key: int) -> None:
        self.key = key


class GroupOfMineError(ExceptionGroup[Exception]):
    pass


def sent(error: BaseException, **more: Any) -> Failure:
    return load_error(dump_error(error, "n1", 17, **more))


def failing(raise_it: Callable[[], Any]) -> Failure:
    try:
        raise_it()
    except BaseException as error:
        return sent(error)
    raise AssertionError("nothing was raised")


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_the_original_comes_with_index_note_and_remote_frames() -> None:
    def divide(x: int) -> float:
        return 1 / x

    try:
        divide(0)
    except ZeroDivisionError as error:
        failure = sent(error, input_repr="0")
        before = shown(error)
    back = failure.exception
    assert type(back) is ZeroDivisionError
    assert back.burla_input_index == 17  # type: ignore[attr-defined]  # ours
    assert back.__notes__ == ["input 17 = 0 · node n1"]
    assert shown(back) == before + "input 17 = 0 · node n1\n"  # lines and columns too
    assert failure.problem == ""
    assert failure.kind == "raised"
    assert "return 1 / x" in failure.traceback_text


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (FormattedError(3, detail="d"), {"code": 3, "detail": "d"}),
        (ReducedError("a", 2), {"b": 2}),
        (NewError(key=4), {"key": 4}),
        (FileNotFoundError(2, "no", "/x", None, "/y"), {"filename": "/x", "filename2": "/y"}),
        (UnicodeDecodeError("utf8", b"ab", 0, 1, "why"), {"object": b"ab", "reason": "why"}),
        (SyntaxError("bad", ("f.py", 3, 4, "x y", 3, 5)), {"lineno": 3, "text": "x y"}),
        (StopIteration(7), {"value": 7}),
        (ImportError("no", name="m", path="p"), {"name": "m", "path": "p"}),
        (AttributeError("no", name="m", obj=threading.Lock()), {"name": "m"}),
        (KeyError("k"), {}),
        (asyncio.CancelledError("c"), {}),
        (subprocess.CalledProcessError(3, ["x"], output=b"o"), {"returncode": 3, "stdout": b"o"}),
        (zlib.error("z"), {}),
        (pickle.PicklingError("p"), {}),
    ],
)  # fmt: skip
def test_an_exception_keeps_its_type_text_and_attributes(
    error: BaseException, attributes: dict[str, Any]
) -> None:
    back = sent(error).exception
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert {name: getattr(back, name) for name in attributes} == attributes


def test_slots_of_an_exception_are_kept() -> None:
    error = SlotsError("x")
    error.slot = 5  # type: ignore[attr-defined]  # a slot
    assert sent(error).exception.slot == 5  # type: ignore[attr-defined]


def test_causes_contexts_and_notes_are_kept_with_their_frames() -> None:
    def chained() -> None:
        try:
            try:
                raise LookupError("first")
            except LookupError as first:
                raise KeyError("second") from first
        except KeyError as second:
            second.add_note("mine")
            raise FormattedError(3, detail="third") from None

    error = failing(chained).exception
    assert error.__suppress_context__
    assert error.__cause__ is None
    assert isinstance(error.__context__, KeyError)
    assert error.__context__.__notes__ == ["mine"]
    assert isinstance(error.__context__.__cause__, LookupError)
    assert 'raise LookupError("first")' in shown(error.__context__)


def test_groups_are_kept_with_the_frames_of_each() -> None:
    def grouped() -> None:
        try:
            raise FormattedError(1, detail="d")
        except FormattedError as error:
            raise GroupOfMineError("all", [error, ExceptionGroup("in", [KeyError(2)])]) from error

    error = failing(grouped).exception
    assert isinstance(error, GroupOfMineError)
    assert error.message == "all"
    one, other = error.exceptions
    assert isinstance(one, FormattedError)
    assert one is error.__cause__
    assert 'raise FormattedError(1, detail="d")' in shown(one)
    assert isinstance(other, ExceptionGroup)
    assert repr(other.exceptions) == "(KeyError(2),)"


def test_a_member_of_a_group_that_cannot_travel_is_described_in_its_place() -> None:
    error = sent(ExceptionGroup("g", [ValueError(threading.Lock()), KeyError(1)])).exception
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], StandInError)
    assert "ValueError" in str(error.exceptions[0])
    assert isinstance(error.exceptions[1], KeyError)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ValueError(threading.Lock()), "cannot be pickled: TypeError: cannot pickle"),
        (ValueError(Unloadable()), "cannot be unpickled here: RuntimeError: boom"),
    ],
)
def test_an_exception_that_cannot_travel_is_described(error: Exception, problem: str) -> None:
    failure = sent(error)
    assert isinstance(failure.exception, StandInError)
    assert problem in failure.problem
    assert failure.type_name.endswith(type(error).__name__)


def test_an_exception_without_a_text_is_no_trouble() -> None:
    failure = sent(NoTextError(1))
    assert type(failure.exception) is NoTextError
    assert "its text cannot be had: ValueError" in failure.text


def test_cycles_and_endless_chains_end() -> None:
    error = ValueError()
    error.__cause__ = error
    back = sent(error).exception
    assert back.__cause__ is back
    chain: Exception | None = None
    for number in range(1000):
        following = KeyError(number)
        following.__context__ = chain
        chain = following
    assert chain is not None
    assert type(sent(chain).exception) is KeyError


def test_a_deep_recursion_is_shown_in_bounds() -> None:
    def recurse(n: int) -> Any:
        return recurse(n + 1)

    frames = failing(lambda: recurse(0))
    assert type(frames.exception) is RecursionError
    assert "Previous line repeated" in shown(frames.exception)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SystemExit(3), "exit"),
        (KeyboardInterrupt(), "exit"),
        (GeneratorExit(), "exit"),
        (ResultNotPicklableError("r"), "result"),
        (TimeoutError(), "raised"),
    ],
)
def test_the_kind_of_a_failure(error: BaseException, kind: str) -> None:
    assert sent(error).kind == kind


def run_source(filename: str, source: str) -> bytes:
    """Return the frames of what the source raises, as a process that has the file sees it."""
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    try:
        exec(compile(source, filename, "exec"), {})
    except ValueError as error:
        return pickle.dumps(dump_error(error, "n1", 0))
    finally:
        del linecache.cache[filename]
    raise AssertionError("nothing was raised")


def test_source_lines_show_although_the_file_does_not_exist_here() -> None:
    frames = run_source("/nowhere/there.py", "\n\n\nraise ValueError('x')\n")
    text = shown(load_error(pickle.loads(frames)).exception)
    assert "File \"/nowhere/there.py\", line 4, in <module>\n    raise ValueError('x')" in text
    linecache.checkcache()
    assert linecache.getline("/nowhere/there.py", 4) == "raise ValueError('x')\n"


def test_source_lines_of_a_file_that_differs_here_are_those_of_the_node(tmp_path: Path) -> None:
    file = tmp_path / "both.py"
    file.write_text("# here\n# here\n")
    frames = run_source(str(file), "\nraise ValueError('there')\n")
    text = shown(load_error(pickle.loads(frames)).exception)
    assert f"File \"{file} on n1\", line 2, in <module>\n    raise ValueError('there')" in text
    assert linecache.getline(str(file), 2) == "# here\n"


def test_our_own_frames_at_the_start_are_left_out() -> None:
    ours: dict[str, Any] = {"__name__": "burla.nodelet.worker.worker"}
    exec("def call(f):\n    f()\n", ours)

    def theirs() -> None:
        raise ValueError

    text = shown(failing_through(ours["call"], theirs).exception)
    assert "in theirs" in text
    assert "in call" not in text


def failing_through(call: Callable[[Any], Any], function: Callable[[], Any]) -> Failure:
    try:
        call(function)
    except ValueError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return sent(error)
    raise AssertionError("nothing was raised")


def test_an_exception_that_refuses_notes_and_attributes_is_no_trouble() -> None:
    error = sent(ShyError("x")).exception
    assert type(error) is ShyError


class ShyError(Exception):
    def add_note(self, note: str) -> None:
        raise TypeError("no notes")


def test_nothing_that_hangs_on_a_frame_is_kept_alive_or_sent() -> None:
    holder = SimpleNamespace(lock=threading.Lock())

    def with_locals() -> None:
        held = holder
        raise ValueError(len(vars(held)))

    assert failing(with_locals).problem == ""
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("error", [FrozenError(3, "no"), NoAttributesError("x", 2)], ids=repr)
def test_an_exception_that_refuses_attributes_comes_as_itself(error: Exception) -> None:
    def chained() -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise error from first

    came = failing(chained).exception
    assert type(came) is type(error)
    assert (str(came), repr(came), came.args, vars(came).get("code")) == (
        *(str(error), repr(error), error.args),
        vars(error).get("code"),
    )
    assert came.__traceback__ is not None
    assert came.__traceback__.tb_frame.f_code.co_name == "failing"
    assert type(came.__cause__) is KeyError
    assert came.__notes__ == ["input 17 · node n1"]
    assert vars(came)["burla_input_index"] == 17


@pytest.mark.parametrize("error", [BadReduceError("a", 1), LosingError("a", 1)], ids=repr)
def test_an_exception_that_pickles_itself_badly_comes_as_it_was(error: ReducedError) -> None:
    came = sent(error).exception
    assert (type(came), str(came), came.args, came.b) == (type(error), "a", ("a",), 1)  # type: ignore[attr-defined]


def test_an_error_comes_without_the_attributes_that_cannot_be_pickled() -> None:
    error = HTTPError("http://x/y", 404, "Not Found", Message(), open(os.devnull, "rb"))  # noqa: SIM115
    try:
        came = sent(error).exception
        assert type(came) is HTTPError
        assert (str(came), came.code, came.filename) == (str(error), 404, "http://x/y")
        assert came.__notes__[0].startswith("left behind, as it cannot be pickled: ")
        assert "fp" in came.__notes__[0]
    finally:
        error.close()


def test_an_error_whose_text_needs_what_cannot_be_pickled_is_described() -> None:
    class LockedError(Exception):
        def __str__(self) -> str:
            return f"locked by {type(self.lock).__name__}"

        def __init__(self) -> None:
            self.lock = threading.Lock()

    failure = sent(LockedError())
    assert type(failure.exception) is StandInError
    assert "locked by lock (it cannot be pickled: TypeError" in str(failure.exception)


STANDARD = (
    *("asyncio", "binascii", "concurrent.futures", "configparser", "csv", "ctypes", "dbm.dumb"),
    *("decimal", "email.errors", "ftplib", "getopt", "gzip", "http.client", "imaplib", "json"),
    *("locale", "lzma", "multiprocessing", "optparse", "pickle", "poplib", "queue", "re", "shutil"),
    *("smtplib", "socket", "sqlite3", "ssl", "statistics", "struct", "subprocess", "tarfile"),
    *("tokenize", "tomllib", "unittest", "urllib.error", "uuid", "xml.dom", "xml.parsers.expat"),
    *("zipfile", "zlib", "zoneinfo"),
)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    *((), ("x",), (2,), (None,), (b"x",), ({"a": 1},), (2, "x"), ("x", 2), (2, "x", "file")),
    *((2, "x", "file", None), (2, "x", "file", None, "file2"), (11, "x", 3), (None, "x", None)),
    *(("utf8", b"x", 0, 1, "why"), ("utf8", "x", 0, 1, "why"), ("m", ("f", 1, 2, "text"))),
    ("m", ("f", 1, 2, "text", 1, 4)),
)


def classes_below(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for one in cls.__subclasses__():
        yield one
        yield from classes_below(one)


def face(error: BaseException) -> tuple[Any, ...]:
    """Return all that a person or program sees of an exception."""
    last_line = traceback.format_exception_only(error)
    members = ("errno", "strerror", "filename", "filename2", "characters_written", "name", "code")
    seen = {name: getattr(error, name, "-") for name in members}
    return type(error), str(error), repr(error), error.args, last_line, repr(seen)


def can_be_pickled(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def test_exceptions_of_the_standard_library_look_as_they_did() -> None:
    for name in STANDARD:
        importlib.import_module(name)
    tried = 0
    for cls in dict.fromkeys(classes_below(BaseException)):
        if cls.__module__.split(".")[0] not in sys.stdlib_module_names | {"builtins"}:
            continue
        if cls is HTTPError:  # made of nonsense, it complains when it is deleted
            continue
        for arguments in ARGUMENTS:
            try:
                error = cls(*arguments)
                before = face(error)
            except Exception:
                continue
            tried += 1
            came = load_error(dump_error(error, "n1", -1)).exception
            assert face(came) == before, (cls, arguments)
            assert can_be_pickled(came) == can_be_pickled(error), (cls, arguments)
    assert tried > 1500
