"""Scripts of a caller, each in a process of its own, as a user would run them."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import wait_until

Process = subprocess.Popen[str]

SCRIPT_S = 50.0  # only a hanging script takes this long
PATIENCE = re.compile(r"burla: .* waits: |burla: .*: [\d,]+ calls? in |burla: .* so far\)$")


def write(directory: Path, **files: str) -> None:
    """Write modules: `name="text"` becomes name.py."""
    for name, text in files.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text))


def run(
    source: str | Sequence[str],
    directory: Path,
    *,
    private: bool = False,
    shell: str = "",
    options: Sequence[str] = (),
    **how: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; `how` goes to `subprocess.run`. See `start`."""
    line = command(source, directory, shell, options)
    how = {"capture_output": True, "text": True, "timeout": SCRIPT_S} | how
    return subprocess.run(line, env=environment(private, how.pop("env", None)), check=False, **how)


def succeed(source: str | Sequence[str], directory: Path, **how: Any) -> str:
    """Return the stdout of a script that must end well and say nothing on stderr."""
    done = run(source, directory, **how)
    assert (done.returncode, unasked(done.stderr)) == (0, ""), done.stderr + done.stdout
    return str(done.stdout)


def unasked(stderr: str) -> str:
    """Return what a script has said on stderr, but for why it waited or how far it was.

    How long it waits for a node, or runs, is up to how busy the machine is.
    """
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not PATIENCE.match(line))


@contextmanager
def started(
    source: str, directory: Path, *, private: bool = False, **how: Any
) -> Iterator[Process]:
    """Start a script with pipes at stdin, stdout and stderr; it is killed if it goes on."""
    pipe = subprocess.PIPE
    how = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True} | how
    line = command(source, directory, "", ())
    with subprocess.Popen(line, env=environment(private, how.pop("env", None)), **how) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has been waited for


def command(
    source: str | Sequence[str], directory: Path, shell: str, options: Sequence[str]
) -> list[str]:
    """Return the command line of a script.

    Args:
        source: its text, or the arguments of Python instead, such as `("-c", "...")`.
        directory: where it is written as script.py.
        shell: what bash does before it, ending in `exec "$@"`.
        options: of Python.
    """
    if isinstance(source, str):
        write(directory, script=source)
        source = [str(directory / "script.py")]
    line = [sys.executable, *options, *source]
    return ["bash", "-c", shell, "bash", *line] if shell else line


def environment(private: bool, env: dict[str, str] | None) -> dict[str, str]:
    """Return the environment of a script; `private`: it starts a cluster of its own."""
    if env is None:
        env = dict(os.environ)
    return {k: v for k, v in env.items() if not (private and k == "BURLA_CLUSTER")}


def wait_for_lines(path: Path, count: int) -> list[str]:
    """Return the lines of a file as soon as it has `count` of them."""

    def there() -> bool:
        return path.exists() and path.read_text().count("\n") >= count

    wait_until(there, f"{count} lines in {path}")
    return path.read_text().splitlines()
