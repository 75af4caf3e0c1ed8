"""With --json every command says what went wrong as JSON, in whatever state it finds its machine.

Commands are those of the tree of click, and their arguments are made from what it knows of them:
a new command is tried without a word here.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from burla import cli
from burla.commands import failures

SCHEMA = json.loads((Path(cli.__file__).parent / "commands/schema.json").read_text("utf-8"))
VALID = jsonschema.Draft202012Validator(SCHEMA)
KEY = "3f" * 32


def leaves(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *before, name)
        else:
            yield (*before, name), command


ALL = dict(leaves(cli.commands))
TALKING = [words for words, command in ALL.items() if "as_json" in {p.name for p in command.params}]


def arguments(command: click.Command, tmp_path: Path) -> list[str]:
    """Return something for each argument and option that a command wants."""
    made = []
    for parameter in command.params:
        if not parameter.required:
            continue
        file = tmp_path / "file.py"
        file.touch()
        word = str(file) if isinstance(parameter.type, click.Path) else "word"
        word = KEY if parameter.name == "key" else word
        made += [word] if isinstance(parameter, click.Argument) else [parameter.opts[0], word]
    return made


def said(out: str) -> dict[str, Any]:
    """Return the error that was told last."""
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    VALID.validate(report)
    assert report["kind"] == "error"
    error: dict[str, Any] = report["error"]
    assert error["text"].strip()
    assert error["remedy"].strip()
    return error


def is_error(out: str) -> bool:
    last = out.splitlines()[-1]
    return last.startswith("{") and json.loads(last).get("kind") == "error"


def test_only_what_prints_no_facts_has_no_json() -> None:
    assert {" ".join(words) for words in ALL} - {" ".join(words) for words in TALKING} == {
        "dashboard",
        "demo",
        "schema",
        "skill",
    }


# --- broken machines ---

SetUp = Callable[[Path, pytest.MonkeyPatch], None]


def nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no cluster."""


def no_address(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "nonsense")


def no_scheduler(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", f"ipc://{home}/none")


def no_scheduler_at_port(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", f"burla://127.0.0.1:1?key={KEY}")


def settings_are(content: bytes) -> SetUp:
    def broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / "config").mkdir()
        (home / "config/config.toml").write_bytes(content)

    return broken


def settings_are_a_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config/config.toml").mkdir(parents=True)


def key_is(content: bytes, mode: int) -> SetUp:
    def broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_scheduler_at_port(home, monkeypatch)
        (home / "config").mkdir()
        for name in ("user.key", "user_key", "key"):
            (home / "config" / name).write_bytes(content)
            (home / "config" / name).chmod(mode)

    return broken


def is_a_file(*variables: str) -> SetUp:
    def broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / "file").touch()
        for variable in variables:
            monkeypatch.setenv(variable, str(home / "file"))

    return broken


def cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in DIRECTORIES:
        monkeypatch.setenv(variable, "/proc/none/there")


def state_is(content: bytes) -> SetUp:
    def broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("default", "lab"):
            (home / "state" / name).mkdir(parents=True)
            for file in ("state.json", "cluster.json"):
                (home / "state" / name / file).write_bytes(content)

    return broken


DIRECTORIES = ("BURLA_CONFIG_DIR", "BURLA_STATE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME")
BROKEN: dict[str, SetUp] = {
    "nothing": nothing,
    "no address": no_address,
    "no scheduler": no_scheduler,
    "no scheduler at the port": no_scheduler_at_port,
    "settings are no TOML": settings_are(b"=["),
    "settings are no text": settings_are(b"\xff\xfe\x00"),
    "settings are something else": settings_are(b"cluster = 7\ngrow = 'x'\npackages = 1"),
    "settings are a folder": settings_are_a_folder,
    "the key is rubbish": key_is(b"x", 0o600),
    "the key is everybody's": key_is(b"x", 0o666),
    "folders are files": is_a_file(*DIRECTORIES),
    "folders cannot be made": cannot_be_made,
    "the state is rubbish": state_is(b"\xff"),
    "the state is something else": state_is(b'{"config": 3}'),
}


@pytest.fixture(params=BROKEN)
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Break something, and return a directory for files."""
    for name in [name for name in os.environ if name.startswith("BURLA_")]:
        monkeypatch.delenv(name)
    names = ("config", "state", "data", "cache")
    for variable, name in zip(DIRECTORIES, names, strict=True):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr("burla.transport.request.ANSWER_S", 0.05)
    monkeypatch.setattr("burla.commands.doctor.ANSWER_S", 0.05)
    monkeypatch.setattr("burla.commands.job_output.ANSWER_S", 0.05)
    monkeypatch.setattr("burla.commands.cluster._best_isolation", lambda address: ("uid", ""))
    monkeypatch.chdir(tmp_path)
    BROKEN[request.param](tmp_path, monkeypatch)
    return tmp_path


def test_what_is_wrong_with_the_machine_is_told(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for words in TALKING:
        code = cli.main([*words, *arguments(ALL[words], machine), "--json"])
        out, _ = capsys.readouterr()
        if code == 0 or not is_error(out):  # a report, perhaps of something that is not well
            assert code in (0, 1), words
            continue
        error = said(out)
        assert error["exit_code"] == code, words
        told[" ".join(words)] = error["kind"]
    assert {words for words, kind in told.items() if kind == failures.INTERNAL.kind} == set()


# --- what happens to any command ---


def with_callback(words: tuple[str, ...], error: BaseException, monkeypatch: Any) -> None:
    def fail(**options: Any) -> None:
        raise error

    monkeypatch.setattr(ALL[words], "callback", fail)


@pytest.mark.parametrize(
    ("error", "kind", "code", "text"),
    [
        (KeyboardInterrupt(), "interrupted", 130, "interrupted"),
        (click.Abort(), "interrupted", 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), "system", 1, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "system", 1, "/x: Permission"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "/of/another"), "system", 1, "/of/another"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_can_happen_to_any_command_is_told(
    error: BaseException,
    kind: str,
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in TALKING:
        with_callback(words, error, monkeypatch)
        line = [*words, *arguments(ALL[words], tmp_path)]
        assert cli.main([*line, "--json"]) == code, words
        told = said(capsys.readouterr().out)
        assert (told["kind"], told["exit_code"]) == (kind, code), words
        assert text in told["text"], words
        assert cli.main(line) == code
        assert capsys.readouterr().out == "", words


def all_words(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_words(command, *before, name)
        else:
            yield (*before, name)


def test_wrong_usage_of_any_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in all_words(cli.commands):
        for more in (["--no-such-option", "--json"], ["--json", *["word"] * 70, "--nosuch"]):
            assert cli.main([*words, *more]) == 2, words
            told = said(capsys.readouterr().out)
            assert (told["kind"], told["exit_code"]) == ("usage", 2)


@pytest.mark.parametrize("words", [["schema"], ["resume", "list", "--json"]], ids=" ".join)
def test_a_reader_that_goes_ends_it_without_a_word(words: list[str], tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        line = [sys.executable, "-m", "burla", *words]
        env = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
        done = subprocess.run(line, env=env, stdout=theirs, stderr=subprocess.PIPE)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (1, b"")
