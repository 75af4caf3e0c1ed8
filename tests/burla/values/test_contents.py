"""Digests of contents: the same in every process for what is the same, and for nothing else."""

import copy
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest

from burla.values.contents import NO_DIGEST, Contents, FunctionContents, digest_of_source

FACTOR = 3


@dataclass
class Point:
    """What tests hand in."""

    x: int
    names: frozenset[str] = frozenset()


def of(value: Any) -> bytes:
    return Contents().of(value)


PAIRS = np.dtype([("a", "i4"), ("b", "f4")])
ONE_PLACE = np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 0]})
GENERATED = (one for one in "abc")  # cannot be pickled
VALUES = [
    *(0, 1, 1.0, True, None, "1", b"1", 1j, 2**70, "", (), (1,), (1, "a"), ("a", "b"), ((1,), 2)),
    *([], [1], [[1]], {}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1, 2}, {1, 3}, frozenset((1, 2))),
    *(np.arange(3), np.arange(3.0), np.arange(3).reshape(1, 3), np.int64(1), np.float32(1)),
    *(
        np.array(1),
        np.arange(3).reshape(1, 3).view(np.matrix),
        np.zeros(1, "i4"),
        np.zeros(1, ">i4"),
        np.zeros(1, "M8[s]"),
    ),
    *(np.zeros(2, PAIRS), np.ones(2, PAIRS), np.zeros(2, PAIRS).view(np.recarray), PAIRS),
    *(
        np.zeros(2, ONE_PLACE),
        np.ones(2, ONE_PLACE),
        np.zeros(1, np.dtype("i8", metadata={"a": 1})),
    ),
    *(Point(1), Point(2), Point(1, frozenset("a")), range(3), len, dict, "a" * 100, "b" * 100),
]


