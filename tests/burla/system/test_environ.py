import os

import pytest

from burla.system.environ import variable


def test_it_says_what_os_environ_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable(b"BURLA_TEST") is None
    for value in ("", "a", "\u00e4", os.fsdecode(b"\xff")):
        monkeypatch.setenv("BURLA_TEST", value)
        assert variable(b"BURLA_TEST") == os.environ["BURLA_TEST"] == value
    monkeypatch.delenv("BURLA_TEST")
    assert variable(b"BURLA_TEST") is None


def test_os_environ_may_be_another_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"BURLA_TEST": "a"})
    assert variable(b"BURLA_TEST") == "a"
    assert variable(b"BURLA_OTHER") is None
