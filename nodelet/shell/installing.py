"""Installing packages from an index into a folder, by uv, or by pip where there is no uv.

Only wheels are taken: what they hold is unpacked and nothing of it runs, so this may be done with
the rights of the nodelet, once for all users. What has no wheel is told by name: whoever wants it
has it installed, and its files travel (`packages` of `LeaseRefused`).
"""

import asyncio
import os
import re
import shutil
import signal
import site
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from glob import glob
from pathlib import Path

from burla.nodelet.core.sources import Sources
from burla.protocol.package_messages import (
    HASH_OPTION,
    canonical,
    exact_version,
    name_of,
    split_hashes,
)

INSTALL_S = 1800.0  # the most that one installation may take
TRIES_MAX = 50  # to find out which of many packages cannot be had: an installer names one or two
TAIL_LINES, TAIL_CHARACTERS = 8, 1500  # of what an installer said last, for people
LINE_BYTES_MAX = 1 << 20  # of what an installer says
FULL = ("No space left on device", "Disk quota exceeded")

# It ends with us, and what it makes can be read by the user ids of jobs, whatever our umask is.
_BEGIN = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.umask(0o022); "
    "os.nice(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)
# Bytecode of all modules that have none: what came with a caller's files has its own.
_COMPILE = """\
import compileall, os, sys
from importlib.util import cache_from_source
for folder, folders, files in os.walk(sys.argv[1]):
    folders[:] = [one for one in folders if one not in ("test", "tests", "__pycache__")]
    for file in files:
        path = os.path.join(folder, file)
        if file.endswith(".py") and not os.path.exists(cache_from_source(path)):
            compileall.compile_file(path, quiet=2)
"""
_BUSY = re.compile(r"\s*(Downloading|Building|Downloaded|Built|Collecting) ([\w.-]+)")
_IDLE = (  # what it says that helps nobody
    *("Using ", "hint:", "WARNING: Location", "Prepared ", "Downloading ", "Downloaded "),
    *("warning: Failed to hardlink", "If the cache and target", "If this is intentional"),
)
_OTHER_HASH = re.compile(r"(?i)hash mismatch|do not match the hashes")
_UNREACHABLE = re.compile(
    r"(?i)failed to fetch|error sending request|could not connect|dns error|connection refused|"
    r"timed out|network is unreachable|name resolution|max retries|retrying \(|newconnectionerror"
)


class LackingError(Exception):
    """Some packages cannot be had here; the text is what the installer said last."""

    def __init__(self, names: Sequence[str], text: str) -> None:
        super().__init__(text)
        self.names = names


class InstallError(Exception):
    """It cannot be installed now, for a reason of this machine; the text says which."""


