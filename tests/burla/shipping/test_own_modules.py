"""What travels of the caller's own modules."""

import importlib
import importlib.util
import os
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from burla.shipping import own_files, own_modules
from burla.shipping.own_modules import Travels
from burla.shipping.own_search import Search
from burla.values.imports import NO_IMPORTS
from burla.values.own_modules import OwnModules, pack_own_modules, unpack_own_modules


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory that is first on the import path; what is loaded is forgotten after."""
    monkeypatch.setattr(own_modules, "_known", [])
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(place: Path, *files: str, text: str = "") -> None:
    for file in files:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text)


def found(place: Path, *names: str, is_dynamic: bool = False) -> Search:
    """Return what is found from these names on, with nothing but `place` on the path."""
    importlib.invalidate_caches()
    search = Search((str(place),), frozenset())
    search.follow(NO_IMPORTS._replace(names=frozenset(names), is_dynamic=is_dynamic))
    return search


def paths(place: Path, *names: str, is_dynamic: bool = False) -> set[str]:
    files = found(place, *names, is_dynamic=is_dynamic).files
    return {path for path, file in files.items() if file}


# --- finding ---


def test_imports_are_followed_and_nothing_else_is_taken(place: Path) -> None:
    write(place, "own_a.py", text="def f():\n    import own_b, json, numpy, not_there")
    write(place, "own_b.py", text="from own_c import value")
    write(place, "own_c.py", "own_unused.py", "notes.txt", "own_space/x.py")
    assert paths(place, "own_a") == {"own_a.py", "own_b.py", "own_c.py"}
    assert paths(place) == set()


def test_of_a_package_all_goes_but_what_tools_keep_there(place: Path) -> None:
    write(place, "own_p/__init__.py", "own_p/sub/__init__.py", "own_p/sub/m.py", "own_p/t.csv")
    write(place, "own_p/assets-1.0/deep/x.json", "own_p/old.pyc", "own_p/sub/m.pyc")
    write(place, "own_p/__pycache__/x.pyc", "own_p/.git/config", "own_p/node_modules/a.js")
    write(place, "own_p/env/pyvenv.cfg", "own_p/env/lib/big.py")
    (place / "own_p" / "again").symlink_to(place / "own_p")
    os.mkfifo(place / "own_p" / "pipe")  # to open it would wait for ever
    (place / "own_p" / "nowhere").symlink_to("gone")
    expected = {"own_p/__init__.py", "own_p/sub/__init__.py", "own_p/sub/m.py", "own_p/t.csv"}
    expected |= {"own_p/assets-1.0/deep/x.json", "own_p/old.pyc"}
    assert paths(place, "own_p.sub.m") == expected


def test_modules_of_a_package_are_followed_when_they_are_reached(place: Path) -> None:
    write(place, "own_p/__init__.py")
    write(place, "own_p/a.py", text="from . import b")
    write(place, "own_p/b.py", text="import own_by_b")
    write(place, "own_p/c.py", text="import own_by_c")
    write(place, "own_by_b.py", "own_by_c.py")
    assert "own_by_b.py" in paths(place, "own_p.a")
    assert "own_by_c.py" not in paths(place, "own_p.a")
    write(place, "own_p/a.py", text="import importlib\nimportlib.import_module(name)")
    assert {"own_by_b.py", "own_by_c.py"} <= paths(place, "own_p.a")


def test_a_directory_without_init_may_be_anything(place: Path) -> None:
    write(place, "own_s/a.py", "own_s/b.py", "own_s/small.csv", "own_s/.env")
    write(place, "own_s/deep/c.py", "own_s/other/d.py", "own_s/data/x.csv")
    with (place / "own_s" / "big.bin").open("wb") as file:
        file.truncate(2 << 20)
    assert paths(place, "own_s.a") == {"own_s/a.py", "own_s/b.py", "own_s/small.csv"}
    assert "own_s/deep/c.py" in paths(place, "own_s.deep.c")
    assert "own_s/other/d.py" not in paths(place, "own_s.deep.c")
    assert paths(place, "own_s.data") == {"own_s/a.py", "own_s/b.py", "own_s/small.csv"}
    for number in range(300):
        write(place, f"own_s/{number}.jpg")
    assert paths(place, "own_s.a") == {"own_s/a.py", "own_s/b.py"}


def test_what_code_imports_by_a_name_that_it_computes_is_what_lies_beside_it(place: Path) -> None:
    write(place, "own_x.py", "own_p/__init__.py", "own_s/y.py", "text.txt")
    assert paths(place, is_dynamic=True) == {"own_x.py", "own_p/__init__.py"}


def test_small_files_beside_a_module_that_asks_where_it_lies(place: Path) -> None:
    write(place, "config.json", "table.csv", ".env", "own_deaf.py", "other/config.json")
    write(place, "own_a.py", text="def f(): return open(__file__)")
    assert paths(place, "own_deaf") == {"own_deaf.py"}
    assert paths(place, "own_a") == {"own_a.py", "config.json", "table.csv"}
    write(place, "other/own_b.py", text="import own_a\nx = __file__")
    spec = importlib.util.spec_from_file_location("own_b", place / "other/own_b.py")
    assert spec is not None
    sys.modules["own_b"] = importlib.util.module_from_spec(spec)
    assert paths(place, "own_a", "own_b") == {"own_a.py", "own_b.py", "table.csv"}


def test_packages_that_are_named_in_texts(place: Path) -> None:
    write(place, "own_p/__init__.py", "own_p/x.txt", "own_s/y.py", "own_s/data.csv")
    write(place, "own_a.py", text="files('own_p') / 'own_s' / 'own_s.y'")
    assert paths(place, "own_a") == {"own_a.py", "own_p/__init__.py", "own_p/x.txt"} | {
        "own_s/y.py",
        "own_s/data.csv",
    }
    write(place, "own_a.py", text="files('own_p') / 'own_s'")
    assert paths(place, "own_a") == {"own_a.py", "own_p/__init__.py", "own_p/x.txt"}


def test_installed_and_standard_modules_and_ours_do_not_travel(place: Path) -> None:
    write(place, "own_i.py", "own_i-1.0.dist-info/METADATA")
    assert paths(place, "own_i", "json", "numpy", "burla", "cloudpickle", "sys") == set()


def test_names_that_mean_something_else_here_are_not_own(place: Path) -> None:
    write(place, "sys.py", "json.py", "colorsys.py", "burla.py")
    import json  # is loaded: that is what the name means  # noqa: F401

    sys.modules.pop("colorsys", None)
    assert paths(place, "sys", "json", "colorsys", "burla") == {"colorsys.py"}


def test_a_module_is_put_where_its_name_says(place: Path) -> None:
    write(place, "somewhere/other-name.py")
    spec = importlib.util.spec_from_file_location("own_far", place / "somewhere/other-name.py")
    assert spec is not None
    sys.modules["own_far"] = importlib.util.module_from_spec(spec)
    assert found(place, "own_far").files == {"own_far.py": f"{place}/somewhere/other-name.py"}


def test_a_lazy_module_stays_unloaded(place: Path) -> None:
    write(place, "own_lazy.py", text="raise AssertionError('loaded')")
    spec = importlib.util.find_spec("own_lazy")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["own_lazy"] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert paths(place, "own_lazy") == {"own_lazy.py"}
    assert type(module) is not type(sys)


def test_faults_in_modules_are_left_to_their_import(place: Path) -> None:
    write(place, "own_bad.py", text="def f(:")
    write(place, "own_odd.py", text=r"x = '\d'" + "\nimport own_bad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paths(place, "own_odd") == {"own_odd.py", "own_bad.py"}


def test_an_archive_goes_whole_and_is_followed(place: Path) -> None:
    with zipfile.ZipFile(place / "own.zip", "w") as archive:
        archive.writestr("own_zipped/__init__.py", "import own_zipped.inner")
        archive.writestr("own_zipped/inner.py", "import own_beside")
    write(place, "own_beside.py")
    sys.path.insert(0, str(place / "own.zip"))
    importlib.import_module("own_zipped")
    search = found(place, "own_zipped")
    assert list(search.archives) == [str(place / "own.zip")]
    assert set(search.files) == {"own_beside.py"}


# --- what is sent ---


def code_of(text: str) -> CodeType:
    code: CodeType = compile(text, "file", "exec")
    return code


CODE = code_of("import own_a")


def sent(place: Path, key: object = "key", code: CodeType = CODE) -> Travels | None:
    """Return what is sent with code that imports `own_a`; nothing that is loaded is."""
    path = (str(place),)
    loaded = frozenset(name for name in sys.modules if name.partition(".")[0] != "own_a")
    return own_modules.own_modules((key, None), lambda: path, loaded, [code], None).travels


def opened(travels: Travels | None) -> tuple[OwnModules, list[bytes]]:
    assert travels is not None
    attached = travels.attached
    parts = dict(attached.inline) | {
        blob.name: data for blob, data in zip(attached.blobs, attached.contents, strict=True)
    }
    own = unpack_own_modules(parts.pop("own"))
    assert list(parts) == [f"own/{number}" for number in range(len(own.packed))]
    return own, list(parts.values())


def test_what_is_sent_says_what_it_is(place: Path) -> None:
    write(place, "own_a.py", text="import own_b")
    write(place, "own_b/__init__.py")
    (place / "own_b" / "big.bin").write_bytes(bytes(300_000))
    own, parts = opened(sent(place))
    assert own.tops == ["own_a", "own_b"]
    assert [(file.path, file.part, file.size) for file in own.files] == [
        (b"own_a.py", 0, 12),
        (b"own_b/__init__.py", 0, 0),
        (b"own_b/big.bin", 1, 300_000),
    ]
    assert own.files[0].origin == os.fsencode(place / "own_a.py")
    assert parts[1] == bytes(300_000)
    assert own.refused == {}


def test_nothing_is_sent_where_there_is_nothing_of_the_callers(place: Path) -> None:
    assert sent(place, code=code_of("import json")) is None
    assert sent(place, code=code_of("1")) is None


def settle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files be old, as far as clocks can tell."""
    monkeypatch.setattr(own_files, "SETTLED_NS", -(10**18))


