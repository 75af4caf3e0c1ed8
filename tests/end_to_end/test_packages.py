"""What is installed here is there on nodes that have none of it, also without an index."""

import os
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from clusters import Cluster, cluster
from packages import install, make_wheel
from scripts import run

pytestmark = pytest.mark.slow

HEAD = """
import time, warnings
warnings.simplefilter("ignore")
from burla import remote_parallel_map as rpm
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with an index, `links`, and what the caller has, `site-packages`."""
    place = tmp_path_factory.mktemp("p")
    for version in ("1.0", "2.0"):
        modules = {"tiny_a.py": f"import tiny_b\nV = '{version}', tiny_b.V"}
        make_wheel(place / "links", "tiny-a", version, modules, ["tiny-b"])
    make_wheel(place / "links", "tiny-b", "0.5", {"tiny_b/__init__.py": "V = 'b'"})
    site = place / "site-packages"
    install(site, "tiny-a", "1.0", {"tiny_a.py": "import tiny_b\nV = '1.0', tiny_b.V"}, ["tiny-b"])
    install(site, "tiny-b", "0.5", {"tiny_b/__init__.py": "V = 'b'"})
    install(site, "tiny-c", "3.0", {"tiny_c.py": "V = 'c'"})
    install(site, "tiny-d", "4.0", {"tiny_d.py": "V = 'd'", "tiny_d.txt": os.urandom(70_000).hex()})
    return place


@pytest.fixture(scope="module", autouse=True)
def nodes(place: Path) -> Iterator[Cluster]:
    """Run two nodes that have nothing but the index."""
    told = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(place / "links"),
        "XDG_CACHE_HOME": str(place / "cache"),
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        with cluster(place, 1, 1, bind="tcp://127.0.0.1:0", isolation="best") as made:
            yield made
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def says(place: Path, script: str) -> tuple[str, str]:
    """Return stdout and stderr of a script of a caller."""
    done = run(
        HEAD + dedent(script), place, env={**os.environ, "PYTHONPATH": str(place / "site-packages")}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_a_function_has_the_packages_that_the_caller_has(place: Path) -> None:
    out, _ = says(
        place,
        """
        import tiny_a
        def f(x):
            from importlib.metadata import version
            return tiny_a.V, version("tiny-a"), tiny_a.__file__.startswith(PLACE)
        PLACE = {!r}
        print(rpm(f, [1, 2])[0], rpm(lambda x: tiny_a.V, [1])[0])
        """.format(str(place / "cache")),
    )
    assert out == "(('1.0', 'b'), '1.0', True) ('1.0', 'b')"


def test_calls_of_an_executor_have_what_each_of_them_needs(place: Path) -> None:
    out, _ = says(
        place,
        """
        import burla, tiny_a
        with burla.Executor() as executor:
            print(executor.submit(abs, -1).result())
            print(executor.submit(getattr, tiny_a, "V").result())  # nothing of it goes by value
        """,
    )
    assert out == "1\n('1.0', 'b')"


def test_what_no_index_has_goes_along_as_it_is_here(place: Path) -> None:
    out, _ = says(
        place,
        """
        import tiny_a, tiny_c
        f = lambda x: (tiny_a.V[0], tiny_c.V)
        print(rpm(f, [1, 2]), rpm(f, [1]), rpm(f, [1], detach=True).results())
        """,
    )
    assert out == "[('1.0', 'c'), ('1.0', 'c')] [('1.0', 'c')] [('1.0', 'c')]"


def test_what_no_index_has_is_kept_for_this_user_where_jobs_cannot_look_around(
    place: Path, nodes: Cluster
) -> None:
    out, _ = says(
        place,
        """
        import os, tiny_d
        def f(x):
            try:
                names = os.listdir(os.path.join(os.path.dirname(tiny_d.__file__), "../.."))
            except OSError:
                names = []
            return tiny_d.V, tiny_d.__file__, os.stat(tiny_d.__file__).st_ino, names
        a, b = rpm(f, [1])[0], rpm(lambda x: f(x), [1])[0]
        print(a[0], a == b, "/.sent/" in a[1], a[3])
        """,
    )
    is_kept = os.geteuid() == 0  # else all jobs have one user id, and each has files of its own
    assert out == ("d True True []" if is_kept else "d False False []")


def test_what_cannot_be_had_fails_by_name_before_any_call(place: Path) -> None:
    out, err = says(
        place,
        """
        import tiny_a
        def f(x):
            print("CALLED")
            return tiny_a.V[0]
        for packages in (["tiny-b==9.9"], "off", ["tiny-a>=2"]):
            try:
                print(rpm(f, [1], packages=packages))
            except Exception as error:
                print(type(error).__name__, str(error).splitlines()[0])
                print(str(error).splitlines()[-1])
        """,
    )
    first, remedy, second, _, *rest = out.splitlines()
    assert "or say by packages= which the calls do need" in remedy
    assert first.startswith("JobFailed node node")
    assert "cannot have the package tiny-b 9.9: " in first
    assert second.endswith("ModuleNotFoundError: No module named 'tiny_a'")
    assert rest == ["CALLED", "['2.0']"]
    assert err == ""


def test_nobody_can_write_to_what_is_installed(place: Path) -> None:
    out, _ = says(
        place,
        """
        import tiny_a
        def f(x):
            import os
            found = []
            for path in (tiny_a.__file__, os.path.dirname(tiny_a.__file__)):
                try:
                    os.chmod(path, 0o777)
                    open(path + ".new", "w")
                    found.append(path)
                except OSError:
                    pass
            return found
        print(rpm(f, [1]))
        """,
    )
    assert out == "[[]]"
