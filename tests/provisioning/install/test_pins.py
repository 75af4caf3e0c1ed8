"""What nodes install is named by version and hash, and by no more than is needed."""

import hashlib
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from burla.provisioning.core.machines import ProvisioningError
from burla.provisioning.install import pins
from burla.provisioning.install.pins import Pin

OURS = "0" * 64


def look(there: dict[str, tuple[str, list[str]]]) -> pins.Look:
    def found(name: str) -> tuple[str, Iterable[str]] | None:
        return there.get(name)

    return found


def test_all_that_is_needed_is_pinned_and_nothing_else() -> None:
    there = {
        "a": ("1.0", ["B_b.c (>=2)", "x; extra == 'more'", "gone>=1"]),
        "b-b-c": ("2.1", ["a"]),
        "x": ("9", []),
        "other": ("1", []),
    }
    assert pins.closure(["A[some]>=1,<2"], look(there)) == {"a": Pin("1.0"), "b-b-c": Pin("2.1")}


def test_what_is_needed_only_somewhere_says_where() -> None:
    windows, pypy = 'sys_platform == "win32"', 'implementation_name == "pypy"'
    there = {
        "a": ("1", [f"b; {windows}"]),
        "b": ("2", [f"c; {pypy}", "d"]),
        "c": ("3", []),
        "d": ("4", []),
    }
    assert pins.closure([f"a; {windows}", "d"], look(there)) == {
        "a": Pin("1", windows),
        "b": Pin("2", f"({windows}) and ({windows})"),
        "c": Pin("3", f"(({windows}) and ({windows})) and ({pypy})"),
        "d": Pin("4"),
    }
    assert pins.closure([f"c; {pypy}", f"c; {windows}"], look(there)) == {
        "c": Pin("3", f"{pypy} or {windows}")
    }


def wheel(folder: Path, name: str, *needs: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        metadata = "".join(f"Requires-Dist: {need}\n" for need in needs)
        archive.writestr("w-1.dist-info/METADATA", f"Metadata-Version: 2.1\n{metadata}\nText")
    return path


def test_of_a_wheelhouse_the_newest_that_fits_is_taken_with_all_its_files(tmp_path: Path) -> None:
    any_python = "py3-none-any.whl"
    made = [
        wheel(tmp_path, f"a-1.9-{any_python}"),
        wheel(tmp_path, "A-1.10-cp311-cp311-manylinux2014_x86_64.whl", "b", "c"),
        wheel(tmp_path, "a-1.10-1-cp39-abi3-manylinux2014_aarch64.whl", "b", "c"),
        wheel(tmp_path, "a-1.11-cp312-cp312-manylinux2014_x86_64.whl"),
        wheel(tmp_path, f"b-2.0rc1-{any_python}"),
        wheel(tmp_path, f"b-2.0-{any_python}"),
        wheel(tmp_path, f"b-2.0.post1-{any_python}"),
        wheel(tmp_path, f"unasked-1-{any_python}"),
    ]
    paths = {path.name: path for path in made}
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in paths}
    text = pins.of_wheelhouse(OURS, ["a>=1"], paths, digests, "3.11").text
    first, a, b = text.splitlines()
    assert first == f"burla --hash=sha256:{OURS}"
    hashes = {f"--hash=sha256:{digests[path.name]}" for path in made[1:3]}
    assert a.split(" ")[0] == "a==1.10"
    assert set(a.split(" ")[1:]) == hashes
    assert b == f"b==2.0.post1 --hash=sha256:{digests[made[6].name]}"


def test_a_wheel_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_text("no archive")
    with pytest.raises(ProvisioningError, match=r"a-1-py3-none-any\.whl is no wheel"):
        pins.of_wheelhouse(OURS, ["a"], {path.name: path}, {path.name: ""}, "3.11")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an index that has the one version that is said to run here."""
    there = {"a-b": ("1.5", ["pypy_only; implementation_name == 'pypy'"]), "pypy-only": ("1", [])}
    monkeypatch.setattr(pins, "_installed", look(there))
    folder = tmp_path / "simple" / "a-b"
    folder.mkdir(parents=True)
    name = "a_b-1.5-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(
            "a_b-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: a_b\nVersion: 1.5\n"
        )
        archive.writestr("a_b-1.5.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("a_b-1.5.dist-info/RECORD", "")
    (folder / "index.html").write_text(f"<a href='{name}'>{name}</a>")
    monkeypatch.setattr(pins, "MACHINES", ("x86_64",))
    monkeypatch.setattr(pins, "LIBCS", (17,))
    return (tmp_path / "simple").as_uri()


def test_of_an_index_what_runs_here_is_taken_and_kept(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    made = pins.of_index(OURS, ["a_b>=1"], "3.11", index, kept)
    data = (tmp_path / "simple/a-b/a_b-1.5-py3-none-any.whl").read_bytes()
    assert made.warning == ""
    assert made.text.splitlines() == [
        f"burla --hash=sha256:{OURS}",
        f"a-b==1.5 --hash=sha256:{hashlib.sha256(data).hexdigest()}",
        "pypy-only==1 ; implementation_name == 'pypy'",
    ]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert pins.of_index(OURS, ["a_b>=1"], "3.11", index, kept) == made


def test_what_installs_packages_goes_along_if_the_index_has_it(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: dict[str, tuple[str, list[str]]] = {"a-b": ("1.5", []), pins.TOOL: ("9.9", [])}
    monkeypatch.setattr(pins, "_installed", look(there))
    made = pins.of_index(OURS, ["a_b>=1"], "3.11", index, tmp_path / "kept")
    assert (made.warning, pins.TOOL in made.text) == ("", False)
    hashes = {"a-b": ["00"], pins.TOOL: ["11"]}
    monkeypatch.setattr(pins, "_ask", lambda wanted, python, index: hashes)
    made = pins.of_index(OURS, ["a_b>=1"], "3.11", index, tmp_path / "other")
    assert made.text.splitlines()[1:] == ["a-b==1.5 --hash=sha256:00", "uv==9.9 --hash=sha256:11"]


def test_without_an_index_versions_are_pinned_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_installed", look({"a": ("1.5", [])}))
    monkeypatch.setattr(sys, "executable", "/bin/false")  # a Python without pip
    made = pins.of_index(OURS, ["a"], "3.11", "", tmp_path)
    assert made.text == "burla\na==1.5\n"
    assert made.warning.startswith("what nodes install is pinned by version only, not by hash: ")
    assert not list(tmp_path.iterdir())


def test_an_index_that_anybody_on_the_way_can_change_is_named() -> None:
    assert "without https" in pins.why_open("http://host/simple")
    assert pins.why_open("https://host/simple") == pins.why_open("") == ""
