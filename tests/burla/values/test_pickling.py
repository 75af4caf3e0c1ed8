"""What of a function survives its travel."""

import json
import sys
import threading
from types import CodeType, FunctionType, ModuleType

import pytest

from burla.values import pickling
from burla.values.frames import NotLoadableError
from burla.values.payloads import dump_function, load_function
from burla.values.pickling import dumps


def outer_code(function: FunctionType) -> list[CodeType]:
    code = function.__code__
    return [code, *(const for const in code.co_consts if isinstance(const, CodeType))]


def test_code_keeps_the_name_of_its_file_and_its_lines_also_inside() -> None:
    def outer() -> object:
        def inner() -> int:
            return 1

        return inner

    came = load_function(dump_function(outer))
    assert isinstance(came, FunctionType)
    assert isinstance(outer, FunctionType)
    before, after = outer_code(outer), outer_code(came)
    assert [code.co_filename for code in after] == [__file__, __file__]
    assert [list(code.co_lines()) for code in after] == [list(code.co_lines()) for code in before]


def test_threads_that_pickle_first_do_not_meet_half_a_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A module and code need reducers of ours; a table that is refilled lacks them for a moment."""
    failed: list[BaseException] = []

    def pickle_often(start: threading.Barrier) -> None:
        try:
            for _ in range(30):
                start.wait()
                dumps([json, pickle_often.__code__])
        except BaseException as error:
            failed.append(error)
            start.abort()

    def forget() -> None:
        monkeypatch.setattr(pickling, "_registered", -1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        start = threading.Barrier(8, forget)
        threads = [threading.Thread(target=pickle_often, args=(start,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failed == []


def test_a_class_of_another_run_of_the_script_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Outer:
        class Inner:
            """Of the script that reads."""

    main = ModuleType("__main__")
    main.Outer, main.number = Outer, 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert pickling._known_class("of another process", "Outer.Inner") is Outer.Inner
    for name in ("Inner", "Outer.Other", "number"):
        with pytest.raises(NotLoadableError, match=f"the class '{name}' of the script"):
            pickling._known_class("of another process", name)
