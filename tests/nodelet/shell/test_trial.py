"""The trial of what this machine allows, for real: a process each."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from burla.nodelet.isolation import probe
from burla.nodelet.isolation.tier import Tier
from burla.nodelet.shell import launching
from burla.nodelet.shell.launching import Launch, Process
from burla.nodelet.shell.trial import Trial
from burla.nodelet.worker import control as c

WANTED = probe.confinement(1 << 30, 1, "ipc:///none", None)


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_what_tries_finds_what_another_process_finds_and_serves(tmp_path: Path) -> None:
    async def conversation() -> None:
        trial = Trial(str(tmp_path), 1, WANTED)
        try:
            tier, why = await trial.outcome()
            assert (tier, why) == probe.best(WANTED)
            launched = await trial.go_on(tier, probe.fitted(WANTED, tier))
            assert (launched is not None) == tier.is_sandboxed()
            if launched is not None:
                word = await asyncio.get_running_loop().sock_recv(launched.control, c.BYTES_MAX)
                assert c.decode(word) == c.Ready()
        finally:
            await trial.close()

    asyncio.run(conversation())
    assert not list(tmp_path.iterdir())


def test_a_tier_without_sandboxes_needs_no_supervisor(tmp_path: Path) -> None:
    async def conversation() -> None:
        trial = Trial(str(tmp_path), 1, WANTED)
        await trial.outcome()
        pid = trial._launched.process.pid
        assert await trial.go_on(Tier.LANDLOCK, WANTED) is None
        assert not is_there(pid)
        assert os.listdir(tmp_path), "the zygote of that tier has the directory"
        await trial.close()

    asyncio.run(conversation())
    assert not list(tmp_path.iterdir())


def test_what_dies_while_it_tries_leaves_no_node_without_isolation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch_other(module: str, hash_seed: int, *words: str) -> Launch:
        def start(inherited: Sequence[int]) -> Process:
            return launch("no_such_module", hash_seed, *words)(inherited)

        return start

    launch = launching.launch_module
    monkeypatch.setattr(launching, "launch_module", launch_other)

    async def conversation() -> None:
        trial = Trial(str(tmp_path), 1, WANTED)
        with pytest.raises(RuntimeError, match=r"did not start \(exit status 1\)"):
            await trial.outcome()
        await trial.close()

    asyncio.run(conversation())
    assert not list(tmp_path.iterdir())
