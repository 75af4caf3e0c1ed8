"""What is defined in a script comes back as itself: a script process, and another that calls."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
HEAD = f"""\
import sys
sys.path.append({str(SUPPORT)!r})
from elsewhere import call_elsewhere, outcomes_elsewhere
"""

pytestmark = pytest.mark.slow


def run_script(
    folder: Path, body: str, files: dict[str, str] | None = None, arguments: tuple[str, ...] = ()
) -> str:
    """Run a script in `folder`, beside which `files` lie; return what it printed."""
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(body))
    return run([*(arguments or (str(script),))], folder)


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_classes_enums_and_exceptions_come_back_as_the_same(tmp_path: Path) -> None:
    body = """
    import abc, collections, dataclasses, enum, typing

    class Color(enum.Enum):
        RED = 1
        CRIMSON = 1
        GREEN = 2

    class Planet(enum.Enum):
        EARTH = (5.97e24, 6.37e6)
        def __init__(self, mass, radius):
            self.mass = mass

    class Labelled(bytes, enum.Enum):
        P = (80, "label")
        def __new__(cls, value, label):
            member = bytes.__new__(cls, [value])
            member._value_ = value
            member.label = label
            return member

    class Number(enum.IntEnum):
        ONE = 1

    class Flags(enum.Flag):
        A = enum.auto()
        B = enum.auto()
        AB = A | B

    class Text(enum.StrEnum):
        X = enum.auto()

    @dataclasses.dataclass
    class Point:
        x: int
        made: typing.ClassVar[int] = 0
        def moved(self):
            Point.made += 1
            return Point(self.x + STEP)

    @dataclasses.dataclass(frozen=True, slots=True)
    class Slotted:
        a: int

    class Slots:
        __slots__ = ("a", "__hidden")
        def __init__(self):
            self.a = 1
            self.__hidden = 2
        def hidden(self):
            return self.__hidden

    class Pair(typing.NamedTuple):
        a: int
        b: str = "b"

    Old = collections.namedtuple("Old", "u v")

    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

    class Square(Shape):
        def area(self):
            return super().__eq__(1) and 4 or 4

    class MyError(Exception):
        pass

    T = typing.TypeVar("T")

    class Box(typing.Generic[T]):
        pass

    STEP = 10
    ALL = [Color, Planet, Labelled, Number, Flags, Text, Point, Slotted, Slots, Pair, Old, Shape,
           Square, MyError, Box, T]

    def function(what):
        if what == "classes":
            return ALL
        if what == "members":
            assert Planet.EARTH.mass == 5.97e24
            assert (Labelled.P.label, bytes(Labelled.P)) == ("label", b"P")
            assert Color.CRIMSON is Color.RED and Flags.AB == Flags.A | Flags.B
            assert Number(1) is Number.ONE and Text("x") is Text.X
            return [Color.RED, Planet.EARTH, Labelled.P, Number.ONE, Flags.A, Flags.AB, Text.X]
        if what == "instances":
            return [Point(1).moved(), Slotted(2), Slots(), Pair(3), Old(1, 2), Square(), Box()]
        raise MyError(what)

    def same(x):
        return x

    before = Point.moved
    outcomes = outcomes_elsewhere(function, ["classes", "members", "instances", "error"])
    for ours, theirs in zip(ALL, outcomes[0](), strict=True):
        assert ours is theirs, ours
    members = [Color.RED, Planet.EARTH, Labelled.P, Number.ONE, Flags.A, Flags.AB, Text.X]
    for ours, theirs in zip(members, outcomes[1](), strict=True):
        assert ours is theirs, ours.name
    instances = outcomes[2]()
    assert list(map(type, instances)) == [Point, Slotted, Slots, Pair, Old, Square, Box]
    assert instances[0] == Point(11) and instances[2].hidden() == 2
    assert not hasattr(instances[2], "__dict__")
    try:
        outcomes[3]()
    except MyError as error:
        assert error.args == ("error",)
    assert Point.moved is before and Point.made == 0  # not overwritten

    # classes that only inputs refer to, from a list and from an iterator
    for inputs in ([Color.RED, Point(1), Slots(), MyError("x"), Planet.EARTH, Box, Labelled.P],):
        for way in (list, iter):
            back = call_elsewhere(same, way(inputs))
            assert [type(x) for x in back] == [type(x) for x in inputs]
            assert back[0] is Color.RED and back[4] is Planet.EARTH and back[5] is Box
            assert back[6] is Labelled.P

    # one class in the worker for all inputs, and its attributes last from call to call
    moved = call_elsewhere(lambda p: (p.moved(), type(p).made), (Point(i) for i in range(600)))
    assert moved[599] == (Point(609), 600)
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"


