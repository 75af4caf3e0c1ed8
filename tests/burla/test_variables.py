"""Which environment variables a call takes along, and what the argument `env` may say."""

import os

import pytest

from burla import variables as v


def test_a_mapping_a_name_and_names_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA", "no prefix of ours")
    monkeypatch.setenv("TOKEN", "t")
    assert v.read_env(None) == {}
    assert v.read_env({"A": "ä", "B": None}) == {b"A": "ä".encode(), b"B": None}
    assert v.read_env("TOKEN") == v.read_env(("TOKEN",)) == {b"TOKEN": b"t"}


@pytest.mark.parametrize(
    ("env", "error", "says"),
    [
        (7, TypeError, "env must be a mapping"),
        (b"TOKEN", TypeError, "env must be a mapping"),
        ({"A": 1}, TypeError, r"env\['A'\] must be text or None, not int"),
        ({"A": b"secret"}, TypeError, r"env\['A'\] must be text or None, not bytes"),
        ({1: "secret"}, TypeError, "names of variables must be text, not int"),
        ({"": "secret"}, ValueError, "is empty"),
        ({"A=B": "secret"}, ValueError, "has a '='"),
        ({"A\0": "secret"}, ValueError, "has a NUL"),
        ({"A": "secret\0"}, ValueError, "has a NUL"),
        ({"A": "secret\ud800"}, ValueError, "characters"),
        (["A=secret"], ValueError, r"pass a mapping: env=\{name: value\}"),
        ("NOBODY_HAS_THIS", ValueError, "os.environ has no such variable"),
        ({"PATH": "secret"}, ValueError, "env cannot set PATH"),
        ({"LD_PRELOAD": "secret"}, ValueError, "env cannot set LD_PRELOAD"),
        ({"PYTHONPATH": "secret"}, ValueError, "env cannot set PYTHONPATH"),
        ({"BURLA_JOB_ID": "secret"}, ValueError, "env cannot set BURLA_JOB_ID"),
        (["HOME"], ValueError, "env cannot set HOME"),
    ],
)
def test_what_is_wrong_is_told_without_a_value(
    env: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        v.read_env(env)
    assert "secret" not in str(caught.value)


def test_on_this_machine_all_of_it_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t")
    monkeypatch.delenv("HOME", raising=False)
    told = v.variables({b"TOKEN": b"named", b"USER": None}, private=True)
    expected = {os.fsencode(k): os.fsencode(x) for k, x in os.environ.items()} | {
        b"TOKEN": b"named"
    }
    expected.pop(b"USER", None)
    assert told.are_all
    assert told.values == expected


def test_elsewhere_what_was_changed_since_the_start_goes_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = {b"KEPT": b"1", b"CHANGED": b"1", b"GONE": b"1", b"HOME": b"/h", b"TMPDIR": b"/t"}
    now = {b"KEPT": b"1", b"CHANGED": b"2", b"NEW": b"3", b"PATH": b"/p", b"LD_PRELOAD": b"x"}
    now |= {b"BURLA_CLUSTER": b"x", b"TERM": b"x", b"MPLBACKEND": b"x", b"PYTHONPATH": b"x"}
    monkeypatch.setattr(v, "_at_start", started)
    monkeypatch.setattr(v, "environ_bytes", lambda: now)
    told = v.variables({}, private=False)
    assert not told.are_all
    assert told.values == {b"CHANGED": b"2", b"NEW": b"3"}
    assert told.unset == [b"GONE"]
    named = v.variables({b"GONE": b"back", b"NEW": None}, private=False)
    assert named.values == {b"CHANGED": b"2", b"GONE": b"back"}
    assert named.unset == [b"NEW"]


def test_what_was_set_before_burla_was_imported_counts_as_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SET_EARLY", "1")
    assert b"SET_EARLY" not in v._read_started()
    assert v._read_started()[b"PATH"] == v._started()[b"PATH"]