class Installer:
    """What installs."""

    def __init__(self, cache: str, sources: Sources | None = None) -> None:
        """Keep what is fetched in a directory."""
        self._cache, self._sources = cache, sources or Sources()

    async def install(
        self,
        requirements: Sequence[str],
        target: str,
        tell: Callable[[str], None],
        *,
        is_whole: bool,
    ) -> None:
        """Install into a new directory.

        Args:
            requirements: what.
            target: the directory.
            tell: takes what is being done, for people.
            is_whole: nothing else is installed for them.

        Raises:
            LackingError: some cannot be had.
            InstallError: it cannot be done at all.
        """
        house = self._sources.wheelhouse
        if house and (none := await asyncio.to_thread(_not_in, house, requirements)):
            names = [name_of(one) for one in none]
            raise LackingError(names, f"the wheelhouse of this node has no {none[0]}")
        said = _Said(requirements, tell)
        text = await self._run(requirements, target, said, is_whole=is_whole)
        if text is None:
            return
        if any(words in text for words in FULL):
            root = os.path.dirname(os.path.dirname(target))
            raise InstallError(f"the disk of {root} or {self._cache} is full: {text}")
        if _OTHER_HASH.search(text):  # files of the caller's would only hide it
            raise InstallError(f"an index has other files than the hashes are of: {text}")
        lacking: list[str] = []
        left = list(requirements)
        while True:
            named = _named_in(text, left)
            if not named or _UNREACHABLE.search(text):
                named = [name_of(one) for one in left]
            lacking += named
            left = [one for one in left if name_of(one) not in named]
            if not left or not is_whole or len(lacking) >= TRIES_MAX:
                break
            again = await self._run(left, target, said, is_whole=True, is_trial=True)
            if again is None:
                break
            text = again
        raise LackingError(lacking, text)

    async def forget(self, names: Sequence[str]) -> None:
        """Let go of what was fetched of these packages."""
        if names and (uv := find_uv()):
            line = [uv, "cache", "clean", *_settings_of_uv(os.environ), *names]
            await run(line, self._environment(), lambda line: None)

    async def forget_all(self) -> bool:
        """Let go of all that was fetched; return whether there was anything."""
        if not await asyncio.to_thread(os.path.isdir, self._cache):
            return False
        if uv := find_uv():  # which waits for others that use it
            await run([uv, "cache", "clean", "--no-config"], self._environment(), lambda line: None)
        else:
            await asyncio.to_thread(shutil.rmtree, self._cache, ignore_errors=True)
        return True

    async def _run(
        self,
        requirements: Sequence[str],
        target: str,
        said: "_Said",
        *,
        is_whole: bool,
        is_trial: bool = False,
    ) -> str | None:
        """Return what the installer said last if it failed; `is_trial`: it changes nothing."""
        listed = Path(target).with_name("requirements.txt")
        await asyncio.to_thread(listed.write_text, "".join(f"{one}\n" for one in requirements))
        line = [
            *_program(),
            "install",
            "--target",
            target,
            "--only-binary",
            ":all:",
        ]
        line += ["--no-deps"] if is_whole else []
        line += ["--dry-run"] if is_trial else []
        if any(HASH_OPTION in one for one in requirements):
            line += ["--require-hashes"]  # as the caller's file says
        sources = self._sources.options()
        if find_uv():
            line += ["--python", sys.executable, "--link-mode", "hardlink", "--color", "never"]
            line += ["--no-config"] if sources else _settings_of_uv(os.environ)
        else:
            line += ["--disable-pip-version-check", "--no-input", "--no-compile"]
            line += ["--retries", "1", "--timeout", "10"]
            line += ["--isolated"] if sources else []
        environment = self._environment()
        if find_uv() and environment.get(NO_INDEX):  # which uv takes as an option alone
            line += ["--no-index"]
        line += [*sources, "-r", str(listed)]
        return await run(line, environment, said.hear, directory=str(listed.parent))

    def _environment(self) -> dict[str, str]:
        usual = {name: os.environ[name] for name in os.environ if name != "PYTHONHASHSEED"}
        told = {"UV_CACHE_DIR": self._cache, "PIP_CACHE_DIR": self._cache, "UV_HTTP_TIMEOUT": "15"}
        # several indexes of pip's are equals to it
        as_pip = {"UV_HTTP_RETRIES": "1", "UV_INDEX_STRATEGY": "unsafe-best-match"}
        said = {**settings_of_pip(os.environ), **as_pip, **usual, **told}
        if not self._sources.options():
            return said
        return {name: said[name] for name in said if name not in _OF_INDEXES}


class _Said:
    """What an installer says of how far it is, in our words."""

    def __init__(self, requirements: Sequence[str], tell: Callable[[str], None]) -> None:
        shown = {name_of(one): split_hashes(one)[0].partition(";")[0] for one in requirements}
        self._names = {name: text.strip() for name, text in shown.items()}
        self._tell = tell
        self._done: dict[str, None] = {}
        first = ", ".join(self._shown(name) for name in list(self._names)[:3])
        more = f" and {len(self._names) - 3} more" if len(self._names) > 3 else ""
        tell(f"installing {first}{more}")

    def hear(self, line: str) -> None:
        match = _BUSY.match(line)
        if match is None:
            return
        name = name_of(match[2].partition("-")[0] if ".whl" in match[2] else match[2])
        if match[1] in ("Downloaded", "Built"):
            self._done[name] = None
        else:
            total = max(len(self._names), len(self._done) + 1)
            self._tell(f"installing {self._shown(name)}, {len(self._done) + 1} of {total}")

    def _shown(self, name: str) -> str:
        return self._names.get(name, name).replace("==", " ")


async def compile_all(directory: str) -> None:
    """Put bytecode beside all modules, when nobody else wants the processor."""
    line = [sys.executable, "-I", "-c", _COMPILE, directory]
    await run(line, dict(os.environ), lambda line: None, nice=19)


