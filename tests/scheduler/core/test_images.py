"""Jobs that name an image go to nodes that run such; where there is none, they are refused."""

from opening import node_hello, open_job

from burla.protocol.image_messages import IMAGES
from burla.scheduler.core.job import Job
from burla.scheduler.core.node import Node
from burla.scheduler.core.pending_reasons import unsatisfiable

IMAGE = "python:3.11-slim"


def job(image: str = IMAGE) -> Job:
    spec = open_job(b"J" * 16, image=image, digest=b"D" * 32)
    return Job(spec, [b""], b"C" * 16, "3.11", "u")


def node(*features: str, isolation: str = "uid") -> Node:
    return Node.from_hello(b"P", node_hello(features=features, isolation=isolation), 0)


def test_only_a_node_that_says_so_gets_one() -> None:
    assert node(IMAGES).slots(job()) == 2
    assert node(IMAGES).misfit(job()) == ("", "")
    assert node().slots(job()) == 0
    assert node().slots(job("")) == 2


def test_who_cannot_says_why() -> None:
    why = "n runs none: its nodelet found no podman or docker that works (its log says why)"
    assert node().misfit(job()) == ("image", why)
    why = "n runs none: its isolation is landlock, and images need uid or namespaces"
    assert node(isolation="landlock").misfit(job()) == ("image", why)


def test_workers_go_on_with_another_job_only_in_the_same_image() -> None:
    assert job().reuse_key() == job().reuse_key()
    assert len({job().reuse_key(), job("").reuse_key(), job("other").reuse_key()}) == 3


def test_without_such_a_node_a_job_fails_and_says_what_to_do() -> None:
    found = unsatisfiable(job(), [node(), node(isolation="process")])
    assert found is not None
    argument, text = found
    assert argument == ""
    assert f"image={IMAGE!r}: no node of the cluster runs images (n runs none: " in text
    assert "installs podman on the nodes" in text
    assert unsatisfiable(job(), [node(), node(IMAGES)]) is None
