"""What is a name of an image, and what it means."""

import msgspec
import pytest

from burla.protocol.image_messages import (
    ImageName,
    checked_image,
    is_local,
    may_change,
    with_registry,
)

DIGEST = "sha256:" + "0" * 64
NAMES = [
    *("python", "python:3.12-slim", "team/science:3", "localhost/own:1", f"python@{DIGEST}"),
    *("ghcr.io/a/b-c__d.e:v1", "localhost:5000/x", "registry.example.org:443/a/b/c:latest"),
]
NO_NAMES = [
    *("", " ", "-v", "--privileged", "a b", "a\nb", "python:", "Python", "a//b", "/a", "a/", "a@b"),
    *("python:3.12\n", "../x", "a;b", "é", "http://x/y", "a" * 600, "oci-archive:/etc/passwd"),
    *("dir:/etc", "containers-storage:[x]y", "docker-daemon:x:y"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken(name: str) -> None:
    assert checked_image(name) == name
    assert msgspec.convert(name, ImageName) == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of an image"):
        checked_image(name)


@pytest.mark.parametrize("word", ["-v", "a b", "a\n", "x" * 513, "$(x)"])
def test_peers_cannot_say_what_a_runtime_could_take_for_something_else(word: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(word, ImageName)


def test_without_a_registry_it_is_of_docker_hub() -> None:
    assert with_registry("python:3.12") == "docker.io/library/python:3.12"
    assert with_registry("team/science") == "docker.io/team/science"
    assert with_registry("oci-archive:x.tar") == "docker.io/library/oci-archive:x.tar"  # no file
    for name in ("localhost/own:1", "localhost:5000/x", "ghcr.io/a/b"):
        assert with_registry(name) == name


def test_only_the_latest_may_change() -> None:
    assert [name for name in NAMES if may_change(name)] == [
        *("python", "localhost:5000/x", "registry.example.org:443/a/b/c:latest"),
    ]
    assert [name for name in NAMES if is_local(name)] == ["localhost/own:1"]
