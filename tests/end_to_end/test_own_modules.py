"""What the caller can import is there on machines that cannot see its directories.

A table of kinds: each is a project of its own, whose script runs as a user would run it.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from clusters import cluster
from scripts import run, succeed, write

from burla import remote_parallel_map

pytestmark = pytest.mark.slow

HEAD = "from burla import remote_parallel_map as rpm\n"


@pytest.fixture(scope="module", autouse=True)
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run two nodes that cannot see the caller's directories, as others could not."""
    directory = tmp_path_factory.mktemp("c")
    with cluster(directory, 1, 1, bind="tcp://127.0.0.1:0", isolation="best"):
        if remote_parallel_map(os.path.exists, [str(directory)])[0]:
            pytest.skip("this machine cannot hide a directory")
        yield


def files(directory: Path, **texts: str) -> None:
    """Write files; `a__b="..."` becomes a/b.py."""
    for name, text in texts.items():
        path = directory.joinpath(*name.split("__in__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


SIBLING = {
    "files": {"helpers": "WORD = 'mine'\ndef use(x): return WORD"},
    "script": """
        import helpers
        print(rpm(helpers.use, [1]), rpm(lambda x: helpers.use(x), [1]))
    """,
    "says": "['mine'] ['mine']",
}
LAZY = {
    "files": {
        "late": "import later\ndef use(x):\n    import latest\n    return later.W + latest.W",
        "later": "W = 'later '",
        "latest": "W = 'latest'",
    },
    "script": """
        def f(x):
            import late
            return late.use(x)
        print(rpm(f, [1]))
    """,
    "says": "['later latest']",
}
PACKAGE = {
    "files": {
        "tools__in____init__": "from .shapes import area",
        "tools__in__shapes": "def area(x): return x * x",
        "tools__in__inner____in____init__": "",
        "tools__in__inner__in__deep": "from ..shapes import area\nclass Deep:\n    size = area(3)",
    },
    "script": """
        from tools.inner.deep import Deep
        import tools
        (deep,) = rpm(lambda x: Deep(), [0])
        print(type(deep) is Deep, rpm(lambda d: (d.size, tools.area(2)), [Deep()]))
    """,
    "says": "True [(9, 4)]",
}
NAMESPACE = {
    "files": {"space__in__part": "W = 'part'", "space__in__sub__in__more": "W = 'more'"},
    "script": """
        import space.part
        def f(x):
            from space.sub import more
            return space.part.W, more.W
        print(rpm(f, [1]))
    """,
    "says": "[('part', 'more')]",
}
NAMED_LIKE_OTHERS = {
    "files": {
        "statistics": "W = 'own'",
        "numpy": "W = 'own'",
        "queue": "W = 'own'",
        "worker": "W = 'own'",
    },
    "script": """
        import statistics
        def f(x):
            import numpy, queue, worker
            return [one.W for one in (statistics, numpy, queue, worker)]
        print(rpm(f, [1]))
        def standard(x):
            import colorsys, decimal, json
            return int(decimal.Decimal(x) + 1)
        print(rpm(standard, [1]))
    """,
    "says": "[['own', 'own', 'own', 'own']]\n[2]",
}
CIRCULAR = {
    "files": {
        "one": "import two\ndef use(x): return two.use(x)\nW = 1",
        "two": "import one\ndef use(x): return one.W + x",
    },
    "script": "import one\nprint(rpm(one.use, [1]))",
    "says": "[2]",
}
SYNTAX_ERROR = {
    "files": {"broken": "def f(:\n    pass", "fine": "W = 1"},
    "script": """
        import fine
        def f(x):
            try:
                import broken
            except SyntaxError as error:
                return error.filename.rpartition("/")[2], error.lineno, fine.W
        print(rpm(f, [1]))
    """,
    "says": "[('broken.py', 1, 1)]",
}
BY_CODE = {
    "files": {"lib__in__far": "W = 'far'"},
    "script": """
        import os, sys
        sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
        def f(x):
            import far
            return far.W
        print(rpm(f, [1]))
    """,
    "says": "['far']",
}
BY_NAME = {
    "files": {"plugins__in____init__": "", "plugins__in__a": "W = 'a'", "beside": "W = 'b'"},
    "script": """
        import importlib
        def f(name):
            return importlib.import_module(name).W
        print(rpm(f, ["plugins.a", "beside"]))
    """,
    "says": "['a', 'b']",
}
OF_INPUTS = {
    "files": {"models": "import dataclasses\n@dataclasses.dataclass\nclass User:\n    name: str"},
    "script": """
        import models
        def f(user): return user
        print(rpm(f, [models.User("x")]))
    """,
    "says": "[User(name='x')]",
}
TABLE = {
    name: row for name, row in globals().copy().items() if isinstance(row, dict) and "says" in row
}


@pytest.mark.parametrize("kind", TABLE)
def test_modules_of_all_kinds_are_there(kind: str, tmp_path: Path) -> None:
    row = TABLE[kind]
    files(tmp_path, **row["files"])
    assert succeed(HEAD + dedent(row["script"]), tmp_path) == row["says"] + "\n"


def test_what_is_told_by_files_and_data(tmp_path: Path) -> None:
    files(tmp_path, pkg__in____init__="", plain="")
    (tmp_path / "pkg" / "assets-1.0" / "deep").mkdir(parents=True)
    (tmp_path / "pkg" / "assets-1.0" / "deep" / "words.txt").write_text("data")
    (tmp_path / "pkg" / "link.txt").symlink_to("assets-1.0/deep/words.txt")
    (tmp_path / "pkg" / "up").symlink_to("..")
    (tmp_path / "real.py").write_text("W = 'linked'")
    (tmp_path / "linked.py").symlink_to("real.py")
    source = f"""{HEAD}
import pkg, linked, plain
def f(x):
    import importlib.resources, os, pkgutil
    data = importlib.resources.files("pkg").joinpath("assets-1.0/deep/words.txt").read_text()
    beside = open(os.path.join(os.path.dirname(pkg.__file__), "link.txt")).read()
    return data, beside, pkgutil.get_data("pkg", "link.txt"), linked.W
print(rpm(f, [1]))
def write(x):
    for path in (plain.__file__, os.path.join(os.path.dirname(plain.__file__), "new.py")):
        try:
            open(path, "a")
            return path
        except OSError:
            pass
import os
print(rpm(write, [1]))
"""
    assert succeed(source, tmp_path) == "[('data', 'data', b'data', 'linked')]\n[None]\n"


def test_an_edit_between_two_maps_is_the_new_code_at_once(tmp_path: Path) -> None:
    source = f"""{HEAD}
import os, time
here = os.path.dirname(os.path.abspath(__file__))
def put(name, text):
    with open(os.path.join(here, name), "w") as file:
        file.write(text)
put("changing.py", "W = 'begin'")
put("outer.py", "import changing\\ndef use(x): return changing.W")
import outer
for number in range(20):
    put("changing.py", f"W = '{{number:05}}'")  # of the same size, maybe in the same tick
    assert rpm(outer.use, [1]) == [f"{{number:05}}"], number
def late(x):
    import made_later
    return made_later.W
try:
    rpm(late, [1])
except ModuleNotFoundError as error:
    print(error.name)
put("made_later.py", "W = 1")
began = time.monotonic()
print(rpm(late, [1]), time.monotonic() - began < 0.5)
os.unlink(os.path.join(here, "made_later.py"))
try:
    rpm(late, [1])
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert succeed(source, tmp_path) == "made_later\n[1] True\nmade_later\n"


def test_two_jobs_at_once_have_each_their_own_version(tmp_path: Path) -> None:
    script = """
    import sys, time
    import version
    from burla import remote_parallel_map as rpm
    def f(x):
        import version
        time.sleep(0.1)
        return version.W
    print(set(rpm(f, range(4))))
    """
    running = []
    for word in ("one", "two"):
        (tmp_path / word).mkdir()
        write(tmp_path / word, version=f"W = {word!r}", script=script)
        line = [sys.executable, str(tmp_path / word / "script.py")]
        running.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=50)[0] for process in running]
    assert said == ["{'one'}\n", "{'two'}\n"]


def test_tracebacks_show_the_callers_files_and_lines(tmp_path: Path) -> None:
    files(tmp_path, faulty="def fail(x):\n    unused = x\n    return 1 // 0  # here\n")
    done = run(HEAD + "import faulty\nrpm(faulty.fail, [1])", tmp_path)
    assert f'File "{tmp_path}/faulty.py", line 3, in fail\n    return 1 // 0  # here' in done.stderr
    assert "own-modules" not in done.stderr


def test_python_dash_m_of_a_package_and_the_import_path_of_a_variable(tmp_path: Path) -> None:
    files(tmp_path, app__in____init__="", app__in__helper="def triple(x): return x * 3")
    files(tmp_path, elsewhere__in__by_variable="W = 'variable'")
    main = f"""{HEAD}
from .helper import triple
def use(x):
    from . import helper
    import by_variable
    return triple(x) + helper.triple(x), by_variable.W
print(rpm(use, [1]))
"""
    files(tmp_path, app__in____main__=main)
    env = os.environ | {"PYTHONPATH": str(tmp_path / "elsewhere")}
    assert succeed(("-m", "app"), tmp_path, cwd=tmp_path, env=env) == "[(6, 'variable')]\n"


def test_an_editable_install_and_its_metadata(tmp_path: Path) -> None:
    """As setuptools makes one: a finder in site-packages, and metadata that name the project."""
    project, site = tmp_path / "project", tmp_path / "lib" / "site-packages"
    version = "import importlib.metadata\nW = importlib.metadata.version('editable-project')"
    files(project, src__in__edited__in____init__=version)
    info = site / "editable_project-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: editable-project\nVersion: 1.5\n")
    url = f'{{"url": "file://{project}", "dir_info": {{"editable": true}}}}'
    (info / "direct_url.json").write_text(url)
    finder = f"""
    import sys
    from importlib.util import spec_from_file_location
    class _EditableFinder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "edited":
                return spec_from_file_location(name, {str(project / "src/edited/__init__.py")!r})
    def install(): sys.meta_path.append(_EditableFinder)
    """
    files(site, __editable___project_1_5_finder=finder)
    source = f"""import sys; sys.path.append({str(site)!r})
import __editable___project_1_5_finder; __editable___project_1_5_finder.install()
{HEAD}
def f(x):
    import edited
    return edited.W
print(rpm(f, [1]))
"""
    assert succeed(source, tmp_path) == "['1.5']\n"


def test_a_zip_file_on_the_path(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("zipped.py", "import beside_zip\ndef use(x): return beside_zip.W")
        archive.writestr("lib/deeper.py", "W = 'deeper'")
    files(tmp_path, beside_zip="W = 'beside'")
    source = f"""import sys
sys.path += [{str(tmp_path / "archive.zip")!r} + inside for inside in ("", "/lib")]
{HEAD}
import zipped
def f(x):
    import deeper
    return deeper.W
print(rpm(zipped.use, [1]), rpm(f, [1]))
"""
    assert succeed(source, tmp_path) == "['beside'] ['deeper']\n"


def test_an_extension_module(tmp_path: Path) -> None:
    """One of the standard library, under the name that it was built for."""
    found = [*Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("_json.*.so")]
    if not found:
        pytest.skip("this Python has all of it built in")
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "__init__.py").write_text("")
    (tmp_path / "native" / found[0].name).write_bytes(found[0].read_bytes())
    source = f"{HEAD}import native._json\nprint(rpm(lambda x: native._json.__file__[-3:], [1]))"
    assert succeed(source, tmp_path) == "['.so']\n"


def test_a_file_that_cannot_be_read_is_named_before_any_call(tmp_path: Path) -> None:
    files(tmp_path, gone="W = 1")
    source = f"""{HEAD}
import gone, os
os.unlink(gone.__file__)
os.symlink("/proc/self/mem", gone.__file__)  # nobody can read it
def f(x):
    import gone
    print("called")
    return gone.W
rpm(f, [1])
"""
    done = run(source, tmp_path)
    assert "needs your own module 'gone', and " in done.stderr
    assert "cannot be read" in done.stderr
    assert "called" not in done.stdout


def test_much_data_is_sent_and_told_of(tmp_path: Path) -> None:
    files(tmp_path, heavy__in____init__="")
    (tmp_path / "heavy" / "table.bin").write_bytes(os.urandom(15_000_000))
    source = f"""{HEAD}
import heavy, os
def f(x):
    return os.path.getsize(os.path.join(os.path.dirname(heavy.__file__), "table.bin"))
print(rpm(f, [1]))
"""
    done = run(source, tmp_path)
    assert done.stdout == "[15000000]\n", done.stderr
    assert done.stderr.count("15.0 MB of your own modules and packages") == 1
    assert "heavy/table.bin (15.0 MB)" in done.stderr


def test_functions_of_test_modules(tmp_path: Path) -> None:
    files(tmp_path, conftest="", test_mine=f"""
{HEAD}
import beside
def use(x):
    assert x == beside.W, "explained"
def test_it():
    try:
        rpm(use, [1])
    except AssertionError as error:
        assert "assert 1 == 2" in str(error)
        return
    raise SystemExit
""", beside="W = 2")  # fmt: skip
    line = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    assert "1 passed" in succeed(line, tmp_path, cwd=tmp_path)


def test_modules_of_import_hooks_travel(tmp_path: Path) -> None:
    source = """
    import importlib.abc, importlib.util, sys
    from burla import remote_parallel_map

    SOURCES = {
        "hooked": "class Thing: pass\\ndef use(x):\\n from . import late\\n return late.use(x)",
        "hooked.late": "def use(x): return x * 100",
    }

    class Store(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
        def find_spec(self, name, path=None, target=None):
            return importlib.util.spec_from_loader(name, self) if name in SOURCES else None
        def is_package(self, name): return name == "hooked"
        def get_source(self, name): return SOURCES[name]

    sys.meta_path.append(Store())
    import hooked

    def inside(x):
        import hooked.late
        return hooked.late.use(x), hooked.Thing()

    assert remote_parallel_map(hooked.use, [1, 2]) == [100, 200]
    ((number, thing),) = remote_parallel_map(inside, [3])
    assert (number, type(thing)) == (300, hooked.Thing)
    print("fine")
    """
    assert succeed(source, tmp_path) == "fine\n"
