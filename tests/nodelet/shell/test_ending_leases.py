"""Real workers whose lease does not end by itself: how long that is waited for, what is kept."""

import asyncio
import os
import select
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from machine import Machine, gone, leaves_of, machine, poll, run
from waiting import LATE_S, wait_gone

pytestmark = pytest.mark.slow

# It takes long to import, and each process that forks has a child from then on that nobody reaps.
HEAVY = """
import os, time
time.sleep(0.15)

def start():
    os.posix_spawn("/bin/sleep", ["sleep", "100"], {})

os.register_at_fork(after_in_parent=start)
"""


def of_preloader(m: Machine) -> list[int]:
    """Return the pid of the process that forks workers without a function; empty: none serves."""
    number = m.workers.preloading.source()
    return [] if number is None else [m.workers._handles[number].pid]


def test_what_was_imported_ahead_is_given_up_if_it_keeps_a_lease_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "heavy_to_end.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(installed)

    def importing(number: int) -> Any:
        def call(x: int) -> int:
            import heavy_to_end  # type: ignore[import-not-found]  # it is made above

            return bool(heavy_to_end) + number

        return call

    async def serve(m: Machine, number: int) -> None:
        (worker,) = await m.lease(importing(number), 1)
        m.outcomes.clear()
        m.assign(worker, 0, 1, leaves_of([0]))
        await m.until(lambda: bool(m.outcomes))
        assert m.results() == {0: number + 1}

    async def main() -> None:
        async with machine(1) as m:
            for number in range(2):
                await serve(m, number)
                assert await m.workers.end_lease()
            await poll(lambda: bool(of_preloader(m)))
            (pid,) = of_preloader(m)
            await serve(m, 2)  # forked from there
            async with asyncio.timeout(LATE_S):
                assert await m.workers.end_lease()
            await poll(lambda: not of_preloader(m))
            await gone(pid)
            await serve(m, 3)
            assert not m.deaths

    run(main())


def test_a_place_that_is_closed_while_a_lease_ends_tells_what_was_written_there() -> None:
    """Whoever ends the processes there does not answer: it is killed, with all that is below."""

    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(lambda x: x + 1, 1)
            zygote = m.workers._zygote._process.pid
            workers = psutil.Process(zygote).children()
            m.workers.pause_reading()
            m.assign(worker, 0, 1, leaves_of([0]))
            sock = m.workers._handles[worker].sock
            await poll(lambda: bool(select.select([sock], [], [], 0)[0]))
            os.kill(zygote, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await m.workers.end_lease()
            assert not m.outcomes
            async with asyncio.timeout(LATE_S):
                await m.workers.close(at_once=True)
            assert m.results() == {0: 1}
            assert not m.deaths
            wait_gone(workers)

    run(main())
