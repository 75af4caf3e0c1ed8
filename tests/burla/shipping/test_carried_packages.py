"""Packages that no index has are there as they are installed here."""

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import install

from burla.shipping import carried_packages
from burla.shipping.attachments import Attachments
from burla.shipping.distributions import Distribution, Installed
from burla.values import packages as served


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Have the import path as it was, nothing served, and nothing packed before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(carried_packages, "_packed", {})
    path, hooks = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    served._served = []
    for name in set(sys.modules) - hooks:
        del sys.modules[name]


def chosen(site: Path, big: int = 0) -> list[Distribution]:
    modules = {"tiny_k/__init__.py": "W = 'carried'", "tiny_k/data.txt": "x" * big}
    install(site, "tiny-k", "1.5", modules)
    install(site, "tiny-l", "2", {"tiny_l.py": "W = 'too'"})
    installed = Installed([str(site)])
    return [installed.by_name["tiny-k"], installed.by_name["tiny-l"]]


def all_of(attached: Attachments) -> dict[str, bytes | memoryview]:
    named = {blob.name: data for blob, data in zip(attached.blobs, attached.contents, strict=True)}
    return {**dict(attached.inline), **named}


@pytest.mark.parametrize("big", [10, 100_000])
def test_they_are_imported_with_their_data_and_versions(tmp_path: Path, big: int) -> None:
    attached = carried_packages.attach_packages(chosen(tmp_path / "site-packages", big))
    assert bool(attached.blobs) == (big > 99_999 and not attached.inline)
    served.serve_packages("", all_of(attached), str(tmp_path / "lease"))
    module = importlib.import_module("tiny_k")
    assert module.W == "carried"
    file = Path(str(module.__file__))
    assert file.is_relative_to(tmp_path / "lease")
    assert (file.parent / "data.txt").read_text() == "x" * big
    assert importlib.import_module("tiny_l").W == "too"
    assert importlib.metadata.version("tiny-k") == "1.5"


def test_they_are_packed_once(tmp_path: Path) -> None:
    packages = chosen(tmp_path / "site-packages")
    assert carried_packages.attach_packages(packages) is carried_packages.attach_packages(packages)


