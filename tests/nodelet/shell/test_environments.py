"""Environments are complete or not there, shared by who needs the same, and bounded."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from loops import in_loop
from packages import install

from burla.nodelet.shell import environments as env
from burla.nodelet.shell.blob_memory import BlobFile
from burla.nodelet.shell.carried_files import NAME_BYTES, SENT, CarriedFiles
from burla.nodelet.shell.installed import installed
from burla.nodelet.shell.installing import FULL, Installer, InstallError, LackingError
from burla.nodelet.shell.left_over import here
from burla.protocol import package_messages as pm
from burla.shipping.carried_packages import attach_packages
from burla.shipping.distributions import Installed
from burla.values import own_modules, packages

A, B, C = b"A" * 16, b"B" * 16, b"C" * 16


class Heard:
    """What was told of leases."""

    def __init__(self) -> None:
        self.said: list[tuple[bytes, str]] = []
        self.places: dict[bytes, str] = {}
        self.files: dict[bytes, str] = {}
        self.failures: dict[bytes, tuple[str, Sequence[str]]] = {}
        self.news = asyncio.Event()

    def packages_progress(self, lease: bytes, text: str) -> None:
        self.said.append((lease, text))
        self.news.set()

    def packages_there(self, lease: bytes, place: str) -> None:
        self.places[lease] = place
        self.news.set()

    def files_there(self, lease: bytes, place: str) -> None:
        self.files[lease] = place
        self.news.set()

    def packages_failed(self, lease: bytes, why: str, lacking: Sequence[str]) -> None:
        self.failures[lease] = why, lacking
        self.news.set()

    async def wait(self, is_there: Callable[[], object]) -> None:
        while not is_there():
            self.news.clear()
            await self.news.wait()


class Scripted(Installer):
    """Installs what it is told to, or raises it."""

    def __init__(self, *answers: Exception | None) -> None:
        super().__init__("/nowhere")
        self.answers = list(answers)
        self.installed: list[list[str]] = []
        self.forgotten: list[str] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def install(
        self,
        requirements: Sequence[str],
        target: str,
        tell: Callable[[str], None],
        *,
        is_whole: bool,
    ) -> None:
        tell("installing " + ", ".join(requirements))
        self.installed.append(list(requirements))
        await asyncio.to_thread(os.makedirs, target)
        await asyncio.to_thread(Path(target, "part.py").write_text, "x = 1\n")
        await self.may_end.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    has_cache = False

    async def forget_all(self) -> bool:
        return self.has_cache

    async def forget(self, names: Sequence[str]) -> None:
        self.forgotten += names


Made = tuple[env.Environments, Scripted, Heard, env.Store]


def make(root: Path, *answers: Exception | None, bytes_max: int | None = None) -> Made:
    store, installer, heard = env.Store(str(root), bytes_max), Scripted(*answers), Heard()
    return env.Environments(store, installer, heard), installer, heard, store


def packed(*requirements: str) -> bytes:
    return pm.pack(pm.Packages(requirements))


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile nothing: that takes a Python."""

    async def nothing(directory: str) -> None:
        pass

    monkeypatch.setattr(env, "compile_all", nothing)


def entries(root: Path) -> list[str]:
    return [name for name in os.listdir(root) if not name.endswith(".lock")]


@in_loop
async def test_what_this_python_has_is_not_installed(tmp_path: Path) -> None:
    made, installer, heard, _ = make(tmp_path)
    here = installed()["msgspec"]
    made.get(A, packed(f"msgspec=={here}", "cloudpickle==0.0.1"))  # the latter is the node's own
    await heard.wait(lambda: heard.places)
    await made.close()
    assert (heard.places, installer.installed) == ({A: ""}, [])


@in_loop
async def test_another_version_is_installed_once_for_all_who_need_it(tmp_path: Path) -> None:
    made, installer, heard, store = make(tmp_path)
    installer.may_end.clear()
    made.get(A, packed("msgspec==0.0.1"))
    made.get(B, packed("msgspec==0.0.1"))
    await heard.wait(lambda: heard.said)
    assert not store.all()  # nothing is there before it is complete
    installer.may_end.set()
    await heard.wait(lambda: len(heard.places) == 2)
    await made.close()
    assert heard.places[A] == heard.places[B]
    assert (Path(heard.places[A]) / "part.py").read_text() == "x = 1\n"
    assert installer.installed == [["msgspec==0.0.1"]]
    again, other, heard, _ = make(tmp_path)
    again.get(A, packed("msgspec==0.0.1"))
    await heard.wait(lambda: heard.places)
    await again.close()
    assert other.installed == []


