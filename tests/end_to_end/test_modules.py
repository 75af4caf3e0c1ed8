"""What the caller could import, a function can, under the same name and as it stands now."""

import subprocess
import sys
from pathlib import Path

import pytest
from scripts import environment, run, succeed, write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def test_modules_beside_the_script(tmp_path: Path) -> None:
    write(tmp_path, helper="def triple(x): return x * 3")
    source = """
    import helper
    from burla import remote_parallel_map

    def early(x):
        return helper.triple(x), helper.__name__

    def late(x):
        from helper import triple
        return triple(x), triple.__module__

    print(remote_parallel_map(early, [1]), remote_parallel_map(late, [2]))
    print(remote_parallel_map(helper.triple, [3]))
    """
    assert succeed(source, tmp_path) == "[(3, 'helper')] [(6, 'helper')]\n[9]\n"


def test_packages_beside_the_script(tmp_path: Path) -> None:
    inner = tmp_path / "tools" / "inner"
    inner.mkdir(parents=True)
    write(tmp_path / "tools", __init__="from .shapes import area", shapes="def area(x): return x*x")
    write(inner, __init__="", deep="from ..shapes import area\nclass Deep:\n    size = area(3)")
    (tmp_path / "space").mkdir()
    write(tmp_path / "space", part="WORD = 'namespace package'")
    (tmp_path / "tools" / "data.txt").write_text("package data")
    source = """
    import tools, space.part
    from tools.inner.deep import Deep
    from burla import remote_parallel_map

    def use(x):
        import pkgutil
        import tools.inner.deep
        assert tools.inner.deep.Deep is Deep
        return tools.area(x), Deep.size, space.part.WORD, pkgutil.get_data("tools", "data.txt")

    print(remote_parallel_map(use, [2]))
    (deep,) = remote_parallel_map(lambda x: Deep(), [0])
    assert type(deep) is Deep
    """
    expected = "[(4, 9, 'namespace package', b'package data')]\n"
    assert succeed(source, tmp_path) == expected


@pytest.mark.parametrize("private", [False, True])
def test_the_users_own_modules_of_any_name(private: bool, tmp_path: Path) -> None:
    """Names that the standard library, burla itself or its helpers use as well."""
    names = ["worker", "utils", "random", "config", "client", "queue_", "zygote", "core", "errors"]
    names += ["pipes", "session", "values", "wire", "scheduler", "nodelet", "cli", "tempfile_"]
    write(tmp_path, **{name: f"WORD = 'my own {name}'" for name in names})
    source = f"""
    import {", ".join(names)}
    from burla import remote_parallel_map

    def words(name):
        import importlib
        return importlib.import_module(name).WORD

    names = {names}
    assert random.WORD == "my own random"
    assert remote_parallel_map(lambda x: random.WORD, [0]) == ["my own random"]
    results = remote_parallel_map(words, names)
    assert results == ["my own " + name for name in names], results
    print("fine")
    """
    assert succeed(source, tmp_path, private=private) == "fine\n"


def test_the_working_directory_and_sys_path(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "lib").mkdir()
    write(tmp_path / "lib", far_away="WORD = 'far'")
    (tmp_path / "work" / "data.txt").write_text("data")
    source = """
    import os, sys
    from burla import remote_parallel_map
    sys.path.append("../lib")

    def use(x):
        import far_away
        return os.getcwd(), open("data.txt").read(), far_away.WORD, sys.argv[1:]

    print(remote_parallel_map(use, [0]) == [(os.getcwd(), "data", "far", sys.argv[1:])])
    os.chdir("..")
    print(remote_parallel_map(lambda x: os.getcwd(), [0]) == [os.getcwd()])
    """
    write(tmp_path, script=source)
    line = (str(tmp_path / "script.py"), "argument")
    assert succeed(line, tmp_path, cwd=tmp_path / "work") == "True\nTrue\n"


