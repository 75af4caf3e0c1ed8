import os
from pathlib import Path

import pytest

from burla.system import paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in list(os.environ):
        if name.startswith("XDG_") or name == paths.DIRECTORY_VARIABLE:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return str(tmp_path)


def test_each_lies_where_the_platform_has_it(home: str) -> None:
    assert paths.settings_directory() == f"{home}/.config/burla"
    assert paths.state_directory() == f"{home}/.local/state/burla"
    assert paths.cache_directory() == f"{home}/.cache/burla"
    assert paths.runtime_directories() == [f"/run/user/{os.getuid()}"]


def test_the_environment_goes_before_if_it_is_absolute(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("XDG_CACHE_HOME", "/k")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    assert paths.settings_directory() == "/c/burla"
    assert paths.state_directory() == f"{home}/.local/state/burla"
    assert paths.cache_directory() == "/k/burla"
    assert paths.runtime_directories() == ["/r", f"/run/user/{os.getuid()}"]
    monkeypatch.setenv(paths.DIRECTORY_VARIABLE, "/own")
    assert paths.settings_directory() == "/own"


def test_a_mac_has_its_own_place(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert paths.settings_directory() == f"{home}/Library/Application Support/burla"


def test_without_a_home_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert paths.settings_directory() is None
    assert paths.state_directory() is None


@pytest.mark.parametrize(
    ("platform", "settings", "caches"),
    [
        ("darwin", "/home/u/Library/Application Support/burla", "/home/u/Library/Caches/burla"),
        ("win32", "/users/u/AppData/Local/burla", "/users/u/AppData/Local/burla/Cache"),
    ],
)
def test_other_platforms_have_their_own_places(
    platform: str, settings: str, caches: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.delenv("BURLA_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("LOCALAPPDATA", "/users/u/AppData/Local")
    assert paths.settings_directory() == settings
    assert paths.cache_directory() == caches
