"""A worker imports the caller's own modules, and nothing else under their names."""

import fcntl
import importlib
import linecache
import os
import sys
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from burla.values import own_modules
from burla.values.own_modules import (
    OwnFile,
    OwnModules,
    pack_own_modules,
    platform,
    serve_own_modules,
    serve_own_modules_again,
)


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a worker would end with."""
    before = sys.modules.copy()
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    serve_own_modules(None, (), "")
    sys.modules.clear()
    sys.modules.update(before)


def serve(place: Path, name: str = "one", built_for: str = "", **texts: str | bytes) -> OwnModules:
    """Serve files; `a__in__b` is a/b.py."""
    files, data = [], b""
    for key, text in texts.items():
        path = key.replace("__in__", "/") + (".py" if isinstance(text, str) else ".bin")
        content = text.encode() if isinstance(text, str) else text
        origin = os.fsencode(f"/burla/test/gone/{path}")
        files.append(OwnFile(path.encode(), origin, 0, len(data), len(content), False))
        data += content
    tops = sorted({key.partition("__in__")[0] for key in texts})
    own = OwnModules(name, built_for or platform(), files, [True], tops, [], ["own_native"], {})
    serve_own_modules(own, [zlib.compress(data)], str(place))
    return own


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_they_are_found_before_anything_else(tmp_path: Path) -> None:
    import statistics as standard

    serve(
        tmp_path,
        statistics="W = 'own'",
        numpy="W = 'own'",
        own_p__in____init__="from . import a",
        own_p__in__a="W = 1",
    )
    assert (load("statistics").W, load("numpy").W, load("own_p").a.W) == ("own", "own", 1)
    assert load("statistics") is not standard
    serve_own_modules(None, (), str(tmp_path))  # the next job's caller has none
    sys.modules.pop("statistics")
    assert load("statistics").mean([1]) == 1
    assert not any(str(tmp_path) in entry for entry in sys.path)


def test_a_next_job_has_its_own(tmp_path: Path) -> None:
    serve(tmp_path, own_m="W = 1", own_old="")
    assert load("own_m").W == 1
    serve(tmp_path, name="two", own_m="W = 2")
    assert load("own_m").W == 2
    serve(tmp_path, own_m="W = 3", own_old="")  # its files are there already, by their name
    assert load("own_m").W == 1


def test_a_next_job_with_the_same_loads_them_anew(tmp_path: Path) -> None:
    own = serve(tmp_path, name="0" * 32, own_m="CALLS = []")
    packed = pack_own_modules(own)
    load("own_m").CALLS.append(1)
    sys.path.insert(0, "/burla/test/another")
    assert serve_own_modules_again(packed)
    assert load("own_m").CALLS == []
    assert sys.path[0] == str(tmp_path / own.name)
    assert not serve_own_modules_again(pack_own_modules(own._replace(name="1" * 32)))


def test_a_namespace_package_is_not_taken_for_an_installed_one(tmp_path: Path) -> None:
    place = tmp_path / "node"
    (place / "own_solid").mkdir(parents=True)
    (place / "own_solid" / "__init__.py").write_text("")
    (place / "own_space").mkdir()
    (place / "own_space" / "theirs.py").write_text("W = 'node'")
    sys.path.append(str(place))
    serve(tmp_path, own_solid__in__part="W = 1", own_space__in__ours="W = 2")
    assert load("own_solid.part").W == 1
    assert load("own_space.ours").W == 2
    assert load("own_space.theirs").W == "node"


def test_tracebacks_name_the_files_of_the_caller(tmp_path: Path) -> None:
    serve(tmp_path, own_m="def fail():\n    raise ValueError  # here\n")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load("own_m").fail()
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "/burla/test/gone/own_m.py", line 2, in fail\n    raise ValueError  # here' in text


def test_another_file_where_the_callers_lies_is_not_shown(tmp_path: Path) -> None:
    stale = tmp_path / "own_m.py"
    stale.write_text("\n\n# stale\n")
    own = OwnFile(b"own_m.py", os.fsencode(stale), 0, 0, 9, False)
    told = OwnModules("one", platform(), [own], [False], ["own_m"], [], [], {})
    serve_own_modules(told, [b"\n\n1 // 0\n"], str(tmp_path / "place"))
    with pytest.raises(ZeroDivisionError) as caught:
        load("own_m")
    assert "1 // 0" in "".join(traceback.format_exception(caught.value))
    linecache.clearcache()


def test_files_cannot_be_written_and_are_put_down_once(tmp_path: Path) -> None:
    serve(tmp_path, own_p__in____init__="", own_p__in__data=b"data")
    made = tmp_path / "one" / "own_p" / "data.bin"
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"data", 0o444)
    assert made.parent.stat().st_mode & 0o777 == 0o555
    assert sorted(os.listdir(tmp_path)) == ["one"]


def test_who_waits_for_another_worker_finds_the_files_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(file: int, how: int) -> None:
        assert os.path.samestat(os.fstat(file), tmp_path.stat())
        assert how == fcntl.LOCK_EX
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "own_m.py").write_text("W = 'of another'")

    monkeypatch.setattr(own_modules, "flock", wait)
    serve(tmp_path, own_m="W = 'own'")
    assert load("own_m").W == "of another"
    assert sorted(os.listdir(tmp_path)) == ["one"]


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    for path in (b"../out.py", b"/tmp/out.py", b"a/../../out.py"):
        told = OwnModules("one", "", [OwnFile(path, b"", 0, 0, 0, False)], [False], [], [], [], {})
        with pytest.raises(ValueError, match="would lie elsewhere"):
            serve_own_modules(told, [b""], str(tmp_path))


def test_what_cannot_travel_is_refused_by_name(tmp_path: Path) -> None:
    serve(tmp_path, built_for="cpython-39-x86_64-other", own_native="")
    expected = f"'own_native' is not on this node: it was built for .*-other, .* is {platform()}"
    with pytest.raises(ModuleNotFoundError, match=expected) as caught:
        load("own_native")
    assert caught.value.name == "own_native"
    told = OwnModules("x", platform(), [], [], ["own_gone"], [], [], {"own_gone": "no rights"})
    serve_own_modules(told, [], str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match=r"own module 'own_gone' is not .*: no rights"):
        load("own_gone")


def test_an_archive(tmp_path: Path) -> None:
    made = tmp_path / "own.zip"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("own_z.py", "W = 1")
        archive.writestr("lib/own_deep.py", "W = 2")
    data = made.read_bytes()
    file = OwnFile(b".archives/0/own.zip", b"/gone.zip", 0, 0, len(data), False)
    entries = [file.path, file.path + b"/lib"]
    told = OwnModules("one", platform(), [file], [False], ["own_z", "own_deep"], entries, [], {})
    serve_own_modules(told, [data], str(tmp_path / "place"))
    assert (load("own_z").W, load("own_deep").W) == (1, 2)


def test_what_loads_pickles_is_never_the_callers(tmp_path: Path) -> None:
    serve(tmp_path, burla="", cloudpickle="")
    assert load("cloudpickle") is sys.modules["cloudpickle"]
    assert load("burla.values.pickling") is sys.modules["burla.values.pickling"]
