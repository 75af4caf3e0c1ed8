"""Green threads are refused before anything starts: under them a map would hang for ever."""

import sys
from types import ModuleType
from typing import Any

import pytest

from burla import remote_parallel_map
from burla.errors import ClusterError
from burla.monkey_patches import refuse_green_threads


def library(monkeypatch: pytest.MonkeyPatch, module: str, asked: str, patched: set[str]) -> None:
    """Let a library be loaded that says of itself what it has replaced."""
    loaded: Any = ModuleType(module)
    setattr(loaded, asked, patched.__contains__)
    monkeypatch.setitem(sys.modules, module, loaded)


@pytest.mark.parametrize(
    ("module", "asked", "patched", "advice"),
    [
        ("gevent.monkey", "is_module_patched", {"threading"}, r"gevent .*thread=False, queue"),
        ("eventlet.patcher", "is_monkey_patched", {"thread"}, r"eventlet .*thread=False, select"),
        ("eventlet.patcher", "is_monkey_patched", {"select"}, r"eventlet .*thread=False, select"),
    ],
)
def test_a_map_under_green_threads_is_refused_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, module: str, asked: str, patched: set[str], advice: str
) -> None:
    library(monkeypatch, module, asked, patched)
    monkeypatch.setattr("burla.starting.private_cluster", None)  # nothing may start
    with pytest.raises(ClusterError, match=advice):
        remote_parallel_map(abs, [1])


def test_libraries_that_left_threads_alone_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, "gevent.monkey", "is_module_patched", {"socket"})
    library(monkeypatch, "eventlet.patcher", "is_monkey_patched", {"socket"})
    refuse_green_threads()
