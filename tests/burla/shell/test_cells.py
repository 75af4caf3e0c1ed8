"""Output of threads of ours goes where the cell that called has its own."""

import threading
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from burla.shell.cells import context_of_cell


class Stream:
    """A stream as that of a kernel: its context says where output goes, else the newest cell."""

    def __init__(self) -> None:
        self._parent_header: ContextVar[dict[str, str]] = ContextVar("parent_header")
        self.newest: dict[str, str] = {}
        self.written: list[tuple[str, str]] = []

    @property
    def parent_header(self) -> dict[str, str]:
        return self._parent_header.get(self.newest)

    def begin(self, cell: str) -> None:
        self.newest = {"msg_id": cell}
        self._parent_header.set(self.newest)

    def write(self, text: str) -> None:
        self.written.append((self.parent_header["msg_id"], text))


def in_thread(what: Any, *args: Any) -> None:
    thread = threading.Thread(target=what, args=args)
    thread.start()
    thread.join()


@pytest.mark.parametrize("by_thread", [False, True])
def test_what_is_written_later_goes_to_the_cell_that_called(
    by_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, kept = Stream(), list[Any]()
    monkeypatch.setattr("sys.stdout", stream)

    def call() -> None:
        kept.append(context_of_cell())

    def cell() -> None:
        stream.begin("first")
        in_thread(call) if by_thread else call()
        stream.begin("second")

    copy_context().run(cell)
    in_thread(kept[0].run, stream.write, "late")
    in_thread(stream.write, "of a thread that nobody told")
    assert [cell for cell, _ in stream.written] == ["first", "second"]


def test_elsewhere_it_is_the_context_of_now() -> None:
    variable: ContextVar[int] = ContextVar("variable")

    def call() -> None:
        variable.set(7)
        assert context_of_cell()[variable] == 7

    copy_context().run(call)
