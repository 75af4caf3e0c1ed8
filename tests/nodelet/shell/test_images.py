"""Files of images: fetched by a runtime, unpacked once, kept while leases use them, bounded."""

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from container_images import write_archive
from container_runtime import make_runtime
from loops import in_loop

from burla.nodelet.isolation.images import FACTS, FILES
from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.shell.images import Images
from burla.nodelet.shell.left_over import own_name
from burla.nodelet.shell.runtimes import (
    Runtime,
    RuntimeFailedError,
    _what_podman_lacks,
    find_runtime,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")
A, B = b"A" * 16, b"B" * 16
ONE, TWO, BROKEN = "localhost/one:1", "localhost/two:latest", "localhost/broken:1"
CONFINEMENT = Confinement(True, 1 << 30, 1, (), ())


class Heard:
    """What was told of leases."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.places: dict[bytes, str] = {}
        self.failures: dict[bytes, str] = {}

    def image_progress(self, lease: bytes, text: str) -> None:
        self.said.append(text)

    def image_there(self, lease: bytes, place: str) -> None:
        self.places[lease] = place

    def image_entered(self, lease: bytes) -> None:
        raise AssertionError("no sandbox is made")

    def image_failed(self, lease: bytes, why: str) -> None:
        self.failures[lease] = why


class World:
    """A node's images, and a runtime that has some."""

    def __init__(self, directory: Path) -> None:
        write_archive(directory / "one.tar", {}, {"etc/hello": "one"})
        write_archive(directory / "two.tar", {}, {"etc/hello": "two"})
        (directory / "broken.tar").write_bytes(b"x" * tarfile.BLOCKSIZE)
        archives = {ONE: "one.tar", TWO: "two.tar", BROKEN: "broken.tar"}
        images = {name: (directory / tar, ["FLAVOUR=x"]) for name, tar in archives.items()}
        self.runtime = make_runtime(directory / "runtime", images)
        self.root = directory / "kept"
        self.heard = Heard()
        runtime = Runtime(str(self.runtime / "podman"))
        self.images = Images(str(self.root), runtime, CONFINEMENT, self.heard)

    async def get(self, lease: bytes, image: str) -> str:
        """Return where it is; empty: it cannot be had."""
        self.images.get(lease, image, "")
        for task in list(self.images._tasks):
            await task
        return self.heard.places.get(lease, "")

    def there(self, *places: str) -> Sequence[bool]:
        return [os.path.exists(place) for place in places]

    def asked(self) -> Sequence[str]:
        """Return what the runtime was asked, and forget it."""
        log = self.runtime / "asked"
        words = [line.split()[0] for line in log.read_text().splitlines()]
        log.unlink()
        return words


@in_loop
async def test_an_image_is_unpacked_once_and_only_the_nodelets_user_gets_there(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    place = Path(await world.get(A, ONE))
    assert (place / "etc/hello").read_text() == "one"
    assert world.heard.said == [f"unpacking {ONE}"]
    assert world.asked() == ["image", "ps", "create", "export", "rm"]
    assert (place.parent / FACTS).read_text() == '{"variables": {"FLAVOUR": "x"}}'
    assert place.name == FILES
    assert world.root.stat().st_mode & 0o777 == 0o700
    assert Path(await world.get(B, ONE)) == place
    assert world.asked() == ["image"]
    await world.images.close()


@in_loop
async def test_what_cannot_be_had_is_said_in_the_words_of_the_runtime(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert await world.get(A, "python:3.11") == ""
    assert world.heard.said == ["pulling python:3.11"]
    why = world.heard.failures[A]
    assert why.startswith("it cannot have the image python:3.11: Trying to pull docker.io/library/")
    assert why.endswith("Error: no such host")
    assert await world.get(B, "localhost/none:1") == ""
    assert "it is not on this node" in world.heard.failures[B]
    await world.images.close()


@in_loop
async def test_what_is_no_archive_fails_and_leaves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert await world.get(A, BROKEN) == ""
    assert "it cannot have the image localhost/broken:1: ReadError" in world.heard.failures[A]
    await world.images.close()
    assert [name for name in os.listdir(world.root) if not name.endswith(".lock")] == []


@in_loop
async def test_the_one_used_longest_ago_goes_unless_a_lease_has_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = await world.get(A, ONE), await world.get(B, TWO)
    await world.images._make_room(0)
    assert world.there(one, two) == [True, True]
    world.images.let_go(A)
    await world.images._make_room(0)
    assert world.there(one, two) == [False, True]
    await world.images.close()


@in_loop
async def test_files_that_are_known_are_only_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    place = await world.get(A, ONE)
    world.images.get(B, ONE, place)
    world.images.let_go(A)
    await world.images._make_room(0)
    assert world.there(place) == [True]
    await world.images.close()
    await world.images._make_room(0)
    assert world.there(place) == [False]


@in_loop
async def test_what_a_nodelet_has_left_that_was_killed_amid_an_image_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.images.clear_away()
    assert not world.images._tasks, "nothing is left, and the runtime is not asked"
    script = "import os; from burla.nodelet.shell.environments import Store; "
    script += "from burla.nodelet.shell.left_over import own_name; "
    script += f"print(os.path.basename(Store({str(world.root)!r}).new()), own_name('burla-'))"
    line = [sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, check=True)
    unpacked, container = done.stdout.decode().split()
    mine = own_name("burla-")
    for name in (container, mine):
        (world.runtime / name).touch()
    world.images.clear_away()
    for task in list(world.images._tasks):
        await task
    assert not (world.root / unpacked).exists()
    assert not (world.runtime / container).exists()
    assert (world.runtime / mine).exists()


def test_a_runtime_is_found_if_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_runtime() == ("", "neither podman nor docker is installed")
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2; exit 1\n")
    docker.chmod(0o755)
    assert find_runtime() == ("", "docker: Cannot connect to the Docker daemon")
    made = make_runtime(tmp_path / "made", {})
    monkeypatch.setenv("PATH", f"{made}:{tmp_path}")
    assert find_runtime() == (str(made / "podman"), "")


def test_users_other_than_root_need_ids_of_their_own_for_podman(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, switch = tmp_path / "subuid", tmp_path / "nsswitch.conf"
    table.write_text("somebody:1:2\n")
    switch.write_text("passwd: files\n")
    assert _what_podman_lacks(str(table), str(switch)) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # as all systems have
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "newuidmap is not installed" in _what_podman_lacks(str(table), str(switch))
    (tmp_path / "newuidmap").touch(0o755)
    assert "has no line for user 1," in _what_podman_lacks(str(table), str(switch))
    table.write_text("somebody:1:2\n1:100000:65536\n")
    assert _what_podman_lacks(str(table), str(switch)) == ""
    table.write_text("")
    switch.write_text("subid: sss\n")
    assert _what_podman_lacks(str(table), str(switch)) == ""


@in_loop
async def test_a_runtime_that_is_gone_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailedError, match="/podman cannot be run: No such file"):
        await Runtime(str(tmp_path / "podman"))._ask("info")
