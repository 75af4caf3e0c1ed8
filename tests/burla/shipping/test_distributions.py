"""What is installed is found by the modules that are imported, with all that it requires."""

from pathlib import Path

import pytest
from packages import install

from burla.shipping.distributions import Installed, closure


def found(site: Path, *names: str) -> list[str]:
    return sorted(Installed([str(site)]).of_modules(names))


def test_a_module_is_of_the_package_that_has_it_whatever_that_is_called(tmp_path: Path) -> None:
    install(tmp_path, "Pretty-Name", "1.0", {"plain.py": "", "other/__init__.py": ""})
    install(tmp_path, "own", "2.0", {"own/__init__.py": ""})
    assert found(tmp_path, "plain") == ["pretty-name"]
    assert found(tmp_path, "other.inside", "own.x") == ["own", "pretty-name"]
    assert found(tmp_path, "missing") == []


def test_packages_of_one_namespace_are_told_apart(tmp_path: Path) -> None:
    install(tmp_path, "space-a", "1", {"space/a/__init__.py": ""})
    install(tmp_path, "space-b", "1", {"space/b.py": ""})
    assert found(tmp_path, "space.a.more") == ["space-a"]
    assert found(tmp_path, "space.b", "space.b.name") == ["space-b"]


def test_a_name_that_only_looks_like_a_package_is_not_taken_for_it(tmp_path: Path) -> None:
    install(tmp_path, "yaml", "1", {"something_else.py": ""})
    install(tmp_path, "pyyaml", "6", {"yaml/__init__.py": ""})
    assert found(tmp_path, "yaml") == ["pyyaml"]


def test_what_comes_first_on_the_path_counts(tmp_path: Path) -> None:
    for number in (1, 2):
        install(tmp_path / str(number), "one", str(number), {"one.py": ""})
    installed = Installed([str(tmp_path / "2"), str(tmp_path / "1")])
    assert installed.by_name["one"].version == "2"


def test_all_that_is_required_goes_along(tmp_path: Path) -> None:
    needs = ['b>=1; python_version >= "3"', 'c; sys_platform == "nowhere"', "d[fast]", "gone"]
    install(tmp_path, "a", "1", {"a.py": ""}, needs)
    install(tmp_path, "b", "1", {"b.py": ""}, ["a"])
    install(tmp_path, "c", "1", {"c.py": ""})
    install(tmp_path, "d", "1", {"d.py": ""}, ['e; extra == "fast"', 'f; extra == "slow"'])
    for name in "ef":
        install(tmp_path, name, "1", {f"{name}.py": ""})
    installed = Installed([str(tmp_path)])
    chosen, missing = closure(installed.of_modules(["a"]), installed)
    assert sorted(chosen) == ["a", "b", "d", "e"]
    assert missing == ["gone (for a)"]


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        ("", ""),
        ('{"url": "file:///src/x", "dir_info": {}}', "file:///src/x"),
        ('{"url": "file:///src/x", "dir_info": {"editable": true}}', "editable"),
        ('{"url": "https://h/x.git", "vcs_info": {"vcs": "git"}}', "https://h/x.git"),
        ("nonsense", ""),
    ],
)
def test_where_it_came_from_is_known(tmp_path: Path, said: str, origin: str) -> None:
    more = {"direct_url.json": said} if said else {}
    install(tmp_path, "x", "1", {"x.py": ""}, more=more)
    assert Installed([str(tmp_path)]).by_name["x"].origin == origin


def test_files_outside_are_not_its_own(tmp_path: Path) -> None:
    install(tmp_path, "x", "1", {"x.py": ""})
    with (tmp_path / "x-1.dist-info" / "RECORD").open("a") as record:
        record.write("../../bin/x,,\n/etc/passwd,,\n")
    files = Installed([str(tmp_path)]).by_name["x"].files
    assert "x.py" in files
    assert all(not one.startswith(("/", "..")) for one in files)


def test_an_egg_info_is_read_as_well(tmp_path: Path) -> None:
    info = tmp_path / "Old_Name-3.1-py3.11.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Name: Old-Name\nVersion: 3.1\n\n")
    (info / "top_level.txt").write_text("old\n")
    (info / "requires.txt").write_text("new>=1\n\n[extra]\nother\n")
    (tmp_path / "old.py").write_text("")
    one = Installed([str(tmp_path)]).by_name["old-name"]
    assert (one.version, one.requirements) == ("3.1", ["new>=1"])
    assert found(tmp_path, "old") == ["old-name"]
