"""What an image holds is written into its directory and nowhere else, and is no danger there."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.worker import fresh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")
CONFINEMENT = Confinement(True, 1 << 30, 1, (), ())


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode, one.mtime = kind, link, mode, 1_600_000_000
    one.size = 1 if kind == tarfile.REGTYPE else 0
    return one


def unpack(place: Path, *members: tarfile.TarInfo, bytes_max: int = 1 << 20) -> str:
    """Return what the program says, if it fails."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"x") if one.isreg() else None)
    place.mkdir(exist_ok=True)
    line = fresh.command("unpacking", place, bytes_max, CONFINEMENT)
    done = subprocess.run(line, input=packed.getvalue(), capture_output=True, check=False)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr.decode()


def test_files_directories_and_links_are_there_with_their_times(tmp_path: Path) -> None:
    said = unpack(
        tmp_path / "new",
        member("a", tarfile.DIRTYPE, mode=0o700),
        member("a/b", mode=0o4700),
        member("a/c", tarfile.LNKTYPE, "a/b"),
        member("bin", tarfile.SYMTYPE, "/a"),
        member("secret", mode=0o600),
    )
    assert said == ""
    new = tmp_path / "new"
    assert stat.S_IMODE((new / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((new / "a/b").stat().st_mode) == 0o755  # and no setuid
    assert stat.S_IMODE((new / "secret").stat().st_mode) == 0o644  # jobs have no rights of root
    assert (new / "a/b").stat().st_mtime == (new / "a").stat().st_mtime == 1_600_000_000
    assert (new / "a/c").samefile(new / "a/b")
    assert (new / "bin").readlink() == Path("/a")


def test_nothing_leads_out_of_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    said = unpack(
        tmp_path / "new",
        member("../outside/one"),
        member(str(outside / "two")),
        member("link", tarfile.SYMTYPE, str(outside)),
        member("link/three"),
        member("up", tarfile.SYMTYPE, "../../outside"),
        member("hard", tarfile.LNKTYPE, "../../../etc/passwd"),
    )
    assert "No such file" in said  # the hard link: there is no such file in the image
    assert list(outside.iterdir()) == []
    inside = tmp_path / "new"
    assert (inside / "outside/one").exists()
    assert (inside / str(outside / "three").lstrip("/")).exists()


def test_devices_are_left_out_and_what_is_ours_is_not_the_images(tmp_path: Path) -> None:
    device = member("dev/sda", tarfile.BLKTYPE)
    pipe = member("pipe", tarfile.FIFOTYPE)
    ours = member(".burla", tarfile.SYMTYPE, "/etc")
    assert unpack(tmp_path / "new", device, pipe, ours, member("./.burla/lib/x")) == ""
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["dev"]
    assert list((tmp_path / "new/dev").iterdir()) == []


def test_the_later_one_of_a_name_counts(tmp_path: Path) -> None:
    assert unpack(tmp_path / "new", member("a", tarfile.SYMTYPE, "/etc"), member("a")) == ""
    assert (tmp_path / "new/a").is_file()


def test_too_much_is_refused(tmp_path: Path) -> None:
    assert "more than" in unpack(tmp_path / "new", member("a"), member("b"), bytes_max=1)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    line = fresh.command("unpacking", tmp_path, 1, CONFINEMENT)
    done = subprocess.run(line, input=b"x" * 2000, capture_output=True, check=False)
    assert done.returncode
    assert b"ReadError" in done.stderr
