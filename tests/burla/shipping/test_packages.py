"""Which packages a function needs, and what `packages=` asks for."""

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from packages import install

from burla.errors import BadSetting
from burla.protocol import package_messages as pm
from burla.shipping import packages as p

AUTO = p.Wanted()
IMPORTED: dict[str, list[str]] = {
    "own": [],
    "own.inner": ["own.other", "json"],
    "own.other": ["tiny_b.name"],
    "unused": ["tiny_a"],
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where packages are installed, and nowhere else."""
    place = tmp_path / "site-packages"
    install(place, "tiny-a", "1.0", {"tiny_a.py": ""}, ["tiny-b"])
    install(place, "tiny-b", "2.0", {"tiny_b.py": ""})
    for name in ("markers", "requirements", "specifiers"):  # burla itself needs them
        importlib.import_module(f"packaging.{name}")
    monkeypatch.setattr(sys, "path", [str(place)])
    monkeypatch.setattr(p, "_known", None)
    return place


def needed(
    *names: str, wanted: p.Wanted = AUTO, pickles: list[bytes] | None = None, inputs: object = ()
) -> p.Needs:
    return p.packages_needed(wanted, frozenset(names), IMPORTED, pickles or [], inputs)


def pins(needs: p.Needs) -> list[str]:
    return sorted(pm.unpack(needs.packed).requirements) if needs.packed else []


def test_what_is_imported_goes_by_its_exact_version_with_all_it_requires(site: Path) -> None:
    assert pins(needed("tiny_a.name", "json", "nothing")) == ["tiny-a==1.0", "tiny-b==2.0"]
    assert pins(needed("json")) == []


def test_what_a_pickle_or_the_inputs_refer_to_goes_as_well(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("tiny_b")
    kind: dict[str, Any] = {}
    exec("class C: pass", {"__name__": "tiny_b"}, kind)
    module.__dict__.update(kind)
    monkeypatch.setitem(sys.modules, "tiny_b", module)
    assert pins(needed(pickles=[pickle.dumps(kind["C"], 5)])) == ["tiny-b==2.0"]
    for inputs in ([kind["C"]()], [(1, kind["C"]())], ({"a": kind["C"]()},), kind["C"]()):
        assert pins(needed(inputs=inputs)) == ["tiny-b==2.0"]
    assert pins(needed(pickles=[b"\x8c\x07tiny_b_"])) == []


def test_a_loop_of_maps_looks_once_until_something_changes(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = needed("tiny_a")
    monkeypatch.setattr(p, "_find", None)  # nobody may look again
    assert p._known is not None
    p._known = replace(p._known, is_settled=True)
    assert needed("tiny_a") is first
    monkeypatch.undo()


def test_another_version_is_seen(site: Path) -> None:
    first = needed("tiny_b")
    (site / "tiny_b-2.0.dist-info").rename(site / "tiny_b-2.1.dist-info")
    assert pins(needed("tiny_b")) == ["tiny-b==2.1"]
    assert pins(first) == ["tiny-b==2.0"]


def test_only_own_modules_that_the_function_reaches_count(site: Path) -> None:
    assert pins(needed("own")) == []
    assert pins(needed("own.inner.name")) == ["tiny-b==2.0"]
    assert pins(needed("unused")) == ["tiny-a==1.0", "tiny-b==2.0"]


def test_what_burla_requires_is_the_business_of_nodes(site: Path) -> None:
    install(site, "burla", "0", {"burla/__init__.py": ""}, ["tiny-b"])
    assert pins(needed("burla.values", "cloudpickle")) == []
    assert pins(needed("burla", "tiny_b")) == ["tiny-b==2.0"]


def test_off_sends_nothing(site: Path) -> None:
    assert needed("tiny_a", wanted=p.Wanted(p.OFF)) is p.NOTHING


def test_what_came_from_no_index_goes_in_files(site: Path) -> None:
    url = '{"url": "file:///src/c", "dir_info": {}}'
    install(site, "tiny-c", "1", {"tiny_c.py": ""}, ["tiny-b"], {"direct_url.json": url})
    needs = needed("tiny_c")
    assert pins(needs) == ["tiny-b==2.0"]
    assert [one.name for one in needs.carried] == ["tiny-c"]


def test_an_editable_one_is_left_to_own_modules(site: Path) -> None:
    url = '{"url": "file:///src/d", "dir_info": {"editable": true}}'
    install(site, "tiny-d", "1", {"tiny_d.py": ""}, ["tiny-b"], {"direct_url.json": url})
    needs = needed("tiny_d")
    assert (pins(needs), needs.carried) == (["tiny-b==2.0"], ())


def test_what_a_node_lacks_goes_in_files_from_then_on(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p, "_lacking", {})
    needs = needed("tiny_a")
    other = needs.without(["tiny-b"])
    assert other is not None
    assert (pins(other), [one.name for one in other.carried]) == (["tiny-a==1.0"], ["tiny-b"])
    assert needs.without(["unknown"]) is None
    p.remember_lacking("here", ["tiny-b"])
    again = p.as_lacking("here", needs)
    assert [one.name for one in again.carried] == ["tiny-b"]
    assert p.as_lacking("here", needs) is again
    assert p.as_lacking("there", needs) is needs


# --- packages= ---


def listed(*requirements: str) -> p.Wanted:
    wanted = p.read_packages(list(requirements))
    assert wanted is not None
    return wanted


def test_what_is_listed_goes_as_it_is_here_if_it_is_here(site: Path) -> None:
    needs = needed("tiny_b", wanted=listed("tiny-a>=1"))
    assert pins(needs) == ["tiny-a==1.0", "tiny-b==2.0"]
    assert pm.unpack(needs.packed).is_whole


def test_what_is_listed_and_not_here_is_for_the_index_to_find(site: Path) -> None:
    packages = pm.unpack(needed(wanted=listed("tiny-a>=1.5", "tiny-b", "unheard")).packed)
    assert sorted(packages.requirements) == ["tiny-a>=1.5", "tiny-b==2.0", "unheard"]
    assert not packages.is_whole


def test_words_are_read() -> None:
    assert p.read_packages(None) is None
    assert p.read_packages("auto") == p.Wanted()
    assert p.read_packages("off") == p.Wanted(p.OFF)
    assert p.read_packages(["a", "b>1"]) == p.Wanted("", ("a", "b>1"))


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        (3, TypeError, "packages must be"),
        ([1], TypeError, "packages must be"),
        ("automatic", ValueError, "no such file"),
        (["not a name!"], ValueError, "no requirement"),
        (["a @ https://example.invalid/a.whl"], ValueError, "install it here"),
    ],
)
def test_nonsense_is_refused(said: Any, kind: type[Exception], word: str) -> None:
    with pytest.raises(kind, match=word):
        p.read_packages(said)


def test_the_settings_count_where_the_call_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("BURLA_PACKAGES", raising=False)
    assert p.packages_of_settings() == p.Wanted()
    (tmp_path / "config.toml").write_text('packages = ["six"]\n')
    assert p.packages_of_settings() == p.Wanted("", ("six",))
    monkeypatch.setenv("BURLA_PACKAGES", "off")
    assert p.packages_of_settings() == p.Wanted(p.OFF)
    monkeypatch.setenv("BURLA_PACKAGES", "nonsense")
    with pytest.raises(BadSetting, match="BURLA_PACKAGES"):
        p.packages_of_settings()
    monkeypatch.delenv("BURLA_PACKAGES")
    (tmp_path / "config.toml").write_text("packages = 3\n")
    with pytest.raises(BadSetting, match="packages"):
        p.packages_of_settings()
