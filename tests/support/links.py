"""Connections that a test can disturb: all that goes to a port goes through here."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

UP, DOWN = "up", "down"  # to the scheduler, and from it
READ_BYTES = 64 << 10
LOOK_S = 0.01


class Link:
    """A port of this machine that leads to another one, over whatever sort of line.

    It can be cut, held (nothing passes, in one direction or both, and nobody is told), slow and
    late. A thread of its own carries it.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        """Listen on a free port, for what is to go to port `target` of `host`."""
        self.port = 0
        self.refused = 0  # connections for which nobody was there
        self._target = (host, target)
        self._held: set[str] = set()
        self._delay_s = 0.0
        self._bytes_per_s: float | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._listen())

    def close(self) -> None:
        """End all connections, and listen no more."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset all connections; new ones are let through."""
        self._do(self._cut())

    def hold(self, *directions: str) -> None:
        """Let nothing pass."""
        self._held = set(directions)

    def slow(self, bytes_per_s: float, delay_s: float = 0.0) -> None:
        """Let so much pass, so late."""
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s

    def heal(self) -> None:
        """Be a good line again."""
        self._held, self._delay_s, self._bytes_per_s = set(), 0.0, None

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            self._writers.add(far_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer, UP)),
                asyncio.create_task(self._pump(far_reader, writer, DOWN)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # nobody listens there now
            self.refused += 1
        except asyncio.CancelledError:  # all ends; asyncio's own callback would print a traceback
            pass
        finally:
            for one in writers:
                self._writers.discard(one)
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if self._bytes_per_s:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                while direction in self._held:  # noqa: ASYNC110 - another thread says when
                    await asyncio.sleep(LOOK_S)
                writer.write(data)
                await writer.drain()