@in_loop
async def test_nobody_can_write_to_what_is_there(tmp_path: Path) -> None:
    made, _, heard, _ = make(tmp_path)
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.places)
    while made._tasks:
        await asyncio.gather(*made._tasks)
    await made.close()
    place = heard.places[A]
    modes = [os.stat(path).st_mode & 0o777 for path in (place, f"{place}/part.py")]
    assert modes == [0o555, 0o444]
    env.remove(os.path.dirname(place))
    assert entries(tmp_path) == []


@in_loop
async def test_what_cannot_be_had_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    made, _, heard, store = make(tmp_path, LackingError(["six"], "no such version"))
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.failures)
    await made.close()
    why, names = heard.failures[A]
    assert why == "it cannot have the package six 0.1: no such version"
    assert names == ["six"]
    store.prune()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bad", [b"\x00", pm.pack(pm.Packages(("-e /",)))])
@in_loop
async def test_nonsense_is_refused(tmp_path: Path, bad: bytes) -> None:
    made, installer, heard, _ = make(tmp_path)
    made.get(A, bad)
    await heard.wait(lambda: heard.failures)
    await made.close()
    assert installer.installed == []


@in_loop
async def test_a_nodelet_that_ends_amid_an_installation_leaves_nothing_that_is_used(
    tmp_path: Path,
) -> None:
    made, installer, heard, store = make(tmp_path)
    installer.may_end.clear()
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.said)
    await made.close()
    assert store.all() == []
    store.prune()
    assert os.listdir(tmp_path) == []


@in_loop
async def test_what_is_made_is_made_though_its_lease_is_given_up(tmp_path: Path) -> None:
    made, installer, heard, store = make(tmp_path)
    installer.may_end.clear()
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.said)
    made.let_go(A)
    installer.may_end.set()
    await heard.wait(lambda: heard.places)
    await made.close()
    assert [one.requirements for one in store.all()] == [("six==0.1",)]


@in_loop
async def test_a_full_disk_is_tried_again_once_room_is_made(tmp_path: Path) -> None:
    full = InstallError(f"{FULL[0]} (os error 28)")
    made, installer, heard, store = make(tmp_path, None, full)
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.places)
    made.let_go(A)
    made.get(B, packed("six==0.2"))
    await heard.wait(lambda: B in heard.places)
    await made.close()
    assert [one.requirements for one in store.all()] == [("six==0.2",)]
    assert installer.forgotten == ["six"]


@in_loop
async def test_a_full_disk_fails_by_name_if_there_is_nothing_to_remove(tmp_path: Path) -> None:
    made, _, heard, _ = make(tmp_path, InstallError(FULL[0]))
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.failures)
    await made.close()
    assert heard.failures[A] == (f"it cannot install packages: {FULL[0]}", ())


@in_loop
async def test_the_one_used_longest_ago_goes_first_and_none_that_is_in_use(tmp_path: Path) -> None:
    made, _, heard, store = make(tmp_path, bytes_max=10)
    for number, lease in enumerate((A, B)):
        made.get(lease, packed(f"six==0.{number}"))
        await heard.wait(partial(heard.places.__contains__, lease))
    while made._tasks:
        await asyncio.gather(*made._tasks)
    assert len(store.all()) == 2  # both are in use, whatever the bound is
    made.let_go(A)
    made.get(b"C" * 16, packed("six==0.3"))
    await heard.wait(lambda: len(heard.places) == 3)
    while made._tasks:
        await asyncio.gather(*made._tasks)
    await made.close()
    assert [one.requirements for one in store.all()] == [("six==0.1",), ("six==0.3",)]


@in_loop
async def test_a_lease_is_told_of_any_error(tmp_path: Path) -> None:
    made, _, heard, _ = make(tmp_path, KeyError("what nobody thought of"))
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.failures)
    await made.close()
    assert "KeyError: 'what nobody thought of'" in heard.failures[A][0]


