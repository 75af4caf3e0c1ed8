"""A lease that needs packages begins when they are there, and says meanwhile what is done."""

from hashlib import sha256
from typing import Any

import pytest
from opening import JOB, LEASE, node_hello, start_lease

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import WorkersEnded
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m

PACKED, OTHER = b"packed", b"other"
NEXT, THIRD = b"M" * 16, b"N" * 16
PLACE = "/packages/key/site-packages"


@pytest.fixture
def core() -> Nodelet:
    """Return a node that is welcome."""
    core = Nodelet(node_hello())
    core.start(0)
    core.receive(m.Welcome(bytes(16), "0", ""), (), 0)
    core.settle(0)
    return core


def start(core: Nodelet, lease: bytes = LEASE, packed: bytes = PACKED, **more: Any) -> list[Any]:
    core.receive(start_lease(lease=lease, packages=packed, **more), [b""], 1)
    return settled(core)


def settled(core: Nodelet) -> list[Any]:
    kinds = (e.GetPackages, e.GetFiles, e.LetGoOfPackages, e.BeginLease)
    words = (m.Preparing, m.LeaseRefused)
    found = core.settle(1)
    core.check()
    said = [one.message for one in found if isinstance(one, e.Send)]
    return [
        *(one for one in found if isinstance(one, kinds)),
        *(one for one in said if isinstance(one, words)),
    ]


def begun(effects: list[Any]) -> list[str]:
    return [one.packages for one in effects if isinstance(one, e.BeginLease)]


def test_a_lease_waits_for_its_packages_and_says_so(core: Nodelet) -> None:
    assert start(core) == [e.GetPackages(LEASE, PACKED)]
    core.packages.progress(LEASE, "installing six")
    assert settled(core) == [m.Preparing(LEASE, "installing six")]
    core.packages.progress(LEASE, "installing six")
    assert settled(core) == []
    core.packages.there(LEASE, PLACE)
    effects = settled(core)
    assert begun(effects) == [PLACE]
    assert m.Preparing(LEASE, "") in effects


def test_a_lease_whose_packages_are_here_begins_without_a_word(core: Nodelet) -> None:
    start(core)
    core.packages.there(LEASE, "")
    assert begun(settled(core)) == [""]


def test_what_cannot_be_had_is_said_by_name_and_said_again(core: Nodelet) -> None:
    start(core)
    core.packages.failed(LEASE, "no six", ["six"])
    assert settled(core) == [m.LeaseRefused(LEASE, "no six", ("six",))]
    core.receive(m.Welcome(bytes(16), "0", ""), (), 2)
    assert m.LeaseRefused(LEASE, "no six", ("six",)) in settled(core)
    core.receive(m.EndLease(LEASE, True), (), 3)
    assert settled(core) == [e.LetGoOfPackages(LEASE)]


def test_a_lease_that_ends_meanwhile_needs_nothing_any_more(core: Nodelet) -> None:
    start(core)
    core.receive(m.EndLease(LEASE, True), (), 2)
    assert settled(core) == [e.LetGoOfPackages(LEASE)]
    core.packages.there(LEASE, PLACE)
    core.packages.progress(LEASE, "late")
    core.packages.failed(LEASE, "late", ())
    assert settled(core) == []


def test_the_next_lease_with_the_same_packages_waits_for_nothing(core: Nodelet) -> None:
    start(core)
    core.packages.there(LEASE, PLACE)
    settled(core)
    core.receive(m.Linger(LEASE), (), 2)
    effects = start(core, NEXT, keep=LEASE)
    assert begun(effects) == [PLACE]
    assert e.GetPackages(NEXT, PACKED) in effects  # they are kept for it as well
    assert e.LetGoOfPackages(LEASE) in effects


def test_a_lease_with_other_packages_waits_for_them(core: Nodelet) -> None:
    start(core)
    core.packages.there(LEASE, PLACE)
    settled(core)
    core.receive(m.Linger(LEASE), (), 2)
    assert begun(start(core, NEXT, OTHER, keep=LEASE)) == []


def blobs(*names: str) -> tuple[m.Blob, ...]:
    """Return blobs of one byte."""
    of_names = [(sha256(name[-1:].encode()).digest(), name) for name in names]
    return tuple(m.Blob(digest, 1, m.BlobKind.NAMED, name) for digest, name in of_names)


def bring(core: Nodelet, needed: tuple[m.Blob, ...], lease: bytes = LEASE) -> list[Any]:
    for blob in needed:
        core.receive(m.BlobPiece(lease, blob.digest, 0), [blob.name[-1:].encode()], 2)
    return settled(core)


def test_packages_that_come_as_files_are_asked_for_when_these_are_here(core: Nodelet) -> None:
    needed = blobs("own", "packages", "packages/0")
    assert start(core, packed=b"", blobs=needed, owner=b"me") == []
    assert bring(core, needed[:2]) == []
    (asked,) = bring(core, needed[2:])
    assert asked == e.GetFiles(LEASE, b"me", ((2, 1), (3, 1)))
    core.packages.files_there(LEASE, PLACE)
    (begun,) = settled(core)
    assert (begun.files, begun.packages) == (PLACE, "")


def test_the_next_lease_with_the_same_files_waits_for_nothing(core: Nodelet) -> None:
    needed = blobs("packages", "packages/0")
    start(core, packed=b"", blobs=needed, owner=b"me")
    bring(core, needed)
    core.packages.files_there(LEASE, PLACE)
    settled(core)
    core.receive(m.Linger(LEASE), (), 3)
    effects = start(core, NEXT, b"", blobs=needed, owner=b"me", keep=LEASE)
    assert [one.files for one in effects if isinstance(one, e.BeginLease)] == [PLACE]
    kept = e.GetFiles(NEXT, b"me", ((1, 1), (2, 1)))
    assert effects.index(kept) < effects.index(e.LetGoOfPackages(LEASE))


@pytest.mark.parametrize(("owner", "name"), [(b"other", "0"), (b"me", "1")])
def test_files_of_another_owner_or_others_are_others(
    core: Nodelet, owner: bytes, name: str
) -> None:
    needed = blobs("packages/0")
    start(core, packed=b"", blobs=needed, owner=b"me")
    bring(core, needed)
    core.packages.files_there(LEASE, PLACE)
    settled(core)
    core.receive(m.EndLease(LEASE, False), (), 3)
    core.take(WorkersEnded(), 3)
    others = blobs(f"packages/{name}")
    assert start(core, NEXT, b"", blobs=others, owner=owner) == [e.LetGoOfPackages(LEASE)]
    assert bring(core, others, NEXT) == [e.GetFiles(NEXT, owner, ((2, 1),))]


def test_a_lease_waits_for_packages_of_both_kinds(core: Nodelet) -> None:
    needed = blobs("packages/0")
    start(core, blobs=needed, owner=b"me")
    bring(core, needed)
    core.packages.files_there(LEASE, "")
    assert settled(core) == []
    core.packages.there(LEASE, PLACE)
    (begun,) = settled(core)
    assert (begun.files, begun.packages) == ("", PLACE)


def test_its_state_is_told_without_secrets(core: Nodelet) -> None:
    start(core)
    core.packages.progress(LEASE, "installing six")
    said = core.snapshot()["packages"]
    assert said == {LEASE.hex(): {"place": None, "doing": "installing six", "refused": None}}
    assert JOB
