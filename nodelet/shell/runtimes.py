"""Container runtimes of this machine: podman or docker, told what to fetch and to hand over.

They fetch images, know the registries and the passwords for them, and put the layers of an image
together. They run nothing: what runs in an image does so in a sandbox of ours.
"""

import asyncio
import json
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from burla.protocol.image_messages import is_local, may_change, with_registry

from .left_over import is_left, own_name

RUNTIMES = {"podman": ("--version",), "docker": ("version",)}  # how each is tried
TRIAL_S = 15.0  # a daemon that was just installed begins within this
PULL_S = 3600.0  # the most that fetching one image may take
ANSWER_S = 60.0  # for all else that it is asked
TAIL_LINES, TAIL_CHARACTERS = 6, 1500  # of what it said last, for people
MARK = "burla-"  # what containers are called that are made to be exported, and whose


class RuntimeFailedError(Exception):
    """The runtime cannot do it; the text is what it said."""


class ImageFacts(NamedTuple):
    """What a runtime tells of an image that it has."""

    id: str
    variables: dict[str, str]


def find_runtime() -> tuple[str, str]:
    """Return the path of a runtime that works here, and why none does; waits for it.

    podman is not asked how it is, since to look it makes directories of its own all over a machine.
    """
    reasons = []
    for name, words in RUNTIMES.items():
        if (path := shutil.which(name)) is None:
            continue
        why = _what_podman_lacks() if name == "podman" else ""
        if not (why := why or _try(path, words)):
            return path, ""
        reasons.append(f"{name}: {why}")
    return "", "; ".join(reasons) or "neither podman nor docker is installed"


def _try(path: str, words: Sequence[str]) -> str:
    """Return why a program does not work; empty: it does."""
    try:
        done = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRIAL_S,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _what_podman_lacks(table: str = "/etc/subuid", switch: str = "/etc/nsswitch.conf") -> str:
    """Return what a user who is not root lacks to unpack images; empty: nothing."""
    if (uid := os.geteuid()) == 0:
        return ""
    if shutil.which("newuidmap") is None:
        return "newuidmap is not installed (uidmap), which it needs for users other than root"
    with suppress(KeyError, OSError):
        names = (str(uid), pwd.getpwuid(uid).pw_name)
        with open(switch) as file:  # who says so has them elsewhere
            if any(line.startswith("subid:") for line in file):
                return ""
        with open(table) as file:
            if any(line.partition(":")[0] in names for line in file):
                return ""
    return f"{table} has no line for user {uid}, which it needs for users other than root"


class Runtime:
    """One runtime."""

    def __init__(self, path: str) -> None:
        """Use the program at `path`."""
        self._path = path

    async def find(self, image: str) -> ImageFacts | None:
        """Return what it knows of an image; None: it has not got it."""
        for name in dict.fromkeys((image, with_registry(image))):
            with suppress(RuntimeFailedError):
                told = json.loads(await self._ask("image", "inspect", name))
                config = told[0].get("Config") or {}
                pairs = (line.partition("=") for line in config.get("Env") or ())
                variables = {key: value for key, mark, value in pairs if key and mark}
                return ImageFacts(told[0]["Id"].removeprefix("sha256:"), variables)
        return None

    async def fetch(self, image: str, tell: Callable[[str], None]) -> tuple[ImageFacts, bool]:
        """Have an image there; return what is known of it, and whether it was fetched.

        Raises:
            RuntimeFailedError: it cannot be had.
        """
        found = await self.find(image)
        if found is not None and not may_change(image):
            return found, False
        if found is None and is_local(image):
            raise RuntimeFailedError("it is not on this node, and no registry has what is there")
        tell(f"pulling {image}")
        try:
            await self._ask("pull", with_registry(image), limit_s=PULL_S)
        except RuntimeFailedError:
            if found is None:
                raise
            return found, False  # the registry is not reached: what is here is used
        found = await self.find(image)
        if found is None:
            raise RuntimeFailedError("it is not there, though it was pulled")
        return found, True

    async def forget(self, image: str) -> None:
        """Give up what it keeps of an image."""
        with suppress(RuntimeFailedError):
            await self._ask("rmi", with_registry(image))

    @asynccontextmanager
    async def exported(self, image_id: str) -> AsyncIterator[int]:
        """Have the files of an image come as a tar archive on a descriptor.

        Raises:
            RuntimeFailedError: they cannot be had.
        """
        await self.remove_left()
        name = own_name(MARK)
        await self._ask("create", "--name", name, image_id, "true")
        reader, writer = os.pipe()
        try:
            with os.fdopen(reader, "rb", buffering=0) as archive:
                try:
                    process = await _begin([self._path, "export", name], stdout=writer)
                finally:
                    os.close(writer)
                try:
                    yield archive.fileno()
                    archive.close()  # or it would wait for who has read enough
                    assert process.stderr is not None
                    said = await process.stderr.read()
                    if await process.wait():
                        raise RuntimeFailedError(tail(said))
                finally:
                    await end(process)
        finally:
            with suppress(RuntimeFailedError):
                await asyncio.shield(self._ask("rm", "-f", name))

    async def remove_left(self) -> None:
        """Remove containers that nodelets have left that were killed."""
        with suppress(RuntimeFailedError):
            said = await self._ask("ps", "-a", "--filter", f"name={MARK}", "--format", "{{.Names}}")
            for name in said.split():
                if is_left(name, MARK):
                    await self._ask("rm", "-f", name)

    async def _ask(self, *words: str, limit_s: float = ANSWER_S) -> str:
        """Return what it says.

        Raises:
            RuntimeFailedError: it fails, or takes too long.
        """
        return await run([self._path, *words], words[0], limit_s)


async def run(line: Sequence[str], what: str, limit_s: float, source: int | None = None) -> str:
    """Return what a program says on its stdout.

    Args:
        line: its command line.
        what: it does, for people.
        limit_s: how long that may take.
        source: what it reads from; None: nothing.

    Raises:
        RuntimeFailedError: it fails, or takes too long; the text is what it said last.
    """
    process = await _begin(line, stdin=source)
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise RuntimeFailedError(f"{what} has taken longer than {limit_s:.0f} s") from None
    finally:
        await end(process)
    if process.returncode:
        raise RuntimeFailedError(tail(err or out))
    return out.decode(errors="replace")


async def _begin(
    line: Sequence[str], *, stdin: int | None = None, stdout: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeFailedError(f"{line[0]} cannot be run: {error.strerror}") from None


async def end(process: asyncio.subprocess.Process) -> None:
    """End a program that we do not wait for any more."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def tail(said: bytes) -> str:
    """Return the last lines that a program has said."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])[-TAIL_CHARACTERS:] or "it failed and said nothing"
