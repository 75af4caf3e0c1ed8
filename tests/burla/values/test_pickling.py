"""What of a function survives its travel."""

import json
import sys
import threading
from types import CodeType, FunctionType

import pytest

from burla.values import pickling
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
