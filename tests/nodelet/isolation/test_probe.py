"""The parts of isolation: control groups, user ids, what is shown and what is hidden."""

import os
from pathlib import Path

import pytest

from burla.nodelet.isolation import cgroups, landlock, linux, sandbox
from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.isolation.uids import FIRST, Uids

MINE = Confinement(True, 1 << 30, 2, (), ())


def version_2(root: Path, *groups: str, busy: str = "") -> None:
    for group in ("", *groups):
        directory = root / group
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.procs", "cgroup.controllers"):
            (directory / name).write_text("")
        (directory / "cgroup.subtree_control").write_text("" if group == busy else "memory pids")


def test_a_confinement_is_passed_on_as_text() -> None:
    wanted = Confinement(False, 5, 3, ("/a b", "/ü"), ("/c",), True)
    assert Confinement.parse(str(wanted)) == wanted
    assert wanted.processes() == 4096 + 3 * 64


def test_without_control_groups_there_are_no_limits(tmp_path: Path) -> None:
    group = cgroups.make("burla-x", 1, 1, str(tmp_path), "0::/a\n4:memory:/b\n")
    assert (group.directories, group.limits) == ([], {})
    assert group.remove()


def test_groups_are_made_where_limits_can_be_had(tmp_path: Path) -> None:
    """Not in our own group, which holds processes, but beside it."""
    version_2(tmp_path, "slice", "slice/ours", busy="slice/ours")
    (tmp_path / "slice/ours/cgroup.subtree_control").unlink()
    (tmp_path / "slice/ours/cgroup.subtree_control").mkdir()  # refuses to be written
    group = cgroups.make("burla-x", 7, 9, str(tmp_path), "0::/slice/ours\n")
    assert group.directories in ([], [str(tmp_path / "slice/burla-x")])


def test_real_groups_limit_and_are_removed() -> None:
    group = cgroups.make(f"burla-test-{os.getpid()}", 1 << 30, 100)
    try:
        assert group.limits == {"memory": 1 << 30, "pids": 100}
        again = cgroups.make(
            f"burla-test-{os.getpid()}", 1 << 29, 50
        )  # left by one that was killed
        assert again.directories == group.directories
    finally:
        assert group.remove()
    assert not [one for one in again.directories if os.path.exists(one)]


def test_a_user_id_is_never_given_twice(tmp_path: Path) -> None:
    ours, others = Uids(str(tmp_path)), Uids(str(tmp_path))
    taken = [one.take() for one in (ours, others) * 20]
    assert len(set(taken)) == 40
    assert min(taken) >= FIRST
    for uid in taken[::2]:
        ours.give_back(uid)
    assert len(list(tmp_path.iterdir())) == 20


def test_user_ids_are_not_locked_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError):
        Uids(str(tmp_path))


def test_python_is_shown_where_strangers_may_not_go(tmp_path: Path) -> None:
    shut = tmp_path / "home"
    (shut / "python" / "lib").mkdir(parents=True)
    shut.chmod(0o700)
    wanted = Confinement(True, 1, 1, (str(shut / "python"), str(shut / "python/lib")), ())
    # below /tmp, which is covered anyway
    assert sandbox.plan(wanted) == ([], [str(shut / "python")])
    (shut / "python").chmod(0o700)
    assert sandbox.plan(wanted) == ([], [str(shut / "python/lib")])


def test_what_is_hidden_is_covered_once() -> None:
    wanted = Confinement(False, 1, 1, ("/usr/lib",), ("/usr", "/usr/share", "/nowhere", "/tmp"))
    assert sandbox.plan(wanted) == (["/usr"], ["/usr/lib"])


def test_what_each_lease_has_of_its_own_is_never_shown() -> None:
    assert sandbox.plan(Confinement(True, 1, 1, ("/tmp", "/var/tmp"), ())) == ([], [])


def test_what_is_hidden_in_a_home_that_is_shut_is_not_covered_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine of `burla up`, where all of it lies in the home of root."""
    monkeypatch.setattr(sandbox, "PRIVATE", ())
    home = tmp_path / "root"
    (home / ".burla/lab/venv").mkdir(parents=True)
    home.chmod(0o700)
    venv, hidden = str(home / ".burla/lab/venv"), str(home / ".burla/lab")
    (cover,), binds = sandbox.plan(Confinement(True, 1, 1, (venv,), (hidden,)))
    assert str(home).startswith(cover)  # or what is shut above it
    assert binds == [venv]


def test_what_is_hidden_in_what_is_needed_is_hidden_again(tmp_path: Path) -> None:
    shut, public = tmp_path / "shut", tmp_path / "public"
    for path in (shut / "keys", shut / "lib", public / "burla"):
        path.mkdir(parents=True)
    (public / "node.key").write_text("secret")
    shut.chmod(0o700)
    key, burla, keys = (
        *(str(public / "node.key"), str(public / "burla")),
        str(shut / "keys"),
    )
    wanted = Confinement(True, 1, 1, (str(shut), str(public)), (keys, burla, key, "/nowhere"))
    covers, binds = sandbox.plan(wanted)
    assert keys in binds  # as all of a directory that only its owner may enter
    assert sandbox.rest(wanted, covers, binds) == ([key], [burla, keys])


def test_landlock_allows_all_but_what_is_hidden(tmp_path: Path) -> None:
    for path in ("a/keys", "a/b", "c"):
        (tmp_path / path).mkdir(parents=True)
    allowed = set(landlock.allowed([str(tmp_path / "a/keys")]))
    assert {str(tmp_path / "a/b"), str(tmp_path / "c"), "/usr"} <= allowed
    assert not {"/", str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/keys")} & allowed


def test_mounts_are_read_with_their_flags() -> None:
    lines = [
        "22 1 0:21 / /a\\040b rw,nosuid,relatime shared:7 - proc proc rw",
        "23 1 0:22 / / ro - ext4 /dev/x rw",
    ]
    relatime = 1 << 21
    assert list(linux.mounts(lines)) == [
        ("/a b", linux.MS_NOSUID | relatime),
        ("/", linux.MS_RDONLY),
    ]