def test_what_a_killed_nodelet_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    store = env.Store(str(tmp_path))
    host, boot = here()
    theirs = tmp_path / f"{env.NEW}other-{boot}-999999999-aa"  # they share the disk
    old = tmp_path / f"{env.NEW}other-{boot}-999999999-ab"
    for gone in (f"{host}-{boot}-999999999-aa", f"{host}-before-{os.getpid()}-aa"):
        (tmp_path / f"{env.NEW}{gone}").mkdir()
    theirs.mkdir()
    old.mkdir()
    os.utime(old, (1, 1))
    living = Path(store.new())
    store.prune()
    assert sorted(entries(tmp_path)) == sorted([living.name, theirs.name])


def test_another_python_or_other_packages_have_another_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = env.key_of(["a==1", "b==1"], is_whole=True)
    assert key == env.key_of(["b==1", "a==1"], is_whole=True)
    assert key != env.key_of(["a==1", "b==2"], is_whole=True)
    assert key != env.key_of(["a==1", "b==1"], is_whole=False)
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert key != env.key_of(["a==1", "b==1"], is_whole=True)


@in_loop
async def test_nobody_waits_for_what_another_has_installed(tmp_path: Path) -> None:
    made, installer, heard, _ = make(tmp_path)
    installer.may_end.clear()
    made.get(A, packed("six==0.1"))
    made.get(B, packed("six==0.2"))
    await heard.wait(lambda: len(installer.installed) == 2)
    installer.may_end.set()
    await heard.wait(lambda: len(heard.places) == 2)
    await made.close()
    assert heard.places[A] != heard.places[B]


@in_loop
async def test_a_job_uses_what_is_there_if_that_has_all_that_it_needs(tmp_path: Path) -> None:
    made, installer, heard, _ = make(tmp_path)
    made.get(A, packed("six==0.1", "seven==7"))
    await heard.wait(lambda: heard.places)
    made.get(B, packed("six==0.1"))
    await heard.wait(lambda: B in heard.places)
    assert heard.places[A] == heard.places[B]
    made.get(C, packed("six==0.1", "seven==8"))  # not in another version
    await heard.wait(lambda: C in heard.places)
    await made.close()
    assert installer.installed == [["six==0.1", "seven==7"], ["six==0.1", "seven==8"]]


@in_loop
async def test_what_is_there_does_not_hide_what_a_job_needs_of_the_node(tmp_path: Path) -> None:
    here = f"msgspec=={installed()['msgspec']}"
    made, installer, heard, _ = make(tmp_path)
    made.get(A, packed("six==0.1", "msgspec==0.0.1"))
    await heard.wait(lambda: heard.places)
    made.get(B, packed("six==0.1", here))
    await heard.wait(lambda: B in heard.places)
    await made.close()
    assert installer.installed == [["six==0.1", "msgspec==0.0.1"], ["six==0.1"]]


@in_loop
async def test_what_somebody_listed_is_never_taken_for_all_that_is_there(tmp_path: Path) -> None:
    made, installer, heard, store = make(tmp_path)
    made.get(A, pm.pack(pm.Packages(("six==0.1", "seven==7"), is_whole=False)))
    await heard.wait(lambda: heard.places)
    made.get(B, packed("six==0.1"))
    await heard.wait(lambda: B in heard.places)
    await made.close()
    assert len(store.all()) == len(installer.installed) == 2


@in_loop
async def test_what_was_not_closed_is_closed_by_who_uses_it_next(tmp_path: Path) -> None:
    for _ in range(2):
        made, _, heard, store = make(tmp_path)
        made.get(A, packed("six==0.1"))
        await heard.wait(partial(len, heard.places))
        key = os.path.basename(os.path.dirname(heard.places[A]))
        while made._tasks:
            await asyncio.gather(*made._tasks)
        await made.close()
        assert not store.is_open(key)
        os.chmod(store.place(key), 0o755)


@in_loop
async def test_a_full_disk_empties_the_cache_before_it_fails(tmp_path: Path) -> None:
    made, installer, heard, _ = make(tmp_path, InstallError(FULL[1]))
    installer.has_cache = True
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.places)
    await made.close()
    assert len(installer.installed) == 2