def test_it_is_the_same_object_until_something_changes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(place, monkeypatch)
    write(place, "own_a.py", text="W = 1")
    first = sent(place)
    reads: list[str] = []

    def read(path: str) -> own_files.Content:
        reads.append(path)
        return own_files.read(path)

    monkeypatch.setattr(own_modules, "read", read)
    assert sent(place) is first
    assert sent(place, code=code_of("import json")) is None  # another function between
    assert sent(place) is first
    assert reads == []
    assert sent(place, key="another") is not None
    write(place, "own_a.py", text="W = 22")
    second = sent(place)
    assert second is not None
    assert first is not None
    assert second.name != first.name
    write(place, "own_new.py")
    assert sent(place) is second  # looked at again, and found to be the same
    (place / "own_a.py").unlink()
    assert sent(place) is None


def test_a_change_within_one_tick_of_the_clock_is_seen(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "SETTLED_NS", 10**18)  # however slow this machine is
    path = place / "own_a.py"
    now_ns = time.time_ns()
    names = set()
    for number in range(3):
        path.write_text(f"W = {number}")
        os.utime(path, ns=(now_ns, now_ns))
        names.add(opened(sent(place))[0].name)
    assert len(names) == 3


def test_a_module_that_cannot_be_read_is_an_error_if_it_is_needed(place: Path) -> None:
    write(place, "own_a.py", text="import own_b")
    (place / "own_b.py").symlink_to("/proc/self/mem")
    with pytest.raises(TypeError, match=r"own module 'own_b', and .*own_b\.py cannot be read: "):
        sent(place)


