"""Packages that the operator of a node gives it once for all: every job finds them.

They are an environment like those that are made for jobs, which nothing removes while the nodelet
runs. Their place survives an upgrade of burla, for it is not in what burla itself is installed in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from burla.nodelet.core.sources import Sources
from burla.protocol.package_messages import Packages, checked, pack

from .environments import Environments, Store
from .installing import Installer, InstallError

LEASE = b"standing"  # for what else is an environment held
FILE_BYTES_MAX = 1 << 20


def read_requirements(path: str) -> tuple[str, ...]:
    """Return the requirements that a file lists, one a line.

    Raises:
        ValueError: it cannot be read, or has something else in it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(FILE_BYTES_MAX)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    try:
        return tuple(checked(line) for line in lines if line and not line.startswith("#"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@asynccontextmanager
async def standing(
    directory: str, sources: Sources, requirements: Sequence[str], tell: Callable[[str], None]
) -> AsyncIterator[str]:
    """Have packages there meanwhile; yields where imports find them.

    Args:
        directory: with all environments.
        sources: where they come from, if they are not there yet.
        requirements: of the packages.
        tell: takes what is being done, for people.

    Raises:
        InstallError: they cannot be had; says which, and why.
    """
    heard = _Heard(tell)
    made = Environments(Store(directory), Installer(f"{directory}-cache", sources), heard)
    made.get(LEASE, pack(Packages(tuple(requirements), is_whole=False)))
    try:
        yield await heard.place
    finally:
        await made.close()


class _Heard:
    """Takes what becomes of them."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.place: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def packages_progress(self, lease: bytes, text: str) -> None:
        self._tell(text)

    def packages_there(self, lease: bytes, place: str) -> None:
        self.place.set_result(place)

    def files_there(self, lease: bytes, place: str) -> None:
        """Nothing comes as files here."""

    def packages_failed(self, lease: bytes, why: str, lacking: Sequence[str]) -> None:
        self.place.set_exception(InstallError(f"packages of this node: {why}"))
