"""The trial of how far this machine can isolate leases: what tries is the supervisor to be.

So a node starts one Python less, and the agent loads what it needs meanwhile.
"""

import asyncio
from contextlib import suppress

from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.isolation.tier import Tier
from burla.nodelet.worker import control as c
from burla.nodelet.worker.folders import remove
from burla.nodelet.worker.processes import kill_tree

from .launching import Launched, launch_supervisor, make_scratch

TRIAL_S = 30.0  # a machine under heavy load still imports Python within this
END_S = 10.0  # for it to end, when nobody wants it
POLL_S = 0.002  # between two looks whether it has


class Trial:
    """The process that tries, in a scratch directory of its own."""

    def __init__(self, base: str, hash_seed: int, confinement: Confinement) -> None:
        """Begin.

        Args:
            base: where the scratch directory is made.
            hash_seed: of the workers that come from it.
            confinement: of the sandboxes that are tried.

        Raises:
            OSError: there is no room for a directory, or no process.
        """
        self.scratch = make_scratch(base)
        try:
            self._launched = launch_supervisor(
                hash_seed, self.scratch, str(confinement), tries=True
            )
        except BaseException:
            remove(self.scratch)
            raise

    async def outcome(self) -> tuple[Tier, str]:
        """Return the best tier that works, and why it is no better one.

        Raises:
            RuntimeError: it has not said so, which tells nothing of this machine.
        """
        said = b""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(TRIAL_S):
                loop = asyncio.get_running_loop()
                said = await loop.sock_recv(self._launched.control, c.BYTES_MAX)
        if not said:
            await self._end()
            status = self._launched.process.returncode
            raise RuntimeError(f"what makes sandboxes did not start (exit status {status})")
        word = c.decode(said)
        assert isinstance(word, c.Tried), word
        return Tier(word.tier), word.why

    async def go_on(self, tier: Tier, confinement: Confinement) -> Launched | None:
        """Return the supervisor of sandboxes that are like this; None: that tier has none."""
        if not tier.is_sandboxed():
            await self._end()
            return None
        with suppress(OSError):  # it has died, as who waits for its next word sees
            self._launched.control.send(c.encode(c.Confine(str(confinement))))
        return self._launched

    async def close(self) -> None:
        """See that it is gone, and its directory: whoever has served with it has done so."""
        await self._end()
        remove(self.scratch)

    async def _end(self) -> None:
        self._launched.control.close()
        process, loop = self._launched.process, asyncio.get_running_loop()
        until_s = loop.time() + END_S
        while process.poll() is None:
            if loop.time() > until_s:
                kill_tree(process.pid)
            await asyncio.sleep(POLL_S)