def test_a_class_local_to_a_function_comes_back_as_the_same(tmp_path: Path) -> None:
    body = """
    def main():
        class Local:
            pass
        class LocalError(Exception):
            pass
        def function(x):
            if x:
                raise LocalError(x)
            return Local()
        assert type(call_elsewhere(function, [0])[0]) is Local
        try:
            call_elsewhere(function, [1])
        except LocalError as error:
            assert error.burla_input_index == 0
            print("done")
    main()
    """
    assert run_script(tmp_path, body) == "done\n"


def test_functions_and_methods_share_one_set_of_globals_in_the_worker(tmp_path: Path) -> None:
    body = """
    seen = []

    class Task:
        def run(self):
            seen.append("method")
            return len(seen)

    def function(task):
        seen.append("function")
        return task.run() if hasattr(task, "run") else task()

    def helper():
        seen.append("helper")
        return list(seen)

    assert call_elsewhere(function, iter([Task(), Task(), helper]))[-1] == [
        "function", "method", "function", "method", "function", "helper"]
    assert seen == []
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"


def test_main_in_the_worker_stands_for_the_script_but_its_body_is_not_run_again(
    tmp_path: Path,
) -> None:
    body = """
    import __main__, dataclasses, pickle, typing
    print("body")

    @dataclasses.dataclass
    class Node:
        next: "Node | None" = None

    def function(x):
        import __main__, sys
        assert pickle.loads(pickle.dumps(Node(Node()))) == Node(Node())
        assert pickle.loads(pickle.dumps(function)) is function
        assert typing.get_type_hints(Node)["next"] == (Node | None)
        assert __main__.Node is Node and sys.modules["__main__"] is __main__
        return __main__.__file__, sys.argv, __name__

    (found,) = call_elsewhere(function, [1])
    assert found == (__main__.__file__, sys.argv, "__main__"), found
    """
    assert run_script(tmp_path, body) == "body\n"


def test_modules_beside_the_script_load_under_their_own_names(tmp_path: Path) -> None:
    body = """
    import helpers, worker, package.inner, random
    from utils import Thing

    def function(x):
        import late
        import os
        assert Thing.__module__ == "utils" and late.VALUE == 5
        assert os.path.exists("script.py")
        return [Thing(x), helpers.double(x), worker.NAME, package.inner.__name__, random.mine]

    (found,) = call_elsewhere(function, [3])
    assert type(found[0]) is Thing
    assert found[1:] == [6, "my worker", "package.inner", True], found
    assert call_elsewhere(helpers.double, [4]) == [8]
    try:
        call_elsewhere(helpers.fail, [1])
    except helpers.MyError as error:
        import traceback
        assert "raise MyError(x)  # here" in traceback.format_exc()
        print("done")
    """
    files = {
        "helpers.py": """
            class MyError(Exception): pass
            def double(x): return x * 2
            def fail(x):
                raise MyError(x)  # here
            """,
        "utils.py": "class Thing:\n    def __init__(self, x): self.x = x\n",
        "worker.py": "NAME = 'my worker'\n",
        "late.py": "VALUE = 5\n",
        "random.py": "from _random import Random\nmine = True\n",
        "pickling.py": "raise SystemExit('not yours')\n",
        "package/__init__.py": "",
        "package/inner.py": "",
    }
    assert run_script(tmp_path, body, files) == "done\n"


def test_a_package_run_with_dash_m_may_import_relatively(tmp_path: Path) -> None:
    body = (
        HEAD
        + "from . import part\n"
        + "def function(x):\n    from . import other\n    return part.ONE + other.TWO + x\n"
        + "assert call_elsewhere(function, [4]) == [7]\nprint('done')\n"
    )
    package = tmp_path / "program"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(body)
    (package / "part.py").write_text("ONE = 1\n")
    (package / "other.py").write_text("TWO = 2\n")
    assert run(["-m", "program"], tmp_path) == "done\n"


def test_a_command_line_program_finds_modules_in_its_working_directory(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 3\n")
    program = HEAD + "import beside\nprint(call_elsewhere(lambda x: beside.VALUE * x, [2]))\n"
    assert run(["-c", program], tmp_path) == "[6]\n"


def test_a_module_made_by_code_travels_by_value(tmp_path: Path) -> None:
    body = """
    import textwrap, types
    made = types.ModuleType("made")
    sys.modules["made"] = made
    exec(textwrap.dedent('''
    COUNT = 0
    class Thing:
        pass
    def count():
        global COUNT
        COUNT += 1
        return COUNT
    def thing():
        return Thing()
    '''), made.__dict__)

    assert call_elsewhere(lambda x: [made.count(), made.count(), made.COUNT], [0]) == [[1, 2, 2]]
    def by_import(x):
        import made as known  # found, because the function refers to the module as well
        return known is made
    assert call_elsewhere(by_import, [0]) == [True]
    assert type(call_elsewhere(lambda x: made.thing(), [0])[0]) is made.Thing
    assert call_elsewhere(made.count, iter([()])) == [1]
    assert made.COUNT == 0
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"


