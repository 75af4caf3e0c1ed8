"""Log records among the lines of stderr: nothing is lost, torn or taken for one that is none."""

import base64
import threading
from typing import Any

import pytest

from burla.values.records import DAMAGED, MARK, RecordReader, lines_of, new_token, readable

TOKEN = new_token()


def read(data: bytes, size: int) -> tuple[bytes, list[dict[str, Any]]]:
    """Return text and records of `data`, fed in pieces of `size`."""
    reader, text, found = RecordReader(TOKEN), b"", []
    for at in range(0, len(data), size):
        for part in reader.feed(data[at : at + size]):
            if isinstance(part, bytes):
                text += part
            else:
                found.append(part)
    return text + reader.rest(), found


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_records_among_text_however_it_is_cut(size: int) -> None:
    one = b"".join(lines_of(TOKEN, {"msg": "a\nb"}))
    data = b"before\nhalf" + one + b" rest\n" + one + one + b"\x1f no mark \x1f"
    assert read(data, size) == (b"before\nhalf rest\n\x1f no mark \x1f", [{"msg": "a\nb"}] * 3)


def test_a_long_record_goes_in_several_lines_among_those_of_others() -> None:
    lines = lines_of(TOKEN, {"msg": "x" * 300_000})
    assert len(lines) > 2
    assert max(map(len, lines)) < 200_000
    text, found = read(b"print\n".join(lines), 4096)
    assert text == b"print\n" * (len(lines) - 1)
    assert found == [{"msg": "x" * 300_000}]


def test_a_giant_is_cut_and_says_so() -> None:
    _, found = read(b"".join(lines_of(TOKEN, {"msg": "x" * (20 << 20)})), 1 << 20)
    assert found[0]["msg"].endswith("x... (19922944 more characters)")


def test_what_is_no_plain_data_is_text() -> None:
    class Bad:
        def __str__(self) -> str:
            raise OSError

    loop: list[object] = []
    loop.append(loop)
    fields: dict[str, Any] = {
        "a": threading.Lock,
        "b": 1 << 70,
        "c": Bad(),
        "d": "\udcff",
        "loop": loop,
    }
    _, (found,) = read(b"".join(lines_of(TOKEN, fields)), 100)
    assert found["b"] == str(1 << 70)
    assert found["c"] == "<Bad, of which str() raises OSError>"
    assert found["d"] == "\udcff"
    assert found["loop"] == "[[...]]"


@pytest.mark.parametrize(
    "line",
    [b"1 . %%%%", b"1 .", b"1 . " + base64.b64encode(b"\xc1"), b"1 . " + base64.b64encode(b"\x01")],
)
def test_a_damaged_record_is_told(line: bytes) -> None:
    assert read(b"%s%s %s\nnext\n" % (MARK, TOKEN, line), 100) == (DAMAGED + b"next\n", [])


def test_a_torn_record_is_told() -> None:
    (line,) = lines_of(TOKEN, {"msg": "x"})
    assert read(b"text\n" + line[:-9], 100) == (b"text\n" + DAMAGED, [])
    parts = lines_of(TOKEN, {"msg": "x" * 200_000})
    assert read(parts[0], 1 << 20) == (DAMAGED, [])


def test_a_stranger_has_not_the_token() -> None:
    (line,) = lines_of(new_token(), {"msg": "x"})
    assert read(line, 100) == (line, [])


def test_last_words_are_readable() -> None:
    fields = {"levelname": "INFO", "name": "app", "msg": "step %d", "args": (3,), "more": "x" * 200}
    line = b"".join(lines_of(TOKEN, fields)).decode()
    assert readable("print\nhalf" + line) == "print\nhalfINFO:app:step 3\n"
    assert readable(line[-120:] + line + "end") == "INFO:app:step 3\nend"
    assert line.splitlines() == [line.rstrip("\n")]
