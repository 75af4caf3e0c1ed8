r"""Log records and warnings of calls on their way to the caller: lines of the worker's stderr.

So they keep their place among prints, and all that holds for output holds for them; where stderr
goes to the same place as stdout, they are lines of stdout. A line begins with MARK and a token,
which the caller made up, wherever in a line of the function's that is. What follows is plain data
and never a pickle: nobody vouches for output as for results.

    \x1f TOKEN SPACE pid SPACE (+ more follows, . the last) SPACE base64 of msgpack NEWLINE
"""

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import msgpack

MARK = b"\x1f"  # no end of a line to anybody, not to `str.splitlines` either
PART_BYTES = 96 << 10  # in one line; the nodelet keeps lines of up to 256 KiB whole
RECORD_BYTES_MAX = 16 << 20  # a text that makes a record bigger is cut
TEXT_MAX = 1 << 20  # characters left of it
DAMAGED = b"burla: a log record of a call was damaged on its way\n"

Fields = dict[str, Any]


def new_token() -> bytes:
    """Return a token that nobody guesses."""
    return os.urandom(8).hex().encode()


# --- in the worker ---


def lines_of(token: bytes, fields: Fields) -> list[bytes]:
    """Return the lines that hold `fields`; what is no plain data is there as text."""
    packed = _pack(fields)
    if len(packed) > RECORD_BYTES_MAX:
        packed = _pack({name: _cut(value) for name, value in fields.items()})
    parts = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
    head = b"%s%s %d " % (MARK, token, os.getpid())
    lines = [b"%s+ %s\n" % (head, b64encode(part)) for part in parts[:-1]]
    return [*lines, b"%s. %s\n" % (head, b64encode(parts[-1]))]


def _pack(fields: Fields) -> bytes:
    try:
        data: bytes = msgpack.packb(fields, default=_text, unicode_errors="surrogatepass")
    except Exception:  # it refers to itself, or is changed by another thread meanwhile
        plain = {name: _plain(value) for name, value in fields.items()}
        data = msgpack.packb(plain, unicode_errors="surrogatepass")
    return data


def _plain(value: Any, depth: int = 1) -> Any:
    if value is None or type(value) in (bool, float, str):
        return value
    if type(value) is int and -(1 << 63) <= value < 1 << 64:
        return value
    if depth and type(value) is tuple:
        return [_plain(one, depth - 1) for one in value]
    if depth and type(value) is dict:
        return {_text(name): _plain(one, depth - 1) for name, one in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, of which str() raises {type(error).__name__}>"


def _cut(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        value = _plain(value, 0) if len(_pack({"": value})) > TEXT_MAX else value
    if isinstance(value, str) and len(value) > TEXT_MAX:
        return f"{value[:TEXT_MAX]}... ({len(value) - TEXT_MAX} more characters)"
    return value


# --- in the caller ---


class RecordReader:
    """Tells records from text in what the workers of one lease write to stderr."""

    def __init__(self, token: bytes) -> None:
        """Take lines with this token for records."""
        self._mark = b"%s%s " % (MARK, token)
        self._held = b""  # the beginning of a line of ours, or of its mark
        self._parts: dict[bytes, list[bytes]] = {}  # of records that are not complete, by pid

    def feed(self, data: bytes) -> Iterator[bytes | Fields]:
        """Yield text and records, in order."""
        if not self._held and MARK not in data:
            yield data
            return
        data, self._held = self._held + data, b""
        while (at := data.find(self._mark)) >= 0:
            if at:
                yield data[:at]
            end = data.find(b"\n", at)
            if end < 0:
                data = data[at:]
                break
            fields = self._take(data[at + len(self._mark) : end])
            if fields is not None:
                yield fields
            data = data[end + 1 :]
        else:
            at = data.rfind(MARK)
            if at < 0 or not self._mark.startswith(data[at:]):
                at = len(data)
            if at:
                yield data[:at]
            data = data[at:]
        if len(data) > 2 * PART_BYTES:  # ours are shorter
            yield DAMAGED
        else:
            self._held = data

    def rest(self) -> bytes:
        """Return the text to show at the end; empty: all is well."""
        torn, self._held = self._held, b""
        if torn.startswith(self._mark) or self._parts:
            return DAMAGED
        return torn

    def _take(self, line: bytes) -> Fields | bytes | None:
        """Return the record that ends here; None: more of it follows; or what to show instead."""
        try:
            pid, more, coded = line.split(b" ")
            parts = self._parts.setdefault(pid, [])
            parts.append(b64decode(coded, validate=True))
            if more == b"+" and sum(map(len, parts)) <= 2 * RECORD_BYTES_MAX:
                return None
            del self._parts[pid]
            return _fields_of(b"".join(parts))
        except Exception:
            self._parts.clear()
            return DAMAGED


def _fields_of(packed: bytes) -> Fields:
    fields = msgpack.unpackb(packed, unicode_errors="surrogatepass", strict_map_key=False)
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError("no record")
    return fields


def readable(text: str) -> str:
    """Return the end of what was written to stderr, with the records in it as people read them."""
    first, _, rest = text.partition("\n")
    if _CODED.fullmatch(first):  # the end of a record that is cut off
        text = rest
    return "\n".join(map(_readable_line, text.split("\n"))) if _MARK in text else text


_MARK = MARK.decode()
_WIDE = re.compile(r"%[^a-zA-Z%]*([0-9]{4}|\*)")  # whoever wrote it wants very much memory
_CODED = re.compile(r"[0-9a-f]* ?[0-9]* ?[+.]? ?[A-Za-z0-9+/]{64,}={0,2}")


def _readable_line(line: str) -> str:
    before, mark, rest = line.partition(_MARK)
    if not mark:
        return line
    try:
        fields = _fields_of(b64decode(rest.split(" ")[3], validate=True))
    except Exception:  # not ours, cut, or a part of one
        return before
    if "warning" in fields:
        return f"{before}{fields['filename']}:{fields['lineno']}: {fields['warning']}"
    said, args = str(fields["msg"]), fields.get("args")
    if args:
        try:
            said = f"{said} {args}" if _WIDE.search(said) else said % tuple(args)
        except (TypeError, ValueError):
            said = f"{said} {args}"
    shown = f"{before}{fields['levelname']}:{fields['name']}:{said}"
    return f"{shown}\n{fields['exc_text']}" if fields.get("exc_text") else shown
