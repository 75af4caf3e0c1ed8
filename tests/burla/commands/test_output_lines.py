"""Output as lines: whole, once, and with nothing in them that does more than colour a terminal."""

import pytest

from burla.commands.job_output import Printed
from burla.commands.output_lines import Line, Lines, safe


def chunk(data: bytes, place: int = 0, lease: bytes = b"l", stream: str = "stdout") -> Printed:
    return Printed("j", place, lease, "n1", stream, 1.0, (place, place + 1), data)


def fed(lines: Lines, *chunks: Printed) -> list[Line]:
    return [line for one in chunks for line in lines.feed(one)]


def test_lines_of_each_call_and_stream_are_joined_for_themselves() -> None:
    lines = Lines()
    found = fed(
        lines,
        chunk(b"a\xe2\x82", 0),
        chunk(b"x", 1, lease=b"m"),
        chunk(b"e", 2, stream="stderr"),
        chunk(b"\xac\nb", 3),
        chunk(b"y\n", 4, lease=b"m"),
    )
    assert [(line.text, line.inputs, line.first.place) for line in found] == [
        ("a€", (0, 4), 0),
        ("xy", (1, 5), 1),
    ]
    assert lines.begin(5) == 2  # whoever goes on from there misses nothing
    assert [(line.text, line.has_ended) for line in lines.rest()] == [("e", False), ("b", False)]
    assert lines.begin(5) == 5


@pytest.mark.parametrize(
    ("chunks", "texts"),
    [
        ([b"\r10%", b"\r20%", b"\rdone\n"], [("10%", True), ("20%", True), ("done", True)]),
        ([b"10%\r", b"20%\r", b"done\n"], [("10%", False), ("20%", True), ("done", True)]),
        ([b"10%\r", b"\n", b"x"], [("10%", False), ("", False), ("x", False)]),
        ([b"a", b"b\n"], [("a", False), ("b", False)]),
        ([b"a\n", b"\rb\n"], [("a", False), ("b", True)]),
    ],
)
def test_what_is_written_over_is_told(chunks: list[bytes], texts: list[tuple[str, bool]]) -> None:
    """As a progress bar comes to who follows: shown as far as it is, again and again."""
    lines, found = Lines(), []
    for data in chunks:
        found += [*lines.feed(chunk(data)), *lines.rest()]
    assert [(line.text, line.is_over_last) for line in found] == texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[2J\x1b]0;title\x07\x1b[5;5Hx", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx\x9d0;t\x9c", "?2Jx?0;t?"),
        ("\x1b", "?"),
        ("\x1b[31", "?[31"),
        ("\x1b[\x1b[0K2J", "?[2J"),  # what is left is no sequence
        ("a\u202eb\r\x08\x7f", "a?b???"),
        ("日本\ttab", "日本\ttab"),
    ],
)
def test_nothing_of_others_does_more_than_colour(text: str, shown: str) -> None:
    assert safe(text, color=True) == shown
    assert "\x1b" not in safe(text, color=False)
