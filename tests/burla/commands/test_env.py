"""`burla env` says what goes along, and what is wrong, without running the script."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from packages import install

from burla.cli import main
from burla.commands import env as env_cli
from burla.protocol import messages as m

Said = pytest.CaptureFixture[str]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a script that would fail if it ran, and imports a package by its own module."""
    for name in ("markers", "requirements", "specifiers"):  # burla itself needs them
        importlib.import_module(f"packaging.{name}")
    site = tmp_path / "site-packages"
    url = '{"url": "file:///src/tiny-c", "dir_info": {}}'
    install(site, "tiny-a", "1.0", {"tiny_a.py": ""}, ["tiny-c", "tiny-gone"])
    install(site, "tiny-c", "3", {"tiny_c.py": ""}, more={"direct_url.json": url})
    script = tmp_path / "script.py"
    script.write_text("import env_helper\n1 / 0\n")
    (tmp_path / "env_helper.py").write_text("def f(x):\n    import tiny_a\n")
    monkeypatch.setattr(sys, "path", [str(site)])
    for name in ("BURLA_CLUSTER", "BURLA_PACKAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path / "none"))
    return script


def test_what_goes_along_is_shown(script: Path, capsys: Said) -> None:
    assert main(["env", "show", str(script)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tiny-a  1.0  from the nodes' index, else in files",
        "tiny-c  3    in files (installed from file:///src/tiny-c)",
    ]
    assert main(["env", "show", "--json", str(script)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in said["packages"]] == ["tiny-a", "tiny-c"]
    assert said["missing"] == ["tiny-gone (for tiny-a)"]


def test_nothing_is_shown_if_it_is_off(
    script: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_PACKAGES", "off")
    assert main(["env", "show", str(script)]) == 0
    assert capsys.readouterr() == ("", "nothing: packages is off\n")


def test_what_is_missing_is_told(script: Path, capsys: Said) -> None:
    assert main(["env", "check", str(script)]) == 1
    assert capsys.readouterr().err == "not installed here: tiny-gone (for tiny-a)\n"
    (script.parent / "env_helper.py").write_text("import json\n")
    assert main(["env", "check", str(script)]) == 0
    assert capsys.readouterr().out == "all is well\n"


def test_another_python_of_all_nodes_is_told(
    script: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script.parent / "env_helper.py").write_text("import json\n")
    node = m.NodeStatus("n", "uid", 1, 1, "3.1", m.NodeState.FREE, "")
    monkeypatch.setattr("burla.commands.admin.list_nodes", lambda address: [node])
    monkeypatch.setattr(env_cli, "address_in_use", lambda cluster: "ipc:///somewhere")
    assert main(["env", "check", str(script)]) == 1
    assert "the nodes run 3.1" in capsys.readouterr().err


def test_a_script_that_is_no_python_is_refused(script: Path) -> None:
    script.write_text("def")
    with pytest.raises(ValueError, match="cannot be compiled"):
        main(["env", "show", str(script)])


def test_what_nodes_keep_is_removed(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "key" / "site-packages").mkdir(parents=True)
    (tmp_path / "key" / "packages.json").write_text('{"bytes": 2000000, "requirements": ["six"]}')
    assert main(["env", "prune", "--directory", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "removed 1 environments, 2.0 MB\n"
    assert os.listdir(tmp_path) == []