def test_modules_are_fresh_in_each_job_and_as_they_stand_at_the_call(tmp_path: Path) -> None:
    write(tmp_path, changing="VALUE = 1\nCALLS = []")
    source = """
    import importlib, os, sys
    from burla import remote_parallel_map
    sys.dont_write_bytecode = True

    def use(x):
        import changing
        changing.CALLS.append(x)
        return changing.VALUE

    assert remote_parallel_map(use, [1, 2]) == [1, 1]

    def calls(x):
        import changing
        return len(changing.CALLS)

    assert remote_parallel_map(calls, [0]) == [0]
    with open(os.path.join(os.path.dirname(__file__), "changing.py"), "w") as file:
        file.write("VALUE = 'changed'\\nCALLS = []")
    assert remote_parallel_map(use, [1, 2]) == ["changed", "changed"]

    with open(os.path.join(os.path.dirname(__file__), "made_later.py"), "w") as file:
        file.write("VALUE = 3")
    def use_late(x):
        import made_later
        return made_later.VALUE
    assert remote_parallel_map(use_late, [1]) == [3]
    print("fine")
    """
    assert succeed(source, tmp_path) == "fine\n"


def test_state_of_one_job_is_not_there_in_the_next(tmp_path: Path) -> None:
    source = """
    import os, sys, json
    from burla import remote_parallel_map

    def leave_traces(x):
        os.environ["TRACE"] = "1"
        json.trace = 1
        sys.modules["trace_module"] = json
        os.chdir("/")
        return 1

    def traces(x):
        return os.environ.get("TRACE"), hasattr(json, "trace"), "trace_module" in sys.modules

    here = os.getcwd()
    assert remote_parallel_map(leave_traces, range(4)) == [1] * 4
    assert remote_parallel_map(traces, range(4)) == [(None, False, False)] * 4
    assert remote_parallel_map(lambda x: os.getcwd(), [0]) == [here]
    print("fine")
    """
    assert succeed(source, tmp_path) == "fine\n"


def test_python_dash_c(tmp_path: Path) -> None:
    write(tmp_path, beside="WORD = 'beside'")
    text = "from burla import remote_parallel_map as m; import beside; "
    text += "print(m(lambda x: (x * 2, beside.WORD), [1, 2]))"
    expected = "[(2, 'beside'), (4, 'beside')]\n"
    assert succeed(("-c", text), tmp_path, cwd=tmp_path) == expected


def test_python_dash_m_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    write(
        package,
        __init__="",
        helper="def triple(x): return x * 3",
        __main__="""
        from burla import remote_parallel_map
        from .helper import triple
        def use(x):
            from . import helper
            return triple(x) + helper.triple(x)
        print(remote_parallel_map(use, [1, 2]))
        """,
    )
    assert succeed(("-m", "app"), tmp_path, cwd=tmp_path) == "[6, 12]\n"


def test_a_repl(tmp_path: Path) -> None:
    write(tmp_path, beside="WORD = 'beside'")
    typed = [
        "from burla import remote_parallel_map",
        "import beside",
        "class Point:",
        "    def __init__(self, x): self.x = x",
        "",
        "def move(p):",
        "    return Point(p.x + 1), beside.WORD",
        "",
        "((point, word),) = remote_parallel_map(move, [Point(1)])",
        "print(type(point) is Point, point.x, word)",
        "try: remote_parallel_map(lambda x: 1 // x, [0])",
        "except ZeroDivisionError as error: print('index', error.burla_input_index)",
        "",
        "[_] = remote_parallel_map(lambda x: print('printed'), [0])",
    ]
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="\n".join(typed) + "\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(False, None),
        timeout=50,
        check=True,
    )
    assert done.stdout == "True 2 beside\nindex 0\nprinted\n", done.stderr


def test_a_script_from_stdin(tmp_path: Path) -> None:
    source = "from burla import remote_parallel_map as m\nprint(m(lambda x: x * 2, [1, 2]))\n"
    done = run(("-",), tmp_path, input=source)
    assert (done.stdout, done.stderr) == ("[2, 4]\n", "")


def test_modules_that_no_file_holds(tmp_path: Path) -> None:
    source = """
    import sys, types
    from burla import remote_parallel_map
    made = types.ModuleType("made")
    exec("def f(x): return x + FIVE\\nFIVE = 5", vars(made))
    sys.modules["made"] = made
    print(remote_parallel_map(made.f, [1]), remote_parallel_map(lambda x: made.f(x), [2]))
    """
    assert succeed(source, tmp_path) == "[6] [7]\n"
