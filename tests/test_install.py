"""The package as a stranger gets it: built, installed, and called by its commands."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from burla.protocol import VERSION

ROOT = Path(__file__).parents[1]
COMMANDS = ("burla", "burla-scheduler", "burla-nodelet")
SCRIPTS = ("install/bootstrap", "gce/startup", "kubernetes/pod")  # that go to other machines
FOLDERS = {  # in the checkout -> in the wheel
    "burla": "burla",
    "scheduler": "burla/scheduler",
    "nodelet": "burla/nodelet",
    "provisioning": "burla/provisioning",
}
# An index may answer slowly, and a build needs setuptools from it.
slow_build = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    """Return what `command` printed on stdout; it runs without what this checkout configures."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BURLA"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=unwanted)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", ".", "./source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own, beside this one's dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin/python"
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    site = Path(where.strip())
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel)
    run(*install, cwd=folder)
    # Lines of a .pth are searched last, and the links of an editable install are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


class TestWheel:
    pytestmark = slow_build

    def test_it_holds_every_source_file_and_nothing_else(self, wheel: Path) -> None:
        expected = {"burla/py.typed", "burla/commands/schema.json", "burla/commands/skill.md"} | {
            f"burla/provisioning/{name}.sh" for name in SCRIPTS
        }
        for folder in ("templates", "static"):
            files = (ROOT / "burla/dashboard" / folder).rglob("*.*")
            expected |= {file.relative_to(ROOT).as_posix() for file in files}
        for folder, name in FOLDERS.items():
            for file in (ROOT / folder).rglob("*.py"):
                path = file.relative_to(ROOT / folder).as_posix()
                if folder != "burla" or path.split("/")[0] not in FOLDERS:
                    expected.add(f"{name}/{path}")
        names = zipfile.ZipFile(wheel).namelist()
        assert {name for name in names if ".dist-info/" not in name} == expected

    def test_it_says_what_it_is(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (path,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(path).decode())
        assert metadata["Version"] == VERSION
        assert metadata["License-Expression"] == "Apache-2.0"
        assert "remote_parallel_map" in str(metadata.get_payload())


class TestInstalled:
    pytestmark = slow_build

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_command_says_what_it_does(self, environment: Path, command: str) -> None:
        said = run(environment / "bin" / command, "--help", cwd=environment)
        assert f"usage: {command}" in said.lower()

    @pytest.mark.parametrize("module", ["burla.scheduler", "burla.nodelet"])
    def test_a_daemon_runs_as_a_module_too(self, environment: Path, module: str) -> None:
        said = run(environment / "bin/python", "-m", module, "--help", cwd=environment)
        assert f"usage: {module.replace('.', '-')}" in said

    def test_it_is_the_installed_package_that_was_asked(self, environment: Path) -> None:
        code = "import burla.scheduler as s; print(s.__file__)"
        where = run(environment / "bin/python", "-c", code, cwd=environment)
        assert Path(where.strip()).is_relative_to(environment)

    def test_the_command_and_the_package_know_the_version(self, environment: Path) -> None:
        said = run(environment / "bin/burla", "--version", cwd=environment)
        assert said.split()[-1] == VERSION
        code = "import burla; print(burla.__version__)"
        assert run(environment / "bin/python", "-c", code, cwd=environment).strip() == (VERSION)

    def test_the_example_of_the_readme_works(self, environment: Path) -> None:
        readme = (ROOT / "README.md").read_text()
        script = environment / "example.py"
        script.write_text(readme.split("```python\n")[1].split("```")[0])
        lines = run(environment / "bin/python", script, cwd=environment).splitlines()
        assert lines[-1] == "return values: [2, 4, 6, 8]"
        assert sorted(lines[:-1]) == [
            f"Running remote computer #{number} in the cloud!" for number in (1, 2, 3, 4)
        ]


def test_checks_install_what_the_readme_says() -> None:
    install, tests = "pip install -e '.[test]'", "pytest"
    assert f"{install} && {tests}\n" in (ROOT / "README.md").read_text()
    script = (ROOT / ".ci/run").read_text()
    assert install.replace("install", "install --quiet") in script
    assert f"\n{tests} " in script


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_is_named_in_pyproject() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, folder in setuptools["package-dir"].items():
        assert package in setuptools["packages"]
        assert (ROOT / folder / "__init__.py").exists()
    for link in FOLDERS:
        if link != "burla":
            assert (ROOT / "burla" / link).resolve() == (ROOT / link).resolve()