def test_globals_are_those_at_the_call(tmp_path: Path) -> None:
    body = """
    factor = 1
    def function(x):
        return x * factor
    for factor in (2, 3):
        print(call_elsewhere(function, [10]))
    """
    assert run_script(tmp_path, body) == "[20]\n[30]\n"


def test_loading_a_function_again_starts_anew(tmp_path: Path) -> None:
    body = """
    import pickle, subprocess, textwrap
    from burla.values.payloads import dump_function, dump_result, load_result
    seen = []
    class Counter:
        count = 0
    def function(x):
        seen.append(x)
        Counter.count += 1
        return len(seen), Counter.count, Counter
    frames = pickle.dumps(dump_function(function))
    code = textwrap.dedent('''
    import pickle, sys
    from burla.values.payloads import apply_environment, dump_result, load_function
    frames = pickle.loads(sys.stdin.buffer.read())
    here = {"path": [], "directory": None, "shadowed": [], "argv": [], "main": {}}
    def load_and_call():
        apply_environment(here)
        function = load_function(frames)
        function(1)
        return dump_result(function(2))
    results = [load_and_call(), load_and_call()]
    sys.stdout.buffer.write(pickle.dumps(results))
    ''')
    done = subprocess.run([sys.executable, "-c", code], input=frames, stdout=-1, check=True)
    for result in pickle.loads(done.stdout):
        first, second, cls = load_result(result)
        assert (first, second) == (2, 2) and cls is Counter
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"


def test_a_result_may_be_a_function_or_a_class_made_in_the_worker(tmp_path: Path) -> None:
    body = """
    step = 5
    def adder(x):
        class Made:
            def value(self):
                return x + step
        return Made(), (lambda y: x + y + step), Made
    ((thing, function, cls),) = call_elsewhere(adder, [1])
    assert thing.value() == 6 and function(2) == 8 and type(thing) is cls
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"


def test_cached_functions_and_properties_and_dispatch_travel_without_their_caches(
    tmp_path: Path,
) -> None:
    body = """
    import functools

    @functools.cache
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    class Thing:
        @functools.cached_property
        def size(self):
            return 7

        @functools.lru_cache(maxsize=5)
        def add(self, x):
            return x + self.size

    @functools.singledispatch
    def kind(x):
        return "any"

    @kind.register
    def _(x: int):
        return "int"

    thing = Thing()
    fib(50)

    def call(n):
        hits = fib.cache_info().currsize
        return fib(n), hits, thing.add(n), Thing.add.cache_parameters()["maxsize"], kind(n)

    assert call_elsewhere(call, [30]) == [(832040, 0, 37, 5, "int")]
    assert call_elsewhere(fib, [30]) == [832040]
    print("done")
    """
    assert run_script(tmp_path, body) == "done\n"
