"""The page for coding agents says what is; tests/end_to_end/test_skill.py runs it."""

import inspect
import re
from pathlib import Path

import click
import pytest
from skills import commands_of, lines_of, page

import burla
from burla import cli, remote_parallel_map
from burla.commands import failures
from burla.system import exit_codes


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["skill"]) == 0
    assert capsys.readouterr().out == page()


def test_it_is_one_page_that_agents_find() -> None:
    assert len(page().splitlines()) <= 200
    head = re.fullmatch(r"(?s)---\nname: burla\ndescription: ([^\n]+)\n---\n\n# burla\n.*", page())
    assert head is not None
    assert len(head[1]) <= 1024


@pytest.mark.parametrize("words", commands_of(page()), ids=" ".join)
def test_each_command_is_there_with_its_options(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("SCRIPT").touch()
    found: click.Command = cli.commands
    while isinstance(found, click.Group):
        found, words = found.commands[words[0]], words[1:]
    found.make_context("", words).close()


def test_each_command_that_people_have_is_named_or_left_out_on_purpose() -> None:
    named = {words[0] for words in commands_of(page())}
    told = set(re.findall(r"burla (\w+)", page()))
    assert set(cli.commands.commands) - named - told == {
        *("backup", "restore", "gc"),  # for administrators
        *("dashboard", "demo"),  # for people
        "skill",
    }


def test_its_keywords_are_those_of_the_function() -> None:
    rows = lines_of(page(), "| keyword |")
    named = {word for row in rows for word in re.findall(r"`(\w+)=", row.split("|")[1])}
    known = set(inspect.signature(remote_parallel_map).parameters)
    assert named <= known
    assert known - named == {
        *("function_", "inputs", "ordered", "raise_errors", "progress"),
        *("image", "region", "disk_gb"),
    }


def test_its_errors_and_exit_codes_are_there() -> None:
    kinds = {failure.kind for failure in failures.FAILURES.values()}
    rows = lines_of(page(), "| kind or error |")
    assert {kind for row in rows for kind in re.findall(r"`([a-z]+_[a-z]+)`", row)} <= kinds | {
        "func_ram"
    }
    for name in re.findall(r"`burla\.(\w+)", page()):
        assert name in (*burla.__all__, "shared"), name
    codes = [row.strip("| ").split(" | ") for row in lines_of(page(), "| exit code |")]
    assert {int(code): what for code, what in codes} == exit_codes.COMMANDS
