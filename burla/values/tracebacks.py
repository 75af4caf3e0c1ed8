"""Exceptions <-> bytes, with their tracebacks, causes, groups and notes.

An exception is taken apart in the worker and put together again in the caller without running its
`__init__`, which may want arguments that nobody has kept. What cannot be rebuilt is described by a
stand-in. Tracebacks are rebuilt from frames that name the remote file, line and columns; source
lines that this machine does not have (or has differently) are given to `linecache`.
"""

import ast
import linecache
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from types import CodeType, TracebackType
from typing import Any, Literal

from .attributes import dict_of
from .explain import describe_error, short_repr, text_of, type_name
from .frames import Frames, NotLoadableError, TooLargeError, dump_plain
from .pickling import ResultNotPicklableError, dumps, loads

EXCEPTIONS_MAX = 100  # of a chain or group; a retry loop may chain without end
SHORTENED_CHARS = 16 << 10  # of the texts of an exception that is too large to be sent
NOTES_KEPT = 16  # likewise
FRAMES_MAX = 1000  # of a traceback; Python's own recursion limit
FRAME_LINES_MAX = 8  # source lines of one frame, for statements over several lines
TRACEBACK_CHARS_MAX = 100_000  # of a traceback that travels as text

PARTIAL = "burla_partial"  # what an error carries of a job that ended early

Kind = Literal["raised", "exit", "input", "result", "large"]


class StandInError(Exception):
    """Stands for an exception that could not be brought here; its text says which and why."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known in the caller about a call that failed."""

    kind: Kind  # raised; exit: SystemExit and the like; input, result: it could not be (un)pickled
    index: int  # of the input in its job; -1: of none
    node: str
    input_repr: str | None
    type_name: str  # of what was raised
    text: str  # its `str`
    traceback_text: str  # formatted where it was raised
    exception: BaseException  # with traceback, causes and notes; or a StandInError
    problem: str  # why it is a stand-in; "": it is what was raised
    said: str = ""  # which call it was, in other words

    @property
    def call(self) -> str:
        """Return which call it was, in words."""
        return self.said or note_of(self.index, self.input_repr, self.node)


def dump_error(
    error: BaseException, node: str, index: int, input_repr: str | None = None
) -> list[bytes]:
    """Return the frames of an exception that a call raised; never raises for what it contains.

    Args:
        error: as caught; leading frames of this package are left out of its traceback.
        node: the name of the node.
        index: of the input in its job; -1: of none, the function could not be loaded.
        input_repr: `short_repr` of the input, if it could be had.
    """
    graph: dict[int, BaseException] = {}
    for one in islice(_walk(error), EXCEPTIONS_MAX):
        graph[id(one)] = one
        dict_of(one).pop(PARTIAL, None)  # of a job in a call: it is the call's own, and may be big
    numbers = {key: number for number, key in enumerate(graph)}
    records = [_take_apart(one, numbers) for one in graph.values()]
    said = _traceback_text(error)
    try:
        return dump_plain((_kind(error), index, node, input_repr, said, records))
    except TooLargeError as problem:
        for record in records:
            record["text"] = record["text"][:SHORTENED_CHARS]
            record["notes"] = [note[:SHORTENED_CHARS] for note in record["notes"][:NOTES_KEPT]]
            record["pickle"], record["problem"] = None, f"it has {problem}"
        said = said[-SHORTENED_CHARS:]
        return dump_plain((_kind(error), index, node, input_repr, said, records))


def _kind(error: BaseException) -> Kind:
    match error:
        case ResultNotPicklableError():
            return "result"
        case TooLargeError():
            return "large"
        case NotLoadableError():
            return "input"
        case SystemExit() | KeyboardInterrupt() | GeneratorExit():
            return "exit"
        case _:
            return "raised"


