import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from burla import cli, errors
from burla.protocol import VERSION
from burla.provisioning import state
from burla.provisioning.config import ClusterConfig, LocalConfig
from burla.provisioning.state import State


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"burla {VERSION}\n"


def test_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("remote_parallel_map", "BURLA_CLUSTER", "demo", "exit codes"):
        assert word in shown
    code = "    from burla import remote_parallel_map\n      results = remote_parallel_map("
    assert code in shown


def test_no_help_shows_its_markup(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (name.split() for name in all_commands(cli.commands)):
        assert cli.main([*words, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "\\b" not in shown
        assert "\b" not in shown


NO_CLUSTER = (  # none is meant
    *(["restore"], ["schema"], ["skill"], ["env", "show"], ["env", "prune"]),
    *(["resume", "list"], ["resume", "show"], ["resume", "drop"]),
)


def test_every_command_is_told_the_cluster_alike() -> None:
    for words in (name.split() for name in all_commands(cli.commands)):
        found: click.Command = cli.commands
        for word in words:
            assert isinstance(found, click.Group)
            found = found.commands[word]
        names = [parameter.name for parameter in found.params]
        is_told = "cluster" in names or words in NO_CLUSTER
        assert isinstance(found, click.Group) or is_told, words


def test_the_module_is_the_command() -> None:
    line = [sys.executable, "-m", "burla", "--version"]
    assert subprocess.check_output(line, text=True) == f"burla {VERSION}\n"


def all_commands(group: click.Group, before: str = "") -> Iterator[str]:
    """Yield the words of each command, groups included."""
    for name, command in group.commands.items():
        yield f"{before}{name}"
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{before}{name} ")


def test_wrong_usage_is_told_from_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadSetting("BURLA_CLUSTER", "x", "tcp://HOST:PORT"), 78),
        (errors.ClusterUnreachable("tcp://h:1", "silence"), 69),
        (errors.NotAuthorised("no"), 77),
        (errors.Refused("no"), 1),
        (errors.JobFailed("no"), 1),
    ],
)
def test_a_public_error_is_a_line_and_an_exit_code(
    error: errors.BurlaError,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @cli.commands.command("fail")
    def fail() -> None:
        raise error

    try:
        assert cli.main(["fail"]) == code
    finally:
        cli.commands.commands.pop("fail")
    assert capsys.readouterr().err == f"burla: {error}\n"


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["nonsense"], "usage", 2),
        (["nodes", "add"], "usage", 2),
        (["auth", "add", "short", "--user", "x"], "usage", 2),
        (["login", "tcp://h:1"], "bad_setting", 78),
        (["login", "--cluster", "nosuch"], "no_cluster", 69),
        (["status"], "no_cluster", 69),
        (["up"], "bad_config", 78),
        (["restore", "/nowhere"], "bad_config", 78),
        (["nodes", "list"], "bad_setting", 78),
        (["nodes", "list", "--cluster", "ipc:///nowhere/s"], "cluster_unreachable", 69),
    ],
)
def test_with_json_an_error_is_json_on_stdout(
    words: list[str],
    kind: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("BURLA_STATE_DIR", "BURLA_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("BURLA_CLUSTER", raising=False)
    monkeypatch.setattr("burla.transport.request.ANSWER_S", 0.1)
    assert cli.main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    said = json.loads(out)["error"]
    assert err == ""
    assert (said["kind"], said["exit_code"]) == (kind, code)
    assert said["text"]
    assert said["remedy"]
    assert cli.main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said["text"] in err


def test_a_bug_is_json_and_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @cli.commands.command("fail")
    @click.option("--json", "as_json", is_flag=True)
    def fail(as_json: bool) -> None:
        raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            cli.main(["fail", "--json"])
    finally:
        cli.commands.commands.pop("fail")
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "internal"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path))
    state.write(State(ClusterConfig(name="lab", local=LocalConfig(2)), "ipc:///s"))

    def run(**variables: str) -> str:
        env = os.environ | variables
        line = [sys.executable, "-m", "burla.cli"]
        return subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout

    assert "burla" in run(_BURLA_COMPLETE=f"{shell}_source")
    for words, wanted in (
        ("burla no", "nodes"),
        ("burla auth qu", "quota"),
        ("burla up --gc", "--gce"),
        ("burla status --cluster l", "lab"),
        ("burla nodes drain local-", "local-2"),
    ):
        number = words.split()[-1] if shell == "fish" else str(len(words.split()) - 1)
        said = run(_BURLA_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=number)
        assert wanted in said, (words, said)


def test_ctrl_c_has_its_own_exit_code() -> None:
    @cli.commands.command("wait")
    def wait() -> None:
        raise KeyboardInterrupt

    try:
        assert cli.main(["wait"]) == 130
    finally:
        cli.commands.commands.pop("wait")


@pytest.mark.slow
def test_it_starts_without_loading_the_other_rooms() -> None:
    script = (
        "import sys; from burla.cli import main; main(['--version']); "
        "print([m for m in sys.modules if m in ('zmq', 'asyncio', 'rich', 'cloudpickle') "
        "or m.startswith(('burla.scheduler', 'burla.nodelet', 'burla.provisioning'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"burla {VERSION}\n[]\n", done.stderr
