"""A lease that runs in an image begins when its files are there, and a sandbox with them."""

from typing import Any

import pytest
from opening import JOB, LEASE, node_hello, start_lease

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import WorkersEnded
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m

IMAGE, PLACE = "python:3.11-slim", "/images/key/root"
PACKED = b"packed"
NEXT = b"M" * 16
KINDS = (e.GetImage, e.EnterImage, e.LetGoOfImage, e.GetPackages, e.LetGoOfPackages, e.BeginLease)


@pytest.fixture
def core() -> Nodelet:
    """Return a node that is welcome."""
    core = Nodelet(node_hello())
    core.start(0)
    core.receive(m.Welcome(bytes(16), "0", ""), (), 0)
    core.settle(0)
    return core


def start(core: Nodelet, lease: bytes = LEASE, image: str = IMAGE, **more: Any) -> list[Any]:
    core.receive(start_lease(lease=lease, image=image, **more), [b""], 1)
    return settled(core)


def settled(core: Nodelet) -> list[Any]:
    found = core.settle(1)
    core.check()
    said = [one.message for one in found if isinstance(one, e.Send)]
    words = [one for one in said if isinstance(one, m.Preparing | m.LeaseRefused)]
    return [*(one for one in found if isinstance(one, KINDS)), *words]


def begun(effects: list[Any]) -> list[tuple[bytes, bool]]:
    return [(e_.start.lease, e_.enters) for e_ in effects if isinstance(e_, e.BeginLease)]


def serve(core: Nodelet) -> list[Any]:
    start(core)
    core.image_there(LEASE, PLACE)
    settled(core)
    core.images.entered(LEASE)
    return settled(core)


def test_its_files_come_first_then_a_sandbox_and_then_it_begins(core: Nodelet) -> None:
    assert start(core) == [e.GetImage(LEASE, IMAGE)]
    core.images.progress(LEASE, "pulling it")
    assert settled(core) == [m.Preparing(LEASE, "pulling it")]
    core.images.progress(LEASE, "pulling it")
    assert settled(core) == []
    core.image_there(LEASE, PLACE)
    assert settled(core) == [e.EnterImage(LEASE, PLACE), m.Preparing(LEASE, "")]
    assert settled(core) == []
    core.images.entered(LEASE)
    assert begun(settled(core)) == [(LEASE, True)]


def test_packages_are_asked_for_when_it_is_known_what_the_image_has(core: Nodelet) -> None:
    assert start(core, packages=PACKED) == [e.GetImage(LEASE, IMAGE)]
    core.image_there(LEASE, PLACE)
    assert settled(core) == [e.GetPackages(LEASE, PACKED, PLACE)]
    core.packages.there(LEASE, "/packages/key")
    assert settled(core) == [e.EnterImage(LEASE, PLACE)]


def test_no_sandbox_is_made_while_another_lease_is_served(core: Nodelet) -> None:
    core.receive(start_lease(), [b""], 1)
    assert begun(settled(core)) == [(LEASE, False)]
    start(core, NEXT)
    core.image_there(NEXT, PLACE)
    assert settled(core) == []
    core.receive(m.EndLease(LEASE, True), (), 1)
    settled(core)
    core.take(WorkersEnded(), 1)
    assert e.EnterImage(NEXT, PLACE) in settled(core)


def test_what_cannot_be_had_is_said_and_said_again(core: Nodelet) -> None:
    start(core)
    core.images.failed(LEASE, "no such host")
    assert settled(core) == [m.LeaseRefused(LEASE, "no such host")]
    core.receive(m.Welcome(bytes(16), "0", ""), (), 2)
    assert m.LeaseRefused(LEASE, "no such host") in settled(core)
    core.receive(m.EndLease(LEASE, True), (), 3)
    assert settled(core) == [e.LetGoOfImage(LEASE)]


def test_an_image_that_cannot_be_run_is_refused_and_not_tried_again(core: Nodelet) -> None:
    start(core)
    core.image_there(LEASE, PLACE)
    settled(core)
    core.images.failed(LEASE, "it has no Python")
    assert settled(core) == [m.LeaseRefused(LEASE, "it has no Python")]
    assert settled(core) == []


def test_a_lease_that_ends_meanwhile_needs_nothing_any_more(core: Nodelet) -> None:
    start(core)
    core.receive(m.EndLease(LEASE, True), (), 2)
    assert settled(core) == [e.LetGoOfImage(LEASE)]
    core.image_there(LEASE, PLACE)
    core.images.progress(LEASE, "late")
    core.images.entered(LEASE)
    core.images.failed(LEASE, "late")
    assert settled(core) == []


def test_the_next_lease_like_it_goes_on_with_its_workers(core: Nodelet) -> None:
    serve(core)
    core.receive(m.Linger(LEASE), (), 2)
    effects = start(core, NEXT, keep=LEASE)
    assert e.GetImage(NEXT, IMAGE, PLACE) in effects  # it is kept for this one as well
    assert begun(effects) == [(NEXT, False)]
    assert e.LetGoOfImage(LEASE) in effects


def test_the_next_lease_that_is_not_like_it_gets_a_sandbox_of_its_own(core: Nodelet) -> None:
    serve(core)
    assert start(core, NEXT) == [e.GetImage(NEXT, IMAGE, PLACE)]
    core.receive(m.EndLease(LEASE, True), (), 1)
    settled(core)
    core.take(WorkersEnded(), 1)
    assert e.EnterImage(NEXT, PLACE) in settled(core)


def test_a_state_dump_says_how_far_it_is(core: Nodelet) -> None:
    start(core)
    core.images.progress(LEASE, "pulling it")
    told: Any = core.snapshot()["images"]
    assert told[LEASE.hex()]["doing"] == "pulling it"
    assert JOB.hex() not in told