def _walk(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and all that hang on it, each once."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions


def _take_apart(error: BaseException, numbers: dict[int, int]) -> dict[str, Any]:
    """Return all that is needed to put the exception together again, as plain data."""
    notes = dict_of(error).get("__notes__")
    record: dict[str, Any] = {
        "type": type_name(error),
        "text": text_of(error),
        "frames": _frames_of(_own_frames_off(error.__traceback__)),
        "cause": numbers.get(id(error.__cause__)),
        "context": numbers.get(id(error.__context__)),
        "suppress": error.__suppress_context__,
        "notes": [str(note) for note in notes] if isinstance(notes, list) else [],
        "children": None,
        "pickle": None,
        "problem": "",
    }
    if isinstance(error, BaseExceptionGroup):
        record["message"] = error.message
        record["children"] = [numbers.get(id(child)) for child in error.exceptions]
    try:
        record["pickle"] = _pickled(error)
    except Exception as problem:
        record["problem"] = f"it cannot be pickled: {describe_error(problem)}"
    return record


def _pickled(error: BaseException) -> list[bytes]:
    """Return the exception as its class pickles it, if it comes back as it was; else its state.

    Many classes that say how to pickle them forget something: urllib3's lose their pool, and with
    it a part of their text; some cannot be unpickled at all.
    """
    has_own = _has_own_pickling(error)
    if has_own:
        with suppress(Exception):
            pickled = dumps((error, error.args))
            if text_of(_from_own_pickle(*loads(pickled))) == text_of(error):
                return pickled
    state = _state_of(error)
    try:
        return dumps(state)
    except Exception:
        if has_own:
            return dumps((error, None))
        in_part = _pickled_in_part(state, text_of(error))
        if in_part is None:
            raise
        return in_part


def _pickled_in_part(state: tuple[Any, ...], text: str) -> list[bytes] | None:
    """Return the state without the attributes that cannot be pickled; None: its text needs them.

    An `HTTPError` that holds an open connection is still that error without it.
    """
    cls, args, attributes, slots = state
    attributes = {name: value for name, value in attributes.items() if _can_be_pickled(value)}
    left_out = sorted(state[2].keys() - attributes.keys())
    attributes["__notes__"] = [f"left behind, as it cannot be pickled: {', '.join(left_out)}"]
    with suppress(Exception):
        pickled = dumps((cls, args, attributes, slots))
        came: tuple[Any, Any, Any, Any] = loads(pickled)
        if text_of(_rebuild(*came, text)) == text:
            return pickled
    return None


def _can_be_pickled(value: object) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _from_own_pickle(error: object, args: tuple[Any, ...] | None) -> BaseException:
    if not isinstance(error, BaseException):
        raise TypeError(f"its __reduce__ gave a {type_name(error)}")
    if args is not None:
        _set(error, "args", args)
    return error


def _has_own_pickling(error: BaseException) -> bool:
    """Return whether the author of the class says how to pickle it."""
    return any(
        not _OWN_PICKLING.isdisjoint(vars(cls))
        for cls in type(error).__mro__
        if cls.__module__ != "builtins"
    )


_OWN_PICKLING = frozenset(
    ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__")
)


def _state_of(error: BaseException) -> tuple[Any, ...]:
    attributes = {k: v for k, v in dict_of(error).items() if k != "__notes__"}
    slots = {}
    for cls in type(error).__mro__:
        if cls is BaseException:
            break
        for name, member in vars(cls).items():
            if type(member).__name__ in _MEMBER_KINDS and name not in _MEMBERS_LEFT_OUT:
                try:
                    slots[name] = member.__get__(error, type(error))
                except AttributeError:  # a slot that was never set
                    continue
    # the exceptions of a group come apart from it, with tracebacks of their own
    args = (error.message,) if isinstance(error, BaseExceptionGroup) else error.args
    return type(error), args, attributes, slots


_MEMBER_KINDS = frozenset(("member_descriptor", "getset_descriptor"))
# `obj` of an AttributeError is any object, often a big or unpicklable one
_MEMBERS_LEFT_OUT = frozenset(("obj", "message", "exceptions", "__dict__", "__weakref__"))


def _own_frames_off(tb: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is not of this package on."""
    while tb is not None and str(tb.tb_frame.f_globals.get("__name__")).startswith("burla."):
        tb = tb.tb_next
    return tb


def _frames_of(tb: TracebackType | None) -> list[tuple[Any, ...]]:
    frames = list(traceback.walk_tb(tb))
    entries = []
    lasti = []
    while tb is not None:
        lasti.append(tb.tb_lasti)
        tb = tb.tb_next
    if len(frames) > FRAMES_MAX:
        half = FRAMES_MAX // 2
        frames, lasti = frames[:half] + frames[-half:], lasti[:half] + lasti[-half:]
    for (frame, lineno), instruction in zip(frames, lasti, strict=True):
        code = frame.f_code
        end, column, end_column = _position(code, instruction, lineno)
        lines = [
            linecache.getline(code.co_filename, number, frame.f_globals)
            for number in range(lineno, min(end, lineno + FRAME_LINES_MAX - 1) + 1)
        ]
        module = frame.f_globals.get("__name__")
        where = (lineno, end, column, end_column)
        entries.append(
            (code.co_filename, code.co_name, code.co_firstlineno, str(module), where, lines)
        )
    return entries


def _position(code: CodeType, lasti: int, lineno: int) -> tuple[int, int | None, int | None]:
    """Return the last line and the columns of an instruction."""
    line, end, column, end_column = next(
        islice(code.co_positions(), lasti // 2, None), (None, None, None, None)
    )
    if line != lineno or end is None or end < lineno:
        return lineno, None, None
    return end, column, end_column


def _traceback_text(error: BaseException) -> str:
    try:
        own = _own_frames_off(error.__traceback__)
        text = "".join(traceback.format_exception(type(error), error, own))
    except Exception as problem:
        return f"{describe_error(error)} (no traceback: {describe_error(problem)})"
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return text


# --- in the caller -------------------------------------------------------------------------------


def load_error(frames: Frames) -> Failure:
    """Return what is known of an error, with the original exception put together again.

    Raises:
        NotLoadableError: these are not frames of `dump_error`.
    """
    try:
        kind, index, node, input_repr, traceback_text, records = loads(frames)
    except NotLoadableError:
        raise
    except Exception as error:
        raise NotLoadableError(describe_error(error)) from error
    built: list[BaseException | None] = [None] * len(records)
    for number in reversed(range(len(records))):  # children of groups come after their group
        _build_into(built, records, number)
    for exception, record in zip(built, records, strict=True):
        assert exception is not None
        _dress(exception, record, built, node)
    root, record = built[0], records[0]
    assert root is not None
    if index >= 0:  # else it belongs to no input: the function could not be loaded
        mark(root, index, input_repr, node)
    return Failure(
        kind=kind,
        index=index,
        node=node,
        input_repr=input_repr,
        type_name=record["type"],
        text=record["text"],
        traceback_text=traceback_text,
        exception=root,
        problem=record["problem"],
    )


def note_of(index: int, input_repr: str | None, node: str) -> str:
    """Return the line that says which call it was."""
    shown = f" = {input_repr}" if input_repr is not None else ""
    return f"input {index}{shown} · node {node}"


def mark(error: BaseException, index: int, input_repr: str | None, node: str) -> None:
    """Let an error say which call it is of."""
    notes = dict_of(error).get("__notes__")
    said = list(notes) if isinstance(notes, list) else []
    _set(error, "__notes__", [*said, note_of(index, input_repr, node)])
    _set(error, "burla_input_index", index)


def in_other_words(failure: Failure, said: str) -> Failure:
    """Return a failure, and let its exception say so, too, of which call it is."""
    notes = dict_of(failure.exception).get("__notes__")
    if failure.index >= 0 and isinstance(notes, list) and notes[-1:] == [failure.call]:
        notes[-1] = said
    return replace(failure, said=said)


def renumbered(failure: Failure, index: int) -> Failure:
    """Return a failure of the input with another index, which its exception says, too."""
    if failure.index < 0:
        return failure
    told = in_other_words(failure, note_of(index, failure.input_repr, failure.node))
    _set(failure.exception, "burla_input_index", index)
    return replace(told, index=index)


def _build_into(built: list[BaseException | None], records: list[Any], number: int) -> None:
    """Put exception `number` together, its children first."""
    if built[number] is not None:
        return
    record = records[number]
    children = None
    if record["children"] is not None:
        children = []
        for child in record["children"]:
            if child is None:  # beyond EXCEPTIONS_MAX
                children.append(StandInError("one more exception of the group, left out"))
                continue
            _build_into(built, records, child)
            children.append(built[child])
    built[number] = _put_together(record, children)


def _put_together(record: dict[str, Any], children: list[Any] | None) -> BaseException:
    if not record["problem"]:
        try:
            loaded = loads(record["pickle"])
            if len(loaded) == 2:
                return _from_own_pickle(*loaded)
            cls, args, attributes, slots = loaded
            if children is not None:
                args = (*args, children)
            return _rebuild(cls, args, attributes, slots, record["text"])
        except Exception as problem:
            record["problem"] = f"it cannot be unpickled here: {describe_error(problem)}"
    if children is not None:
        record["problem"] = ""
        return BaseExceptionGroup(record["message"], children)
    return StandInError(f"{record['type']}: {record['text']} ({record['problem']})")


def _rebuild(
    cls: type[BaseException],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    slots: dict[str, Any],
    text: str,
) -> BaseException:
    """Return an instance in the state of the original, without running its own `__init__`."""
    base: Any = next(one for one in cls.__mro__ if one.__module__ == "builtins")
    # Of the builtins only a group's `__new__` must have its arguments; what others made of theirs
    # is in their members.
    is_group = issubclass(cls, BaseExceptionGroup)
    try:
        error: BaseException = base.__new__(cls, *args) if is_group else base.__new__(cls)
    except TypeError:  # a class of an extension module has a `__new__` that must be called
        error = cls(*args)
    _set(error, "args", args)
    dict_of(error).update(attributes)
    _set_members(error, {name: value for name, value in slots.items() if value is not None})
    for name in (name for name, value in slots.items() if value is None):
        # A builtin's member that was never set reads as None, too; set to None it may be shown.
        if getattr(error, name, error) is not None or text_of(error) != text:
            _set_members(error, {name: None})
    return error


def _set_members(error: BaseException, members: dict[str, Any]) -> None:
    for name, value in members.items():
        with suppress(AttributeError, TypeError):  # read-only
            _set(error, name, value)


_set = BaseException.__setattr__  # an exception may refuse attributes: a frozen dataclass does


def _dress(
    error: BaseException, record: dict[str, Any], built: list[BaseException | None], node: str
) -> None:
    """Give an exception its traceback, causes and notes."""
    _set(error, "__cause__", None if record["cause"] is None else built[record["cause"]])
    _set(error, "__context__", None if record["context"] is None else built[record["context"]])
    _set(error, "__suppress_context__", record["suppress"])
    _set(error, "__traceback__", _traceback_from(record["frames"], node))
    left_behind = dict_of(error).get("__notes__", [])  # see _pickled_in_part
    if notes := [*record["notes"], *left_behind]:
        _set(error, "__notes__", notes)


def _traceback_from(frames: list[tuple[Any, ...]], node: str) -> TracebackType | None:
    tb: TracebackType | None = None
    for filename, name, first, module, where, lines in reversed(frames):
        lineno = where[0]
        filename = _show_source(filename, lineno, lines, node)
        code = _raising_code(filename, name, first, where)
        try:
            exec(code, {"__name__": module, "__file__": filename, "_error": _Here})
        except _Here as here:
            outer = here.__traceback__
        inner = outer.tb_next if outer is not None else None
        assert inner is not None, filename
        tb = TracebackType(tb, inner.tb_frame, inner.tb_lasti, lineno)
    return tb


class _Here(Exception):
    """Raised in a frame to get hold of it."""


def _raising_code(
    filename: str, name: str, first: int, position: tuple[int, int, int | None, int | None]
) -> CodeType:
    """Return code that raises `_error` at exactly this place of a function that begins at `first`.

    IPython looks at where the code begins, for the lines that it shows around the place.
    """
    lineno, end, column, end_column = position
    first = first if 1 <= first <= lineno else 1
    where = {  # counted from `first`, which takes the place of line 1
        "lineno": lineno - first + 1,
        "end_lineno": end - first + 1,
        "col_offset": column or 0,
        "end_col_offset": end_column or 0,
    }
    raise_ = ast.Raise(exc=ast.Name(id="_error", ctx=ast.Load(), **where), cause=None, **where)
    code: CodeType = compile(ast.Module(body=[raise_], type_ignores=[]), filename, "exec")
    return code.replace(co_name=name, co_qualname=name, co_firstlineno=first)


def _show_source(filename: str, lineno: int, lines: list[str], node: str) -> str:
    """Return a file name under which `linecache` finds these lines; make it so if need be."""
    if not lines or not lines[0].strip():
        return filename  # nobody had the source; this machine may (a notebook's cell)
    if linecache.getline(filename, lineno) == lines[0]:
        return filename
    if filename not in _remote_sources and (
        filename in linecache.cache or os.path.exists(filename)
    ):
        filename = f"{filename} on {node}"
    source = _remote_sources.setdefault(filename, [])
    source += ["\n"] * (lineno - 1 + len(lines) - len(source))
    source[lineno - 1 : lineno - 1 + len(lines)] = lines
    # without a modification time, so that linecache never looks for the file
    linecache.cache[filename] = (sum(map(len, source)), None, source, filename)
    return filename


_remote_sources: dict[str, list[str]] = {}  # lines of files that only other machines have
__all__ = ["Failure", "StandInError", "dump_error", "load_error", "mark", "note_of", "short_repr"]
