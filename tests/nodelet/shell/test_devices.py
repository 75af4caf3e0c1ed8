"""Each worker has its own devices, and gives them back when it is gone."""

import os

import pytest
from machine import leaves_of, machine, run

from burla.nodelet.shell.devices import Devices


def test_devices_go_to_one_worker_at_a_time() -> None:
    devices = Devices(["a", "b", "c"])
    devices.take(1, 2)
    assert devices.variables(1) == {"CUDA_VISIBLE_DEVICES": "a,b"}
    assert devices.variables(2) == {}
    assert devices.has(1)
    assert not devices.has(2)
    devices.give_back(2)
    devices.give_back(1)
    devices.take(2, 3)
    assert devices.variables(2) == {"CUDA_VISIBLE_DEVICES": "a,b,c"}


def test_devices_are_given_in_the_order_of_the_machine_whoever_is_gone_first() -> None:
    devices = Devices(["a", "b", "c", "d"])
    for worker in range(4):
        devices.take(worker, 1)
    for worker in (2, 3, 1, 0):  # a lease ends: its workers are reaped as the kernel tells them
        devices.give_back(worker)
    devices.take(5, 2)
    devices.take(6, 2)
    assert devices.variables(5) == {"CUDA_VISIBLE_DEVICES": "a,b"}
    assert devices.variables(6) == {"CUDA_VISIBLE_DEVICES": "c,d"}


def seen(x: int) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_each_worker_sees_its_own_and_the_next_one_those_of_a_dead_one() -> None:
    async def main() -> None:
        async with machine(1, devices=Devices(["a", "b", "c", "d"])) as m:
            ids = await m.lease(seen, 2, gpus=2, use_template=False)
            for at, worker in enumerate(ids):
                m.assign(worker, at, at + 1, leaves_of(range(3)))
            await m.until(lambda: len(m.settled) == 2)
            assert sorted(m.results().values()) == ["a,b", "c,d"]
            m.workers.kill(ids[0])
            m.add_workers(1)  # which waits for the devices of the other
            await m.until(lambda: len(m.ready) == 3)
            m.assign(m.ready[2], 2, 3, leaves_of(range(3)))
            await m.until(lambda: len(m.settled) == 3)
            assert m.results()[2] == m.results()[0]
            await m.workers.end_lease()
            (worker,) = await m.lease(seen, 1, gpus=4, use_template=False)
            m.assign(worker, 3, 4, leaves_of(range(4)))
            await m.until(lambda: len(m.settled) == 4)
            assert m.results()[3] == "a,b,c,d"

    run(main())