def contents(packages: list[Distribution]) -> dict[str, bytes]:
    """Return what another process would send."""
    carried_packages._packed.clear()
    attached = carried_packages.attach_packages(packages)
    return {name: bytes(data) for name, data in all_of(attached).items()}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the packages whose files are read, as they are."""
    names: list[str] = []
    original = carried_packages._read

    def noting(one: Distribution) -> Iterator[tuple[str, bytes, bool]]:
        names.append(one.name)
        return original(one)

    monkeypatch.setattr(carried_packages, "_read", noting)
    return names


def test_another_process_reads_no_big_package_that_was_packed(
    tmp_path: Path, read: list[str]
) -> None:
    packages = chosen(tmp_path / "site-packages", 100_000)
    first = contents(packages)
    assert contents(packages) == first
    assert read == ["tiny-l", "tiny-k", "tiny-l"]


def test_after_an_upgrade_of_one_the_others_are_not_packed_again(
    tmp_path: Path, read: list[str]
) -> None:
    site = tmp_path / "site-packages"
    packages = chosen(site, 100_000)
    install(site, "tiny-n", "1", {"tiny_n.txt": "y" * 100_000})
    one = Installed([str(site)]).by_name["tiny-n"]
    first = contents([*packages, one])
    read.clear()
    install(site, "tiny-n", "2", {"tiny_n.txt": "z" * 100_000})
    newer = Distribution("tiny-n", "2", str(site), str(site / "tiny_n-2.dist-info"))
    second = contents([*packages, newer])
    assert sorted(read) == ["tiny-l", "tiny-n"]
    assert len(set(first.values()) & set(second.values())) == 2  # big ones, and the small together


@pytest.mark.parametrize("big", [10, 100_000])
def test_a_file_that_was_edited_where_it_is_installed_is_sent_as_it_is(
    tmp_path: Path, big: int
) -> None:
    packages = chosen(tmp_path / "site-packages", big)
    before = contents(packages)
    (tmp_path / "site-packages/tiny_k/__init__.py").write_text("W = 'edited  '")  # as long
    assert contents(packages) != before
    served.serve_packages("", contents(packages), str(tmp_path / "lease"))
    assert importlib.import_module("tiny_k").W == "edited  "


def bytecode_at_the_node(tmp_path: Path, packages: list[Distribution]) -> list[str]:
    attached = carried_packages.attach_packages(packages)
    served.serve_packages("", all_of(attached), str(tmp_path / "lease"))
    found = (tmp_path / "lease").rglob("*.pyc")
    return sorted(path.name.partition(".")[0] for path in found)


def test_bytecode_goes_along_and_is_taken_for_that_of_the_source(tmp_path: Path) -> None:
    packages = chosen(tmp_path / "site-packages")
    for name in ("tiny_k/__init__.py", "tiny_l.py"):
        py_compile.compile(str(tmp_path / "site-packages" / name))
    assert bytecode_at_the_node(tmp_path, packages) == ["__init__", "tiny_l"]
    compiled: list[object] = []
    loader = importlib.machinery.SourceFileLoader
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "source_to_code", lambda *words, **more: compiled.append(words))
        module = importlib.import_module("tiny_k")
    assert module.W == "carried"
    assert not compiled
    assert str(tmp_path / "lease") in str(module.__file__)


def test_bytecode_of_another_source_stays_behind(tmp_path: Path) -> None:
    packages = chosen(tmp_path / "site-packages")
    source = tmp_path / "site-packages/tiny_l.py"
    py_compile.compile(str(source))
    source.write_text("W = 'now'")
    os.utime(source, (1, 1))
    assert bytecode_at_the_node(tmp_path, packages) == []
    assert importlib.import_module("tiny_l").W == "now"


def test_bytecode_of_tests_and_of_other_pythons_stays_behind(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    install(site, "tiny-m", "1", {"tiny_m/tests/a.py": "", "tiny_m/b.py": ""})
    py_compile.compile(str(site / "tiny_m/tests/a.py"))
    (site / "tiny_m/__pycache__").mkdir()
    (site / "tiny_m/__pycache__/b.cpython-39.pyc").write_bytes(b"old")
    there = bytecode_at_the_node(tmp_path, [Installed([str(site)]).by_name["tiny-m"]])
    assert there == []


def test_the_next_job_does_not_have_them(tmp_path: Path) -> None:
    attached = carried_packages.attach_packages(chosen(tmp_path / "site-packages"))
    before = sys.path[:]
    served.serve_packages("", all_of(attached), str(tmp_path / "lease"))
    assert sys.path != before
    served.serve_packages("", {}, str(tmp_path / "lease"))
    assert sys.path == before


def test_what_is_pure_is_there_on_other_machines_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = chosen(tmp_path / "site-packages")
    monkeypatch.setattr(carried_packages, "platform", lambda: "elsewhere")
    served.serve_packages("", contents(packages), str(tmp_path / "lease"))
    assert importlib.import_module("tiny_l").W == "too"


def test_native_code_comes_whole_and_can_be_loaded(tmp_path: Path) -> None:
    compiled = Installed(sys.path).by_name["msgpack"]
    served.serve_packages("", contents([compiled]), str(tmp_path / "lease"))
    (there,) = (tmp_path / "lease").rglob("_cmsgpack*.so")
    original = next(file for file in compiled.files if file.endswith(there.name))
    assert there.read_bytes() == (Path(compiled.site) / original).read_bytes()
    loader = importlib.machinery.ExtensionFileLoader("msgpack._cmsgpack", str(there))
    spec = importlib.util.spec_from_loader("msgpack._cmsgpack", loader)
    assert spec is not None
    assert importlib.util.module_from_spec(spec).__name__ == "msgpack._cmsgpack"


def test_what_was_built_for_another_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    install(site, "tiny-so", "1", {"tiny_so.cpython-311-other.so": ""})
    attached = carried_packages.attach_packages([Installed([str(site)]).by_name["tiny-so"]])
    monkeypatch.setattr(served, "platform", lambda: "elsewhere")
    with pytest.raises(ImportError, match=r"tiny-so.*was built for.*Give the nodes an index"):
        served.serve_packages("", all_of(attached), str(tmp_path / "lease"))


def test_a_directory_that_jobs_cannot_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="--packages-directory"):
        served.serve_packages(str(tmp_path / "none"), {}, str(tmp_path))


def test_an_old_backport_does_not_shadow_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    install(tmp_path, "sched", "0", {"sched.py": "raise ImportError('of Python 2')"})
    sys.path.insert(0, str(tmp_path / "own"))
    sys.modules.pop("sched", None)
    before = sys.path[:]
    served.serve_packages(str(tmp_path), {}, "/nowhere")
    assert importlib.import_module("sched").scheduler
    assert sys.path.index(str(tmp_path)) < sys.path.index(str(tmp_path / "own"))
    served.serve_packages("", {}, "/nowhere")
    assert sys.path == before


def test_an_environment_comes_before_what_this_python_has(tmp_path: Path) -> None:
    install(tmp_path, "msgspec", "0", {"tiny_first.py": ""})
    (tmp_path / "more.pth").write_text(f"{tmp_path}/more\n")
    (tmp_path / "more").mkdir()
    served.serve_packages(str(tmp_path), {}, "/nowhere")
    libraries = [one for one in sys.path if one.endswith("site-packages")]
    assert sys.path.index(str(tmp_path)) < sys.path.index(libraries[0])
    assert f"{tmp_path}/more" in sys.path
    assert importlib.metadata.version("msgspec") == "0"


def test_too_much_is_told_with_the_biggest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_packages, "BYTES_MAX", 1000)
    with pytest.raises(ValueError, match="tiny-k"):
        carried_packages.attach_packages(chosen(tmp_path / "site-packages", 2000))
