"""On other machines, a module of the caller's own is never silently another one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import cluster
from scripts import succeed, write

from burla import remote_parallel_map

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run two nodes that cannot see the caller's directories, as others could not."""
    directory = tmp_path_factory.mktemp("c")
    with cluster(directory, 1, 1, bind="tcp://127.0.0.1:0", isolation="best"):
        if remote_parallel_map(os.path.exists, [str(directory)])[0]:
            pytest.skip("this machine cannot hide a directory")
        yield


def test_own_modules_of_any_name_are_refused_and_others_are_as_ever(tmp_path: Path) -> None:
    names = ["statistics", "queue", "utils", "numpy", "helpers"]
    text = "WORD = 'own'\nclass Thing: pass\ndef use(x): return WORD"
    write(tmp_path, **dict.fromkeys(names, text))
    write(tmp_path, outer="def use(x):\n    import statistics\n    return statistics.WORD")
    source = f"""
    import importlib
    import helpers, statistics, utils
    from burla import remote_parallel_map

    def refused(function, input_, name):
        try:
            raise SystemExit(f"not refused: {{remote_parallel_map(function, [input_])}}")
        except Exception as error:
            assert f"the caller's own module {{name!r}} in " in str(error), error

    def inside(x):
        import statistics
        return statistics.WORD

    for name in {names}:
        refused(lambda x: importlib.import_module(x).WORD, name, name)
    refused(statistics.use, 1, "statistics")
    refused(lambda x: helpers.use(x), 1, "helpers")
    refused(inside, 1, "statistics")
    refused(type, utils.Thing(), "utils")
    import outer
    refused(outer.use, 1, "outer")

    def standard(x):
        import colorsys, decimal, json
        return decimal.Decimal(x) + 1

    assert remote_parallel_map(standard, [1, 2]) == [2, 3]
    print("fine")
    """
    assert succeed(source, tmp_path) == "fine\n"


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
