"""Environments of packages on this node: made when a lease needs one, and kept for the next.

One is a folder that is named by what is in it. It is made beside its place and renamed when it is
complete, so nothing half-made is ever found. Leases hold a lock on theirs; those that nobody holds
go when there are too many bytes, the one that was used longest ago first. Nodelets of one user on
one machine share them.
"""

import asyncio
import fcntl
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from burla.protocol.package_messages import (
    HASH_OPTION,
    LACKING_MAX,
    Packages,
    exact_version,
    name_of,
    split_hashes,
    unpack,
)

from .carried_files import SENT, CarriedFiles
from .installed import (
    LOADED,
    installed,
    installed_in,
    installed_in_image,
    lacking,
    lacking_in_image,
)
from .installing import FULL, Installer, InstallError, LackingError, compile_all
from .left_over import is_left, own_name

BYTES_MAX = 20 << 30  # of all environments, if there is so much room
FREE_SHARE = 2  # they take at most one of so many parts of what is free without them
INSTALLING_MAX = 4  # at once: users do not wait for each other, nor all want the processor
LEFT_S = 7 * 86400.0  # what another machine is making is not that old
TOLD_S = 3.0  # how far an installation is is told no more often
INSIDE = "site-packages"  # what is called so is taken for installed everywhere
FACTS = "packages.json"
FILES = b" files"  # behind the id of a lease: what it needs of these
NEW, OLD = ".new-", ".old-"

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Whoever hears what becomes of what was asked for."""

    def packages_progress(self, lease: bytes, text: str) -> None:
        """Take what is being done."""

    def packages_there(self, lease: bytes, place: str) -> None:
        """Take where it is; empty: this Python has all of it."""

    def files_there(self, lease: bytes, place: str) -> None:
        """Take where those are that came as files; empty: they cannot be there."""

    def packages_failed(self, lease: bytes, why: str, lacking: Sequence[str]) -> None:
        """Take why it cannot be, and which packages are to blame for it."""


class Kept(NamedTuple):
    """One environment on the disk."""

    key: str
    used_s: float
    size: int
    requirements: tuple[str, ...]
    is_whole: bool = False  # nothing else is in it

    def versions(self) -> dict[str, str]:
        """Return what is in it, by name; nothing if there may be more."""
        if not self.is_whole:
            return {}
        return {name_of(one): exact_version(one) for one in self.requirements}


class Store:
    """The folder with all environments."""

    def __init__(self, root: str, bytes_max: int | None = None, inside: str = INSIDE) -> None:
        """Use a folder that is there; what is kept of each lies in its folder `inside`."""
        self.root = root
        self._bytes_max = bytes_max
        self._inside = inside

    def place(self, key: str) -> str:
        """Return what imports look into, or another folder of what is kept."""
        return os.path.join(self.root, key, self._inside)

    def find(self, key: str) -> str:
        """Return where imports look, and note that it was used; empty: it is not there."""
        try:
            os.utime(os.path.join(self.root, key))
        except OSError:
            return ""
        return self.place(key)

    def hold(self, key: str) -> int:
        """Return a descriptor that keeps an environment, there or to be, from being removed."""
        return self._lock(key, fcntl.LOCK_SH)

    def new(self) -> str:
        """Return a folder in which one can be made."""
        made = os.path.join(self.root, own_name(NEW))
        os.mkdir(made, 0o755)
        os.chmod(made, 0o755)  # whatever our umask is
        return made

    def finish(self, made: str, key: str, requirements: Sequence[str], *, is_whole: bool) -> None:
        """Put what was made into its place, unless another was quicker.

        Raises:
            OSError: the disk is full.
        """
        size = _size_of(made)
        facts = {"bytes": size, "requirements": list(requirements), "whole": is_whole}
        with open(os.path.join(made, FACTS), "w") as file:
            os.chmod(file.fileno(), 0o600)  # jobs are not told what others have
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(made, os.path.join(self.root, key))
        except OSError:
            if not self.find(key):
                raise
            remove(made)

    def is_open(self, key: str) -> bool:
        """Return whether one that is there can be written to."""
        with suppress(OSError):
            return bool(os.stat(self.place(key)).st_mode & 0o222)
        return False

    def close(self, key: str) -> None:
        """Let nobody write to what is there any more."""
        for folder, _, files in os.walk(os.path.join(self.root, key)):
            for file in files:
                path = os.path.join(folder, file)
                with suppress(OSError):
                    mode = os.lstat(path).st_mode
                    if not os.path.islink(path):
                        os.chmod(path, mode & 0o555 | 0o444)
            with suppress(OSError):
                os.chmod(folder, 0o555)

    def all(self) -> list[Kept]:
        """Return all, the one that was used longest ago first."""
        found = []
        with suppress(OSError):
            for key in self._names():
                with suppress(OSError, ValueError, KeyError):
                    path = os.path.join(self.root, key)
                    if os.path.basename(key).startswith(".") or not os.path.isdir(path):
                        continue
                    with open(os.path.join(path, FACTS)) as file:
                        facts = json.load(file)
                    used_s, size = os.stat(path).st_mtime, int(facts["bytes"])
                    listed, is_whole = tuple(facts["requirements"]), bool(facts.get("whole"))
                    found.append(Kept(key, used_s, size, listed, is_whole))
        return sorted(found, key=lambda one: (one.used_s, one.key))

    def having(self, wanted: Mapping[str, str], there: Mapping[str, str]) -> str:
        """Return the key of the smallest environment with which all of these are there.

        Args:
            wanted: versions, by name.
            there: what is found behind it.

        Returns:
            Empty: there is none.
        """
        fitting = (
            (kept.size, kept.key)
            for kept in self.all()
            if (versions := kept.versions())
            and all(versions.get(name, there.get(name)) == wanted[name] for name in wanted)
        )
        return min(fitting, default=(0, ""))[1]

    def prune(self, bytes_max: int | None = None) -> list[Kept]:
        """Remove what nobody holds until few enough bytes are left; return what was removed."""
        self.remove_left()
        kept = self.all()
        total = sum(one.size for one in kept)
        most = self.bytes_max(total) if bytes_max is None else bytes_max
        gone = []
        for one in kept:
            if total <= most:
                break
            if self._remove(one.key):
                total -= one.size
                gone.append(one)
        return gone

    def bytes_max(self, used: int) -> int:
        """Return how many bytes all may have together."""
        if self._bytes_max is not None:
            return self._bytes_max
        return min(BYTES_MAX, (shutil.disk_usage(self.root).free + used) // FREE_SHARE)

    def remove_left(self) -> None:
        """Remove what nodelets have left that were killed."""
        for one in self._names():
            folder, name = os.path.split(one)
            key = os.path.join(folder, name[1:-5])
            if name.endswith(".lock") and not os.path.exists(self.place(key)):
                self._forget_lock(key)
            if self._is_left(name):
                path = os.path.join(self.root, name)
                remove(path) if os.path.isdir(path) else os.unlink(path)

    def has_left(self) -> bool:
        """Return whether a nodelet was killed while it put something here."""
        return any(name.startswith(NEW) and self._is_left(name) for name in self._names())

    def _is_left(self, name: str) -> bool:
        if not name.startswith((NEW, OLD)):
            return False
        known = is_left(name, NEW if name.startswith(NEW) else OLD)
        if known is not None:
            return known
        with suppress(OSError):
            return os.stat(os.path.join(self.root, name)).st_mtime < time.time() - LEFT_S
        return False

    def _remove(self, key: str) -> bool:
        """Remove an environment, unless somebody holds it."""
        try:
            fd = self._lock(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            gone = os.path.join(self.root, own_name(OLD))
            os.rename(os.path.join(self.root, key), gone)
            os.unlink(self._lock_file(key))
        except OSError:
            return False
        finally:
            os.close(fd)
        remove(gone)
        return True

    def _forget_lock(self, key: str) -> None:
        """Remove the lock of what is not there, unless somebody holds it."""
        with suppress(OSError):
            fd = self._lock(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if not os.path.exists(self.place(key)):
                    os.unlink(self._lock_file(key))
            finally:
                os.close(fd)

    def _lock(self, key: str, how: int) -> int:
        while True:
            path = self._lock_file(key)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, how)
                if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was removed meanwhile

    def _lock_file(self, key: str) -> str:
        folder, name = os.path.split(key)
        return os.path.join(self.root, folder, f".{name}.lock")

    def _names(self) -> list[str]:
        """Return the names of all that is here, also of what callers have sent."""
        names = os.listdir(self.root)
        with suppress(OSError):  # nobody has sent anything
            names += (os.path.join(SENT, name) for name in os.listdir(f"{self.root}/{SENT}"))
        return names


class Environments:
    """What leases of this node need of packages."""

    def __init__(
        self, store: Store, installer: Installer, listener: Listener, standing: str = ""
    ) -> None:
        """Use what is there; `listener` is told what becomes of what is asked for.

        Args:
            store: where they are.
            installer: what makes them.
            listener: see `Listener`.
            standing: where all workers find what the operator of this node has given it.
        """
        self._store, self._installer, self._listener = store, installer, listener
        self._standing = installed_in([standing]) if standing else {}
        self._wanted: dict[bytes, int | None] = {}  # by lease, the lock that is held for it
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: set[str] = set()
        self._making: dict[str, asyncio.Lock] = {}  # by key, while somebody waits for it
        self._room = asyncio.Semaphore(INSTALLING_MAX)

    def get(self, lease: bytes, packed: bytes, image: str = "") -> None:
        """Begin to have ready what a lease needs; keep it until `let_go`.

        `image`: the files of the image that it runs in.
        """
        self._wanted[lease] = None
        self._begin(self._serve(lease, packed, image))

    def get_files(self, lease: bytes, sent: CarriedFiles) -> None:
        """Begin to have ready what a caller sent as files; keep it until `let_go`."""
        self._wanted[lease + FILES] = None
        self._begin(self._serve_files(lease, sent))

    def let_go(self, lease: bytes) -> None:
        """Note that a lease needs nothing any more; what is being made for it is made all the same.

        Whoever gave up waiting will try again, most likely.
        """
        for wanted in (lease, lease + FILES):
            if (fd := self._wanted.pop(wanted, None)) is not None:
                os.close(fd)

    async def close(self) -> None:
        """End all that is being done."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lease in list(self._wanted):
            self.let_go(lease)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself does not keep it
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lease: bytes, packed: bytes, image: str) -> None:
        listener = self._listener
        try:
            packages = unpack(packed)
            place = await self._place_for(lease, packages, image)
            listener.packages_there(lease, place)
        except LackingError as error:
            lacks = list(dict.fromkeys(error.names))
            names = ", ".join(_shown(packages, name) for name in lacks)
            what = "packages" if len(lacks) > 1 else "package"
            why = f"it cannot have the {what} {names}: {error}"
            listener.packages_failed(lease, why, lacks[:LACKING_MAX])
        except (InstallError, OSError, ValueError) as error:
            text = str(error) or type(error).__name__
            listener.packages_failed(lease, f"it cannot install packages: {text}", ())
        except Exception as error:  # the lease must not wait for ever
            log.exception("packages of lease %s", lease.hex())
            what = f"{type(error).__name__}: {error}"
            listener.packages_failed(lease, f"it cannot install packages: {what}", ())

    async def _serve_files(self, lease: bytes, sent: CarriedFiles) -> None:
        place = ""
        try:
            key = await asyncio.to_thread(sent.key, self._store.root)
            if not await self._hold(lease + FILES, key):
                await self._make(key, lambda: self._put_down(key, sent))
            place = self._store.find(key)
        except (InstallError, OSError) as error:  # each lease has files of its own then
            log.warning("files of packages are not kept: %s", error)
        except Exception:
            log.exception("files of packages of lease %s", lease.hex())
        self._listener.files_there(lease, place)

    async def _place_for(self, lease: bytes, packages: Packages, image: str) -> str:
        """Return where a lease finds what is not there as it is; empty: all of it is."""
        if image:
            there = await asyncio.to_thread(installed_in_image, image)
            lacks = lacking_in_image(packages, there)
        else:
            there = {**await asyncio.to_thread(installed), **self._standing}
            lacks = lacking(packages, there)
        if not lacks:
            return ""
        key, store = key_of(lacks, packages.is_whole), self._store
        has_hashes = any(HASH_OPTION in one for one in packages.requirements)
        if packages.is_whole and not has_hashes and not store.find(key):  # others had none checked
            wanted = {name_of(one): exact_version(one) for one in packages.requirements}
            wanted = {name: wanted[name] for name in wanted if name not in LOADED}
            other = await asyncio.to_thread(store.having, wanted, there)
            if other and await self._hold(lease, other):
                return store.place(other)
        if not await self._hold(lease, key):
            await self._make(key, lambda: self._install(lease, key, lacks, packages))
        return store.find(key)

    async def _hold(self, lease: bytes, key: str) -> bool:
        """Keep an environment for a lease; return whether it is there."""
        fd = self._store.hold(key)  # in no thread: who is cancelled would leave it open
        is_there = bool(self._store.find(key))
        if is_there and self._store.is_open(key):
            self._finish(key)  # who made it was ended before it had
        if lease in self._wanted:
            if (before := self._wanted[lease]) is not None:
                os.close(before)
            self._wanted[lease] = fd
        else:  # it was let go of meanwhile
            os.close(fd)
        return is_there

    async def _make(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Make an environment, unless another lease has it made just now: then wait for that."""
        lock = self._making.setdefault(key, asyncio.Lock())
        try:
            async with lock, self._room:
                if self._store.find(key):
                    return
                try:
                    await work()
                except (InstallError, OSError) as error:
                    if not is_full(error) or not await self._make_room(0):
                        raise
                    await work()
        finally:
            if not lock.locked():
                self._making.pop(key, None)
        self._finish(key)

    def _finish(self, key: str) -> None:
        """Do what nobody needs to wait for, unless it is being done."""
        if key not in self._finishing:
            self._finishing.add(key)
            self._begin(self._close(key))

    async def _close(self, key: str) -> None:
        try:
            await self._make_room(None)
            await self._compile(key)
        finally:
            self._finishing.discard(key)

    async def _install(
        self, lease: bytes, key: str, lacks: Sequence[str], packages: Packages
    ) -> None:
        made = self._store.new()
        try:
            with throttled(lambda text: self._listener.packages_progress(lease, text)) as tell:
                await self._installer.install(
                    lacks, os.path.join(made, INSIDE), tell, is_whole=packages.is_whole
                )
            finish = functools.partial(self._store.finish, is_whole=packages.is_whole)
            await asyncio.to_thread(finish, made, key, lacks)
        finally:
            await asyncio.to_thread(remove, made)

    async def _put_down(self, key: str, sent: CarriedFiles) -> None:
        made = self._store.new()
        try:
            await sent.put_down(os.path.join(made, INSIDE))
            await asyncio.to_thread(self._store.finish, made, key, (), is_whole=False)
        finally:
            await asyncio.to_thread(remove, made)

    async def _make_room(self, bytes_max: int | None) -> bool:
        """Remove what is too much; return whether anything was."""
        gone = await asyncio.to_thread(self._store.prune, bytes_max)
        if gone:
            used = {name_of(one) for kept in self._store.all() for one in kept.requirements}
            names = {name_of(one) for kept in gone for one in kept.requirements}
            await self._installer.forget(sorted(names - used))
        if bytes_max == 0:  # what was fetched is fetched again, if need be
            return await self._installer.forget_all() or bool(gone)
        return bool(gone)

    async def _compile(self, key: str) -> None:
        with suppress(InstallError):
            fd = self._store.hold(key)
            try:
                await compile_all(self._store.place(key))
                await asyncio.to_thread(self._store.close, key)
            finally:
                os.close(fd)


@contextmanager
def throttled(tell: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Pass texts on, at most one each few seconds, the last one late."""
    loop = asyncio.get_running_loop()
    due_s, waiting, timer = 0.0, "", None

    def say() -> None:
        nonlocal due_s, timer
        due_s, timer = loop.time() + TOLD_S, None
        tell(waiting)

    def hear(text: str) -> None:
        nonlocal waiting, timer
        waiting = text
        if timer is None:
            timer = loop.call_later(max(0.0, due_s - loop.time()), say)

    try:
        yield hear
    finally:
        if timer is not None:
            timer.cancel()


def key_of(requirements: Sequence[str], is_whole: bool) -> str:
    """Return the name of an environment: another one for other packages or another Python."""
    python = (sys.implementation.cache_tag, sys.version_info[:2], sysconfig.get_platform())
    text = repr((sorted(requirements), is_whole, python))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def remove(directory: str) -> None:
    """Remove a directory of ours, also if nobody may write to it."""
    for folder, _, _ in os.walk(directory):
        with suppress(OSError):
            os.chmod(folder, 0o755)
    shutil.rmtree(directory, ignore_errors=True)


def is_full(error: Exception) -> bool:
    """Return whether something failed because a disk is full."""
    return any(text in str(error) for text in FULL)


def _shown(packages: Packages, name: str) -> str:
    """Return a package as it was asked for."""
    asked = [split_hashes(one)[0] for one in packages.requirements if name_of(one) == name]
    named = [one.replace("==", " ") for one in asked]
    return " and ".join(named) or name  # some are asked for twice, and differently


def _size_of(directory: str) -> int:
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, file)).st_size
    return total
