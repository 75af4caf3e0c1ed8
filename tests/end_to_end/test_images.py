"""Calls that run in the image of a container: its files, its Python, and nothing else is different.

The image is made of the Python that runs the tests, and comes from a program that stands in for
podman: what a real one does beside handing over files is none of ours.
"""

import os
import sys
from collections.abc import Iterator

import pytest
from clusters import Cluster
from container_images import files_of_python, write_archive
from container_runtime import make_runtime
from imaged import fail, look
from tiers import nodes_of

import burla
from burla import remote_parallel_map

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make nodes of all tiers"),
]
IMAGE, NO_PYTHON, HOSTILE = "localhost/own:1", "localhost/empty:1", "localhost/hostile:1"
MINOR = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a node that has a few images."""
    place = tmp_path_factory.mktemp("images")
    files = files_of_python()
    inside = f"usr/local/lib/{MINOR}/site-packages"
    texts = {"etc/flavour": "vanilla", f"{inside}/only_there.py": "VALUE = 'of the image'\n"}
    links = {"etc/resolv.conf": "/run/nothing"}
    write_archive(place / "own.tar", files, texts, links)
    write_archive(place / "empty.tar", {}, {"etc/flavour": "none"})
    write_archive(place / "hostile.tar", {}, {}, {"proc": "/etc", "tmp": "/etc", "dev": "/"})
    runtime = make_runtime(
        place / "runtime",
        {
            IMAGE: (place / "own.tar", ["PATH=/usr/local/bin:/bin", "FLAVOUR=vanilla"]),
            NO_PYTHON: (place / "empty.tar", []),
            HOSTILE: (place / "hostile.tar", []),
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{runtime}:{os.environ['PATH']}")
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        with nodes_of(place, "uid", 2) as made:
            yield made
    assert (runtime / "asked").read_text().count("export") == 3


def test_calls_find_the_files_and_the_python_of_the_image(
    made: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    found = remote_parallel_map(look, [1, 2], image=IMAGE, packages=[])
    assert found == [
        {
            "number": number,
            "module": "of the image",
            "flavour": ("vanilla", "vanilla"),
            "python": f"/usr/local/bin/{MINOR}",
            "directory": "/tmp/job",
            "uid": True,
            "sees": [],
            "writes": [],
            "processes": True,
            "random": 4,
        }
        for number in (1, 2)
    ]
    assert sorted(capfd.readouterr().out.splitlines()) == ["call 1", "call 2"]


def test_errors_come_back_and_the_next_job_is_in_no_image(made: Cluster) -> None:
    with pytest.raises(KeyError, match="7"):
        remote_parallel_map(fail, [7], image=IMAGE, packages=[])
    assert remote_parallel_map(os.path.exists, [sys.executable], spinner=False) == [True]
    assert remote_parallel_map(os.path.exists, [sys.executable], image=IMAGE, packages=[]) == [
        False
    ]


def test_nothing_of_an_image_leads_out_of_it_and_what_is_no_use_is_refused(made: Cluster) -> None:
    before = sorted(os.listdir("/etc"))
    for image, why in (
        (NO_PYTHON, f"it has no Python that runs here .*take one with Python {MINOR[6:]}"),
        (HOSTILE, "its files cannot be shown: it has a /proc that is no directory"),
        ("localhost/none:1", "it is not on this node"),
    ):
        with pytest.raises(burla.JobFailed, match=rf"node node0 cannot .*{image}: .*{why}"):
            remote_parallel_map(abs, [1], image=image, spinner=False)
    assert sorted(os.listdir("/etc")) == before
    assert remote_parallel_map(abs, [-1], spinner=False) == [1]