def test_much_is_told_and_too_much_data_is_left_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_modules, "WARN_BYTES", 1000)
    monkeypatch.setattr(own_modules, "BYTES_MAX", 5000)
    write(place, "own_a/__init__.py", text="#" * 100)
    for name, size in {"a": 900, "b": 800, "c": 700}.items():
        (place / "own_a" / name).write_bytes(bytes(size))
    travels = sent(place)
    assert travels is not None
    assert "0.0 MB of your own modules and packages are sent" in travels.warning
    assert f"{place}/own_a/a (0.0 MB), {place}/own_a/b" in travels.warning
    assert f"{place}/own_a/__init__.py" not in travels.warning
    (place / "own_a" / "d").write_bytes(bytes(5000))
    travels = sent(place)
    assert travels is not None
    assert f"not sent are {place}/own_a/d (0.0 MB); hand big data over" in travels.warning
    assert b"own_a/d" not in {file.path for file in opened(travels)[0].files}
    write(place, "own_a/huge.py", text="#" * 6000)
    with pytest.raises(ValueError, match=r"your own modules have .* the biggest files: .*huge\.py"):
        sent(place)


def test_what_is_sent_is_plain_data(place: Path) -> None:
    write(place, "own_a.py")
    own, _ = opened(sent(place))
    assert unpack_own_modules(pack_own_modules(own)) == own
