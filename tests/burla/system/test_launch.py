import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import burla
from burla.system import launch

pytestmark = pytest.mark.slow

SHOW = """
import gc, sys, burla, msgpack, random
def main(arguments):
    assert gc.isenabled()
    print(burla.__file__, msgpack.__file__, random.__file__, *arguments, sep="\\n")
    return 3
"""
CALLER = """
import subprocess, sys
sys.path[:0] = sys.argv[2:]
from burla.system import launch
sys.exit(subprocess.run(launch.command(sys.argv[1], "a", "b")).returncode)
"""


def elsewhere(tmp_path: Path) -> Path:
    """Return a directory with a copy of burla that has one module more, and traps beside it."""
    home = tmp_path / "checkout"
    package = home / "burla"
    source = Path(burla.__file__).parent
    (package / "system").mkdir(parents=True)
    shutil.copy(source / "__init__.py", package)
    for name in ("__init__.py", "launch.py"):
        shutil.copy(source / "system" / name, package / "system")
    (package / "show.py").write_text(SHOW)
    for trap in ("random", "msgpack", "signal", "importlib"):
        (home / f"{trap}.py").write_text("raise SystemExit('the wrong module')")
    return home


def run(home: Path, *before: str, script: str = CALLER) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    line = [sys.executable, *before, "-P", "-c", script, "burla.show"]
    return subprocess.run(
        [*line, str(home)], capture_output=True, text=True, cwd=home, env=environment, timeout=50
    )


@pytest.mark.parametrize("options", [[], ["-OO"], ["-E", "-s", "-B"], ["-I"]])
def test_the_same_burla_is_run_and_what_lies_beside_it_is_no_library(
    tmp_path: Path, options: list[str]
) -> None:
    home = elsewhere(tmp_path)
    # the traps are for the child: the caller has its libraries before it sees them
    script = "import random, signal, subprocess, importlib.util, msgpack" + CALLER
    done = run(home, *options, script=script)
    found, *others, first, second = done.stdout.splitlines()
    assert (found, first, second) == (str(home / "burla" / "__init__.py"), "a", "b"), done.stderr
    assert not [path for path in others if path.startswith(str(home))]
    assert done.returncode == 3


def test_a_library_that_only_the_caller_can_find_is_found(tmp_path: Path) -> None:
    home = elsewhere(tmp_path)
    (home / "msgpack.py").unlink()
    library = tmp_path / "vendored"
    library.mkdir()
    (library / "rarely.py").write_text("")
    (home / "burla" / "show.py").write_text("def main(arguments): import rarely")
    script = f"import sys; sys.path.append({str(library)!r})\n" + (
        "import random, signal, subprocess, importlib.util" + CALLER
    )
    assert run(home, script=script).returncode == 0


def test_ignored_and_blocked_signals_are_not_handed_on(tmp_path: Path) -> None:
    home = elsewhere(tmp_path)
    (home / "burla" / "show.py").write_text(
        "import signal\n"
        "def main(arguments):\n"
        "    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL\n"
    )
    script = "import random, signal, subprocess, importlib.util\n" + (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())"
    )
    done = run(home, script=script + CALLER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi"])
def test_the_python_is_found_where_the_executable_is_none(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    if os.path.exists("/proc/self/exe"):
        assert launch.command("m")[0] == os.readlink("/proc/self/exe")
    monkeypatch.setattr(os, "readlink", lambda path: "/usr/bin/blender")
    beside = f"{sys.prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    assert launch.command("m")[0] == beside
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    with pytest.raises(launch.LaunchError, match=r"does not know which Python it is"):
        launch.command("m")


def test_a_frozen_program_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(launch.LaunchError, match=r"this program is frozen \(.*no Python to start"):
        launch.command("m")