async def run(
    line: Sequence[str],
    environment: Mapping[str, str],
    hear: Callable[[str], None],
    nice: int = 0,
    directory: str = "/",
    inherited: Sequence[int] = (),
) -> str | None:
    """Run a program; return the last lines of what it said if it failed.

    Args:
        line: what is run.
        environment: its variables.
        hear: takes each line that it says.
        nice: how much it lets others go first.
        directory: where it runs: not where we do, for others may put files there.
        inherited: descriptors that it has, too.

    Raises:
        InstallError: it cannot be run.
    """
    begun = [sys.executable, "-I", "-S", "-c", _BEGIN, str(nice), *line]
    try:
        process = await asyncio.create_subprocess_exec(
            *begun,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=directory,
            limit=LINE_BYTES_MAX,
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError as error:
        raise InstallError(f"{line[0]} cannot be run: {error.strerror}") from None
    last: list[str] = []
    try:
        async with asyncio.timeout(INSTALL_S):
            assert process.stdout is not None
            async for raw in process.stdout:
                text = raw.decode(errors="replace").rstrip()
                hear(text)
                if text.strip() and not text.lstrip().startswith(_IDLE):
                    last = [*last, text][-TAIL_LINES:]
            code = await process.wait()
    except TimeoutError:
        raise InstallError(f"it has taken longer than {INSTALL_S:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code == 0:
        return None
    return "\n".join(last)[-TAIL_CHARACTERS:] or f"it ended with exit code {code}"


def _named_in(text: str, requirements: Sequence[str]) -> list[str]:
    """Return the packages that a text names as such that cannot be had."""
    words = {name_of(word) for word in re.findall(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", text)}
    exact = {one: split_hashes(one)[0].replace(" ", "").lower() for one in requirements}
    # versions are named with them, as "pandas==9.9": who is only mentioned is not
    said = text.replace(" ", "").lower()
    chosen = [name_of(one) for one, version in exact.items() if version in said]
    return chosen or [name for one in requirements if (name := name_of(one)) in words]


def _not_in(wheelhouse: str, requirements: Sequence[str]) -> list[str]:
    """Return exact requirements of which a folder has no wheel: no installer has to be asked."""
    there = set()
    with suppress(OSError):
        for file in os.listdir(wheelhouse):
            name, _, rest = file.partition("-")
            there.add((canonical(name), rest.partition("-")[0]))
    exact = {one: exact_version(one) for one in requirements}
    return [
        one for one, version in exact.items() if version and (name_of(one), version) not in there
    ]


# --- the installers ---


@cache
def find_uv() -> str:
    """Return where uv is; empty: nowhere."""
    try:
        from uv import find_uv_bin  # a dependency, but for machines that have none of it
    except ImportError:
        return shutil.which("uv") or ""
    try:
        return str(find_uv_bin())
    except FileNotFoundError:
        return shutil.which("uv") or ""


@cache
def _program() -> list[str]:
    """Return what is run.

    Raises:
        InstallError: there is neither.
    """
    if uv := find_uv():
        return [uv, "pip"]
    from importlib.util import find_spec

    # apart from what lies in its directory and in that of the user, as a module named as one of its
    if (spec := find_spec("pip")) is not None and spec.origin is not None:
        if not spec.origin.startswith(site.getusersitepackages()):
            return [sys.executable, "-I", "-m", "pip"]
        return [sys.executable, "-I", os.path.dirname(spec.origin)]
    bundled = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled", "pip-*.whl")
    found = [*glob(bundled), *glob("/usr/share/python-wheels/pip-*.whl")]
    if not found:
        raise InstallError("this node has neither uv nor pip: an administrator upgrades it")
    return [sys.executable, "-I", os.path.join(found[0], "pip")]


def _settings_of_uv(environment: Mapping[str, str]) -> list[str]:
    """Return what has uv read the settings of this machine, and none beside or above a folder."""
    if environment.get("UV_CONFIG_FILE"):
        return []
    home = os.path.join(environment.get("HOME", ""), ".config")
    for place in (environment.get("XDG_CONFIG_HOME") or home, "/etc"):
        file = os.path.join(place, "uv", "uv.toml")
        if os.path.isabs(file) and os.path.isfile(file):
            return ["--config-file", file]
    return ["--no-config"]


NO_INDEX = "UV_NO_INDEX"  # this is for us: no uv reads it
# Which setting of uv is which of pip.
_SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": NO_INDEX,
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
# What says where packages come from, to either.
_OF_INDEXES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    *(NO_INDEX, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"),
)


def settings_of_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """Return for uv, which reads none of it, what pip is told on this machine about indexes."""
    import configparser  # few nodelets install anything

    told: dict[str, str] = {}
    for file in _files_of_pip(environment):
        parser = configparser.RawConfigParser()
        with suppress(OSError, configparser.Error, UnicodeError):
            parser.read(file)
        for section in ("global", "install"):
            if parser.has_section(section):
                told |= dict(parser.items(section))
    for name in _SAME:
        value = environment.get(f"PIP_{name.upper().replace('-', '_')}")
        if value is not None:
            told[name] = value
    found = {}
    for name, variable in _SAME.items():
        value = " ".join(told.get(name, "").split())
        if value and not (name == "no-index" and value.lower() in ("0", "false", "no", "off")):
            found[variable] = value.replace(" ", ",") if name == "find-links" else value
    if NO_INDEX in found:
        found[NO_INDEX] = "1"
    return found


def _files_of_pip(environment: Mapping[str, str]) -> list[str]:
    """Return the files with settings of pip, those that count more later."""
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    files = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf", os.path.join(home, ".pip/pip.conf")]
    files += [os.path.join(config, "pip/pip.conf"), os.path.join(sys.prefix, "pip.conf")]
    return [*files, *filter(None, [named])]