def test_what_differs_has_other_digests() -> None:
    digests = [of(value) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert NO_DIGEST not in digests


def test_what_is_equal_has_the_same_digest_whatever_objects_it_is_of() -> None:
    word = "".join(["wo", "rd"])
    assert of((word, word)) == of(("word", "".join(["w", "ord"])))
    assert of([{"k": word}, word]) == of([{"".join(["k"]): "word"}, "".join(["wor", "d"])])
    assert of({"a", "b", "c"}) == of({"c", "b", "a"})
    assert of(np.arange(6).reshape(2, 3)) == of(np.asfortranarray(np.arange(6).reshape(2, 3)))
    assert of(Point(1, frozenset(("a", "b")))) == of(Point(1, frozenset(("b", "a"))))


def test_rows_of_an_array_and_many_values_have_the_digests_that_they_have_alone() -> None:
    plain = (np.arange(5), np.arange(6.0).reshape(3, 2), np.zeros((2, 0)), np.array(["a", "bc"]))
    for array in (*plain, np.zeros(2, PAIRS), np.zeros((2, 3), ONE_PLACE)):
        assert Contents().of_rows(array) == b"".join(map(of, array))
    assert Contents().of_each(VALUES) == b"".join(map(of, VALUES))


def test_an_input_that_holds_itself_has_a_digest_and_one_that_cannot_be_pickled_none() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert of(ring) != NO_DIGEST
    contents = Contents()
    assert contents.of(iter(GENERATED)) == NO_DIGEST
    assert contents.of([1]) == of([1])


class Registered:
    """Its class holds itself in a set, and so does each instance."""

    all_: ClassVar[set[Any]] = set()

    def __init__(self, x: int) -> None:
        self.x, self.near = x, {self}
        Registered.all_.add(Registered)


def test_what_holds_itself_in_a_set_has_a_digest() -> None:
    contents = Contents(frozenset((__name__,)))
    assert contents.of(Registered(1)) == contents.of(Registered(1))
    assert len({contents.of(Registered(1)), contents.of(Registered(2)), NO_DIGEST}) == 3
    assert parts_of(made(Registered)) == parts_of(made(Registered))


def test_inputs_of_a_module_are_others_when_that_is_another() -> None:
    state = {__name__: b"one", "decimal": b""}
    imports = made(0, "__import__('helpers') and x")  # runs in the worker, by value
    values = [Point(1), [Point], parts_of, [imports], 1, (1, 2), [len], np.arange(2)]

    def digests() -> list[bytes]:
        contents = Contents(module=lambda name: state.get(name, b""))
        assert [contents.of(value) for value in values] == [contents.of(one) for one in values]
        return [contents.of(value) for value in values]

    before = digests()
    state[__name__] = b"two"
    changed = [new != old for new, old in zip(digests(), before, strict=True)]
    assert changed == [True] * 3 + [False] * 5
    state["helpers"] = b"one"
    changed = [new != old for new, old in zip(digests(), before, strict=True)]
    assert changed == [True] * 4 + [False] * 4


def test_a_tuple_that_is_unpacked_is_another_input() -> None:
    assert Contents(unpack=None).of((1, 2)) != of((1, 2))
    assert Contents(unpack=None).of([1, 2]) == of([1, 2])
    assert Contents(unpack=True).of_each(["ab"]) != Contents().of_each(["ab"])


SCRIPT = """
import sys
from dataclasses import dataclass
from typing import Generic, TypeVar
from burla.values.contents import Contents, FunctionContents
{moved}
Kind = TypeVar("Kind")
LIMITS = {{"a", "b", "cc"}}
@dataclass
class Point(Generic[Kind]):
    x: int
    names: frozenset = frozenset()
def helper(x):
    return helper(x - 1) if x in {{"one", "two", "three"}} else LIMITS
def f(x, y={default}):
    return helper(x) + y + Point(x).x {comment}
parts = FunctionContents(f, frozenset()).parts
print(sorted((name, part.hex()) for name, part in parts.items()))
print(Contents().of(Point(1, frozenset(("q", "r")))).hex(), Contents().of({{"a", "b"}}).hex())
"""


def run(seed: int, moved: str = "", default: int = 1, comment: str = "") -> str:
    text = SCRIPT.format(moved=moved, default=default, comment=comment)
    line = [sys.executable, "-c", text]
    return subprocess.check_output(line, text=True, env={"PYTHONHASHSEED": str(seed)})


def test_digests_are_those_of_other_processes_wherever_the_code_stands() -> None:
    first = run(1)
    assert run(2, moved="\n\nUNUSED = 1", comment="# as said") == first
    assert run(3, default=2) != first


def parts_of(function: Any) -> dict[str, bytes]:
    return FunctionContents(function, frozenset()).parts


def made(value: Any, code: str = "x + y") -> Any:
    space: dict[str, Any] = {"y": value, "__name__": "__main__"}
    exec(f"def f(x):\n    return {code}", space)  # as a script has it
    return space["f"]


def test_it_can_be_told_what_of_a_function_has_changed() -> None:
    before = parts_of(made(1))
    for other, changed in ((made(2), {"y"}), (made(1, "x - y"), {"its code"}), (made(1), set())):
        after = parts_of(other)
        assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("name", ["code", "self", "function", "its", "y"])
def test_no_variable_hides_another_part_of_a_function(name: str) -> None:
    def f(code: str, value: int = 1, inner: int = 1) -> Any:
        space: dict[str, Any] = {name: value, "__name__": "__main__"}
        text = f"def of({name}):\n def f(x):\n  def g():\n   global {name}\n   return {name}\n"
        exec(f"{text}  return ({code}, {name}, g())\n return f\nf = of({inner})", space)
        return space["f"]

    before = parts_of(f("x"))
    assert parts_of(f("x")) == before
    for other in (f("x + 1"), f("x", value=2), f("x", inner=2)):
        assert parts_of(other) != before


def test_what_is_found_by_a_name_is_its_name() -> None:
    found = FunctionContents(partial(pow, 2), frozenset())
    assert found.parts != FunctionContents(partial(pow, 3), frozenset()).parts
    assert FunctionContents(test_what_differs_has_other_digests, frozenset()).modules == {__name__}


def test_a_function_that_refers_to_what_cannot_be_pickled_has_no_digest() -> None:
    with pytest.raises(TypeError):
        parts_of(made(GENERATED))


CLASSES = """
def made():
    class Inner:
        x = {x}
        def __init__(self):
            self.first, self.second, self.third, self.fourth = 1, 2, 3, 4
    return Inner
"""


def test_what_looking_at_a_class_has_noted_there_does_not_count() -> None:
    class Plain:
        pass

    class Other:
        x: int = 0

    before, other = of(Plain), of(Other)
    copy.copy(Plain())  # notes its slots
    assert Plain.__annotations__ == {}  # asked for, they are there
    assert "__slotnames__" in vars(Plain)
    assert (of(Plain), of(Other)) == (before, other)


def test_the_line_of_a_class_does_not_count() -> None:
    texts = [b"\n" * lines + CLASSES.format(x=7).encode() for lines in (0, 1, 30)]
    assert len(set(map(digest_of_source, texts))) == 1
    # what is the number of the line by chance is not taken for it
    others = [b"\n" * (x - 3) + CLASSES.format(x=x).encode() for x in (3, 4, 5, 300, 301)]
    assert len(set(map(digest_of_source, others))) == len(others)
    line = [
        sys.executable,
        "-c",
        f"from burla.values.contents import *\nprint(digest_of_source({texts[0]!r}))",
    ]
    found = [
        subprocess.check_output(line, env={"PYTHONHASHSEED": str(seed)}, text=True)
        for seed in range(1, 4)
    ]
    assert len(set(found)) == 1


def test_comments_in_a_module_do_not_count() -> None:
    assert digest_of_source(b"x = 1\n") == digest_of_source(b"# more\n\nx = 1  # one\n")
    assert digest_of_source(b"x = 1\n") != digest_of_source(b"x = 2\n")
    assert digest_of_source(b"x = = 1\n") != digest_of_source(b"x = = 2\n")
