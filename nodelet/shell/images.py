"""Files of container images on this node: unpacked when a lease needs one, kept for the next.

They are kept as environments of packages are (environments.py): each in a folder that is named by
the image's id, made beside its place and renamed when it is complete, locked while a lease uses it;
the one used longest ago goes first. Only the nodelet's user gets into the folder of all of them.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from burla.nodelet.isolation.images import FACTS, FILES
from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.worker import fresh

from .environments import Store, is_full, remove
from .runtimes import ImageFacts, Runtime, RuntimeFailedError, run
from .worker_pool import WorkerPool

KEY_CHARACTERS = 32  # of an image's id
UNPACK_S = 1800.0  # the most that unpacking one image may take

log = logging.getLogger(__name__)

Making = Coroutine[Any, Any, WorkerPool]


class Listener(Protocol):
    """Whoever hears what becomes of what was asked for."""

    def image_progress(self, lease: bytes, text: str) -> None:
        """Take what is being done."""

    def image_there(self, lease: bytes, place: str) -> None:
        """Take where its files are."""

    def image_entered(self, lease: bytes) -> None:
        """Take note that a sandbox waits for it: `Images.take` gives it."""

    def image_failed(self, lease: bytes, why: str) -> None:
        """Take why it cannot be."""


class Images:
    """What leases of this node need of images."""

    def __init__(
        self, root: str, runtime: Runtime, confinement: Confinement, listener: Listener
    ) -> None:
        """Keep files below `root`, which is made.

        Raises:
            OSError: it cannot be.
        """
        os.makedirs(root, 0o700, exist_ok=True)
        os.chmod(root, 0o700)  # whose programs run in an image see this one and no other
        self._store = Store(root, inside=FILES)
        self._runtime, self._confinement, self._listener = runtime, confinement, listener
        self._names: dict[bytes, str] = {}  # by lease, what its image is called
        self._held: dict[bytes, int] = {}  # by lease, the lock on its files
        self._waiting: dict[bytes, WorkerPool] = {}  # by lease, the sandbox that was made for it
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()  # the runtime would wait for itself as well

    def clear_away(self) -> None:
        """Begin to remove what a nodelet has left that was killed while it unpacked an image.

        The runtime is asked only then: one that nobody uses here would make directories of its own.
        """
        if self._store.has_left():
            self._begin(self._clear_away())

    async def _clear_away(self) -> None:
        async with self._one_at_a_time:
            await self._runtime.remove_left()
            await asyncio.to_thread(self._store.remove_left)

    def get(self, lease: bytes, image: str, place: str) -> None:
        """Begin to have files ready, or only keep those at `place`, until `let_go`."""
        self._names[lease] = image
        if place:
            self._held[lease] = self._store.hold(os.path.basename(os.path.dirname(place)))
        else:
            self._begin(self._serve(lease, image))

    def enter(self, lease: bytes, place: str, make: Callable[[str], Making]) -> None:
        """Begin to make a sandbox with these files."""
        self._begin(self._enter(lease, os.path.dirname(place), make))

    def take(self, lease: bytes) -> WorkerPool:
        """Return the sandbox that waits for a lease."""
        return self._waiting.pop(lease)

    def let_go(self, lease: bytes) -> None:
        """Note that a lease needs nothing any more; what is being unpacked is so all the same."""
        self._names.pop(lease, None)
        if (fd := self._held.pop(lease, None)) is not None:
            os.close(fd)
        if (workers := self._waiting.pop(lease, None)) is not None:
            self._begin(workers.close())

    async def close(self) -> None:
        """End all that is being done."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lease in list(self._names):
            self.let_go(lease)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself does not keep it
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lease: bytes, image: str) -> None:
        listener = self._listener
        try:
            async with self._one_at_a_time:
                place = await self._place_for(lease, image)
            listener.image_there(lease, place)
        except (RuntimeFailedError, OSError, ValueError) as error:
            listener.image_failed(lease, f"it cannot have the image {image}: {error}")
        except Exception as error:  # the lease must not wait for ever
            log.exception("image %s", image)
            what = f"{type(error).__name__}: {error}"
            listener.image_failed(lease, f"it cannot have the image {image}: {what}")

    async def _enter(self, lease: bytes, folder: str, make: Callable[[str], Making]) -> None:
        image = self._names.get(lease, "")
        try:
            workers = await make(folder)
        except RuntimeError as error:
            self._listener.image_failed(lease, f"it cannot run the image {image}: {error}")
            return
        if lease in self._names:
            self._waiting[lease] = workers
            self._listener.image_entered(lease)
        else:  # it was let go of meanwhile
            await workers.close()

    async def _place_for(self, lease: bytes, image: str) -> str:
        """Return where the files of an image are, which a lease then holds."""

        def tell(text: str) -> None:
            self._listener.image_progress(lease, text)

        facts, was_fetched = await self._runtime.fetch(image, tell)
        key = facts.id[:KEY_CHARACTERS]
        self._hold(lease, key)
        if place := self._store.find(key):
            return place
        tell(f"unpacking {image}")
        forgotten = (image,) if was_fetched else ()
        try:
            await self._unpack(facts, key, forgotten)
        except (RuntimeFailedError, OSError) as error:
            if not is_full(error) or not await self._make_room(0):
                raise
            await self._unpack(facts, key, forgotten)
        await self._make_room(None)
        return self._store.find(key)

    def _hold(self, lease: bytes, key: str) -> None:
        """Keep files for a lease, there or to be."""
        fd = self._store.hold(key)
        if lease in self._names:
            self._held[lease] = fd
        else:  # it was let go of meanwhile
            os.close(fd)

    async def _unpack(self, facts: ImageFacts, key: str, names: tuple[str, ...]) -> None:
        """Put the files of an image into their place; `names`: what the runtime has for us."""
        made = self._store.new()
        try:
            files = os.path.join(made, FILES)
            _begin_files(made, facts)
            most = str(self._store.bytes_max(0))
            line = fresh.command("unpacking", files, most, self._confinement)
            async with self._runtime.exported(facts.id) as archive:
                await run(line, "unpacking", UNPACK_S, archive)
            await asyncio.to_thread(self._store.finish, made, key, names, is_whole=False)
        finally:
            await asyncio.to_thread(remove, made)

    async def _make_room(self, bytes_max: int | None) -> bool:
        """Remove what is too much; return whether anything was."""
        gone = await asyncio.to_thread(self._store.prune, bytes_max)
        for name in {name for kept in gone for name in kept.requirements}:
            await self._runtime.forget(name)
        return bool(gone)


def _begin_files(made: str, facts: ImageFacts) -> None:
    files = os.path.join(made, FILES)
    os.mkdir(files, 0o755)
    os.chmod(files, 0o755)  # whatever our umask is
    with open(os.path.join(made, FACTS), "w") as file:
        json.dump({"variables": facts.variables}, file)
