"""Objects that answer for their attributes themselves travel as what they are."""

import functools
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import wrapt
from elsewhere import call_elsewhere

from burla.arguments import check_arguments, decide_unpack, name_of
from burla.values.attributes import answers_itself, dict_of
from burla.values.payloads import dump_error, dump_result, dumps, load_error, load_result, loads


class Delegating:
    """A proxy, endless while it is empty."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def __call__(self, x: Any) -> Any:
        return self.target(x)


class Refusing(Delegating):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Agreeing(Delegating):
    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


class Empty(Delegating):
    def __getattr__(self, name: str) -> Any:
        return None


class Hiding(Delegating):
    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name != "__class__":
            raise AttributeError(name)
        return object.__getattribute__(self, name)


class Lying(Delegating):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(name_of)


class Slotted:
    __slots__ = ("never", "target")

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def __call__(self, x: Any) -> Any:
        return self.target(x)


class Partial(functools.partial[Any]):
    def __getattr__(self, name: str) -> Any:
        return getattr(self.func, name)


class Record(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        return self[name]


class Listing(list[Any]):
    def __init__(self, *items: Any) -> None:
        super().__init__(items)
        self.target = {"x": "a list"}

    def __getattr__(self, name: str) -> Any:
        return self.target[name]


class Keeping(Delegating):
    def __getstate__(self) -> Any:
        return ("kept", object.__getattribute__(self, "target"))

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "target", state[1])


class New(tuple[Any, ...]):
    def __new__(cls, *items: Any, target: Any = None) -> "New":
        made = super().__new__(cls, items)
        vars(made)["target"] = target
        return made

    def __getnewargs__(self) -> Any:
        return tuple(self)

    def __getattr__(self, name: str) -> Any:
        return vars(self)["target"][name]


def double(x: Any) -> Any:
    return x * 2


def truth(obj: Any) -> Any:
    """Return what an object is and has."""
    kind = type(obj)
    slot = vars(kind).get("target")
    held = slot.__get__(obj) if slot is not None else dict_of(obj).get("target")
    return kind.__name__, str(held), [*obj] if issubclass(kind, list | tuple | dict) else None


ODD = (Delegating, Refusing, Agreeing, Empty, Hiding, Lying, Slotted, Keeping)
VALUES = [*(kind([1]) for kind in ODD), Record(a=1), Listing(1, 2), New(1, 2, target={"x": 3})]


def test_they_come_back_as_they_were() -> None:
    for value in VALUES:
        assert answers_itself(type(value)), type(value)
        back = loads(dumps(value))
        assert truth(back) == truth(value)
        assert type(back) is type(value)
        assert truth(load_result(dump_result([value]))[0]) == truth(value)
    with pytest.raises(AttributeError):
        vars(Slotted)["never"].__get__(loads(dumps(Slotted(1))))


def _of_main(kinds: tuple[type, ...]) -> list[type]:
    """Return the same classes as if a script had defined them."""
    made = []
    for kind in kinds:
        base = Delegating if issubclass(kind, Delegating) and kind is not Delegating else None
        attributes = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
        attributes.pop("target", None)
        attributes.pop("never", None)
        made.append(type(kind.__name__, (base or object,), attributes | {"__module__": "__main__"}))
    return made


def test_inputs_results_and_globals_of_a_script() -> None:
    kinds = _of_main(ODD)
    values = [kind([1]) for kind in kinds]
    for value, back in zip(values, call_elsewhere(lambda x: x, values), strict=True):
        assert type(back) is type(value)
        assert truth(back) == truth(value)
    found = call_elsewhere(lambda i: truth(values[i]), range(len(values)))
    assert found == [truth(value) for value in values]


@pytest.mark.parametrize(
    "function",
    [*(kind(double) for kind in ODD if kind is not Hiding), Partial(pow, 2), mock.Mock()],
    ids=lambda function: type(function).__name__,
)
def test_as_the_function(function: Callable[..., Any]) -> None:
    if isinstance(function, mock.Mock):
        function.side_effect = double
    check_arguments(function, [3])
    assert decide_unpack(function, inputs=[3]).unpack is False
    assert call_elsewhere(function, [3]) in ([6], [8])


def test_mocks() -> None:
    with_all = mock.MagicMock(side_effect=double)
    assert call_elsewhere(with_all, [2]) == [4]
    assert call_elsewhere(mock.create_autospec(double, return_value=7), [2]) == [7]
    assert call_elsewhere(lambda x: x, [mock.call(1, a=2)]) == [mock.call(1, a=2)]
    (back,) = call_elsewhere(lambda x: x, [mock.sentinel.something])
    assert back is mock.sentinel.something


class OddError(Exception):
    def __init__(self, values: dict[str, int]) -> None:
        super().__init__(values)
        self.values = values

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


def test_exceptions() -> None:
    frames = dump_error(OddError({"a": 1}), "n", 0)
    failure = load_error(frames)
    assert failure.problem == ""
    assert type(failure.exception) is OddError
    assert failure.exception.a == 1


def test_what_holds_more_than_python_sees_is_refused_as_ever() -> None:
    odd = type("Odd", (threading.local,), {"__getattr__": lambda self, name: None})
    with pytest.raises(TypeError, match="cannot pickle 'Odd' object"):
        dumps(odd())


@wrapt.decorator
def tenfold(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs) * 10


@tenfold
def decorated(x: int) -> int:
    return x + 1


class Decorated:
    @tenfold
    def method(self, x: int) -> int:
        return x + 2


def test_what_wrapt_decorates() -> None:
    assert loads(dumps(decorated)) is decorated
    here = tenfold(lambda x: x + 1)
    assert call_elsewhere(here, [1]) == [20]
    assert call_elsewhere(lambda x: here(x), [2]) == [30]
    assert call_elsewhere(Decorated().method, [1]) == [30]
    (back,) = call_elsewhere(lambda x: x, [wrapt.ObjectProxy([1])])
    assert type(back) is wrapt.ObjectProxy
    assert list(back) == [1]
