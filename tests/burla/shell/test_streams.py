"""When stdout and stderr are one place."""

import io
import os
from pathlib import Path
from typing import Any

from burla.shell.streams import is_one_place, is_written_in_pieces


class Tee(io.TextIOWrapper):
    """Writes elsewhere, too."""


def test_streams_are_one_place_if_they_are_one_file_or_one_object(tmp_path: Path) -> None:
    with (
        (tmp_path / "a").open("w") as a,
        (tmp_path / "a").open("a") as again,
        (tmp_path / "b").open("w") as b,
        os.fdopen(os.dup(a.fileno()), "w") as copy,
    ):
        assert is_one_place(a, copy)
        assert is_one_place(a, again)
        assert not is_one_place(a, b)
    stream: Any = io.StringIO()
    assert is_one_place(stream, stream)
    assert not is_one_place(stream, io.StringIO())
    assert not is_one_place(None, None)
    assert not is_one_place(a, a.buffer)  # closed


def test_a_class_of_the_callers_may_write_elsewhere(tmp_path: Path) -> None:
    with Tee((tmp_path / "a").open("wb")) as tee, (tmp_path / "a").open("a") as again:
        assert not is_one_place(tee, again)


def test_a_print_comes_in_pieces_where_nothing_holds_a_line_together(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as buffered:
        assert not is_written_in_pieces(buffered)
        buffered.reconfigure(write_through=True)
        assert is_written_in_pieces(buffered)
    assert not is_written_in_pieces(None)
    with Tee((tmp_path / "a").open("wb")) as tee:
        assert is_written_in_pieces(tee)
