"""A user with a home of their own, who runs our commands."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marked import NAME as MARK

SCRIPT = "from burla import remote_parallel_map as m; import os; "
SCRIPT += "print(m(lambda x: os.environ['BURLA_NODE'], [1, 2]))"


@dataclass
class User:
    """Somebody with a home who runs commands."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def burla(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `burla ...`; it must end with `code`, if that is said."""
        env = {
            name: value
            for name, value in os.environ.items()
            if name == MARK or not name.startswith(("BURLA", "XDG", "SSH"))
        }
        done = subprocess.run(
            [sys.executable, "-m", "burla.cli", *words],
            env=env | {"HOME": str(self.home)} | self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        is_so = code is None or done.returncode == code
        assert is_so, (words, done.returncode, done.stdout, done.stderr)
        return done

    def said(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Return what a command says with --json."""
        answer: dict[str, Any] = json.loads(self.burla(*words, "--json", code=code).stdout)
        return answer

    def listed(self, *words: str) -> list[dict[str, Any]]:
        """Return the list that a command says with --json."""
        answer: list[dict[str, Any]] = json.loads(self.burla(*words, "--json").stdout)
        return answer

    def seen(self, *words: str) -> dict[str, Any]:
        """Return what a command says with --json, however it ends."""
        answer: dict[str, Any] = json.loads(self.burla(*words, "--json", code=None).stdout)
        return answer

    def files(self) -> list[str]:
        """Return all files of the home, but for those of programs that are not ours."""
        found = [str(path.relative_to(self.home)) for path in self.home.rglob("*")]
        return sorted(path for path in found if not path.startswith((".ssh", ".rustup", ".cache")))

    def python(self, source: str) -> str:
        """Return what a script of theirs prints; it must end well."""
        done = subprocess.run(
            [sys.executable, "-c", source],
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin"} | self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=200,  # it may wait for the end of a walltime of two minutes
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(self, source: str) -> subprocess.Popen[str]:
        """Start a script of theirs, whose output is to be read."""
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"} | self.environment
        pipe = subprocess.PIPE
        line = [sys.executable, "-u", "-c", source]
        return subprocess.Popen(line, env=env, cwd=self.home, stdout=pipe, stderr=pipe, text=True)

    def tried(self, source: str) -> str:
        """Return what a script of theirs prints, and the end of what it complains of."""
        code = "import sys, traceback\ntry:\n    exec(sys.argv[1])\n"
        code += "except Exception as error:\n    print(repr(error))\n"
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"} | self.environment
        line = [sys.executable, "-c", code, source]
        return subprocess.check_output(line, env=env, cwd=self.home, text=True, timeout=200)

    def use(self, address: str) -> str:
        """Return what a script of theirs prints that uses a cluster: the nodes it ran on."""
        self.environment["BURLA_CLUSTER"] = address
        return self.python(SCRIPT)
