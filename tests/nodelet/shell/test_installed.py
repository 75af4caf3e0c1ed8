"""What an image has of packages, read off names; and what of a job's is then still to be had."""

from pathlib import Path

from burla.nodelet.shell.installed import MINOR, installed_in_image, lacking_in_image
from burla.protocol.package_messages import Packages

THERE = {"numpy": "1.26.4", "my-package": "2.0"}


def test_distributions_of_its_python_are_found_and_nothing_is_read(tmp_path: Path) -> None:
    for place, name in (
        (f"usr/local/lib/{MINOR}/site-packages", "numpy-1.26.4.dist-info"),
        ("usr/lib/python3/dist-packages", "My_Package-2.0.egg-info"),
        ("usr/lib/python2.7/site-packages", "six-1.0.dist-info"),
        ("a/b/c/d/e/f/g/h/i/j", "deep-1.0.dist-info"),
    ):
        (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / f"usr/local/lib/{MINOR}/site-packages/numpy-1.26.4.dist-info/METADATA").symlink_to(
        "/dev/zero"
    )
    (tmp_path / f"opt/lib/{MINOR}").mkdir(parents=True)
    (tmp_path / f"opt/lib/{MINOR}/site-packages").symlink_to("/usr/lib/python3/dist-packages")
    assert installed_in_image(str(tmp_path)) == THERE


def test_versions_of_the_image_are_kept_unless_the_caller_names_others() -> None:
    wanted = ("numpy==2.1.0", "pandas==2.2.0", "msgpack==1.0.0")
    assert lacking_in_image(Packages(wanted), THERE) == ["pandas==2.2.0"]
    named = Packages(wanted, is_whole=False)
    assert lacking_in_image(named, THERE) == ["numpy==2.1.0", "pandas==2.2.0"]


def test_of_two_versions_in_an_image_it_is_always_the_same(tmp_path: Path) -> None:
    place = tmp_path / "usr" / "lib" / "python3"
    for folder, version in ("dist-packages", "2.0"), ("site-packages", "1.0"):
        (place / folder / f"a-{version}.dist-info").mkdir(parents=True)
    assert installed_in_image(str(tmp_path)) == {"a": "2.0"}
