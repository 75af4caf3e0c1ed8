"""How calls of many functions are packed."""

import functools
import gc
import math
import textwrap
import weakref
from typing import Any

import pytest

import burla
from burla.interfaces.codes import Codes, pack
from burla.values.many import Packed


def test_calls_with_plain_arguments_share_one_pickle_of_their_function() -> None:
    codes = Codes()
    one, other = (pack(codes.of(divmod), (n, 2), {}) for n in (7, 8))
    assert one.input[1:] == (7, 2)
    assert one.input[0] is other.input[0]
    assert one.shown() == "divmod(7, 2)"
    assert pack(codes.of(int), (), {}).shown() == "int()"
    assert pack(codes.of(abs), (-1,), {}).shown() == "abs(-1)"


def test_a_function_by_value_is_looked_at_again_if_what_it_names_has_changed() -> None:
    cell = 1

    def f() -> int:
        return cell

    codes = Codes()
    first = codes.of(f)
    cell = 2
    assert codes.of(f).data != first.data
    method: Any = functools.partial(divmod, 1)
    assert codes.of(method) is not codes.of(method)  # it could have changed inside


def test_what_may_have_changed_unseen_is_pickled_again() -> None:
    class Kind:
        f = 1

    codes = Codes()
    Kind.__module__ = "__main__"  # so it goes by value
    first = codes.of(Kind)
    Kind.f = 3
    assert codes.of(Kind).data != first.data
    table = {1: 2}
    get = table.get
    first = codes.of(get)
    table[2] = 5
    assert codes.of(get).data != first.data
    for known in (abs, math.sqrt, dict.fromkeys, int, textwrap.dedent):
        assert codes.of(known) is codes.of(known)


def test_what_is_big_is_not_kept() -> None:
    def make(content: Any) -> weakref.ref[Any]:
        def f() -> Any:
            return content

        codes.of(f)
        return weakref.ref(f)

    codes = Codes()
    kept, *gone = (make(one) for one in (b"x", bytearray(1 << 20), [*range(1 << 16)]))
    gc.collect()
    assert kept() is not None
    assert [one() for one in gone] == [None, None]


def test_what_can_change_is_pickled_at_once() -> None:
    values = [1]
    call = pack(Codes().of(len), (values,), {})
    before = call.input[2]
    values.append(2)
    assert call.input[0] is None
    assert call.input[2] == before
    assert call.shown() == "len(…)"


def test_a_big_function_is_no_part_of_plain_inputs() -> None:
    table = bytes(1 << 20)
    call = pack(Codes().of(lambda i: table[i]), (1,), {})
    assert isinstance(call.input, Packed)
    assert call.input.code_buffers == 1


def test_the_argument_that_cannot_be_sent_is_named() -> None:
    codes = Codes()
    with pytest.raises(TypeError, match=r"call of len cannot be sent: argument 1 is a generator"):
        pack(codes.of(len), (1, (one for one in (1,))), {})
    with pytest.raises(TypeError, match=r"argument 'key' is a generator"):
        pack(codes.of(len), (), {"key": (one for one in (1,))})
    with pytest.raises(TypeError, match="must be callable"):
        codes.of(3)  # type: ignore[arg-type]


def test_options_are_checked_before_anything_starts() -> None:
    for make in (burla.Executor, burla.Pool):
        with pytest.raises(TypeError, match="'chunk' is no option of calls: there are func_cpu"):
            make(chunk=3)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="func_cpu must be at least 1"):
            make(func_cpu=0)
        with pytest.raises(ValueError, match=r"must be (greater than 0|at least 1)"):
            make(-1)
        with pytest.raises(TypeError, match="initializer must be a callable"):
            make(initializer=3)  # type: ignore[arg-type]