@in_loop
async def test_many_environments_stay_within_their_bytes(tmp_path: Path) -> None:
    made, _, heard, store = make(tmp_path, bytes_max=10 * len("x = 1\n"))
    for number in range(200):
        lease = number.to_bytes(16)
        made.get(lease, packed(f"six==0.{number}"))
        await heard.wait(partial(heard.places.__contains__, lease))
        made.let_go(lease)
    while made._tasks:
        await asyncio.gather(*made._tasks)
    await made.close()
    assert [one.requirements for one in store.all()][-1] == ("six==0.199",)
    assert len(store.all()) <= 10


def sent(site: Path, owner: bytes = b"me", version: str = "1") -> CarriedFiles:
    """Return a package as a caller sends it."""
    install(site, "tiny-k", version, {"tiny_k.py": "V = 1", "tiny.txt": os.urandom(70_000).hex()})
    attached = attach_packages([Installed([str(site)]).by_name["tiny-k"]])
    files = []
    for content in attached.contents:
        files.append(BlobFile())
        os.pwrite(files[-1].fd, content, 0)
    return CarriedFiles(owner, files, [blob.size for blob in attached.blobs])


@in_loop
async def test_what_a_caller_sent_is_there_for_its_next_lease(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    made, _, heard, store = make(tmp_path / "root")
    files = await asyncio.to_thread(sent, tmp_path / "site-packages")
    made.get_files(A, files)
    await heard.wait(lambda: A in heard.files)
    file = Path(heard.files[A], "tiny_k.py")
    assert await asyncio.to_thread(file.read_text) == "V = 1"
    before = await asyncio.to_thread(file.stat)
    made.get_files(B, files)
    await heard.wait(lambda: B in heard.files)
    assert heard.files[A] == heard.files[B]
    assert (await asyncio.to_thread(file.stat)).st_ino == before.st_ino
    while made._tasks:
        await asyncio.gather(*made._tasks)
    made.let_go(A)
    assert store.prune(0) == []  # another needs it
    made.let_go(B)
    assert [one.size > 70_000 for one in store.prune(0)] == [True]
    assert not await asyncio.to_thread(os.path.exists, file)


@in_loop
async def test_what_is_asked_for_twice_is_named_once(tmp_path: Path) -> None:
    made, _, heard, _ = make(tmp_path, LackingError(["six", "six"], "no solution"))
    made.get(A, pm.pack(pm.Packages(("six==0.1", "six==0.2"), is_whole=False)))
    await heard.wait(lambda: heard.failures)
    await made.close()
    assert heard.failures[A] == (
        "it cannot have the package six 0.1 and six 0.2: no solution",
        ["six"],
    )


@in_loop
async def test_nobody_else_finds_what_a_caller_sent(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    files = await asyncio.to_thread(sent, tmp_path / "site-packages")
    other = files._replace(owner=b"other")
    keys = {one.key(str(tmp_path / root)) for one in (files, other) for root in ("one", "two")}
    assert len(keys) == 4  # of each owner, and of each node
    assert files.key(str(tmp_path / "one")) in keys
    folder = os.path.join(tmp_path, "one", SENT)
    assert os.stat(folder).st_mode & 0o777 == 0o711
    assert [os.stat(os.path.join(folder, one)).st_mode & 0o077 for one in os.listdir(folder)] == [0]


def test_all_programs_call_these_the_same() -> None:
    assert (NAME_BYTES, pm.PACKAGE_FILES) == (own_modules.NAME_BYTES, packages.NAME)


@in_loop
async def test_nonsense_of_a_caller_is_left_to_its_own_workers(tmp_path: Path) -> None:
    made, _, heard, store = make(tmp_path)
    nonsense = BlobFile()
    os.pwrite(nonsense.fd, b"x" * 100, 0)
    made.get_files(A, CarriedFiles(b"me", [nonsense], [100]))
    await heard.wait(lambda: A in heard.files)
    await made.close()
    assert (heard.files[A], store.all()) == ("", [])
    assert not [one for one in entries(tmp_path) if one.startswith(env.NEW)]


@in_loop
async def test_jobs_are_not_told_what_others_have(tmp_path: Path) -> None:
    made, _, heard, store = make(tmp_path)
    made.get(A, packed("six==0.1"))
    await heard.wait(lambda: heard.places)
    await made.close()
    (one,) = store.all()
    assert os.stat(tmp_path / one.key / env.FACTS).st_mode & 0o077 == 0
