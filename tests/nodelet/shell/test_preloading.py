"""When a process is made that has imported what jobs import, and when it is of use."""

import msgpack
import pytest

from burla.nodelet.shell.preloading import Preloading
from burla.nodelet.worker import control as c

HERE = c.LoadSettings(environment=b"here", variables={"BURLA_JOB_ID": "1"})
NEXT = HERE._replace(variables={"BURLA_JOB_ID": "2"}, timeout_s=3.0, node="n")


class Node:
    """Jobs one after the other."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.made = 0
        self.preloading = Preloading(self.killed.append)

    def job(self, *told: str, settings: c.LoadSettings = HERE) -> None:
        """Run a job that takes long to import these modules."""
        self.preloading.begin(settings)
        if told:
            self.preloading.learn([c.encode(c.Modules([*told]))])
        if self.preloading.end():
            self.made += 1
            self.preloading.order(self.made)


def test_it_is_made_after_two_jobs_in_a_row_and_serves_those_that_follow() -> None:
    node = Node()
    node.job("a", "b")
    assert node.made == 0
    node.job("b", "c", settings=NEXT)
    assert node.made == 1
    assert node.preloading.source() is None  # it imports
    node.preloading.serves()
    assert node.preloading.source() == 1
    node.job()
    assert (node.preloading.source(), node.made, node.killed) == (1, 1, [])


def test_what_only_one_of_them_had_is_not_imported() -> None:
    node = Node()
    node.job("a", "b")
    node.preloading.begin(NEXT)
    node.preloading.learn([c.encode(c.Modules(["b", "c"]))])
    assert node.preloading.end()
    order = b"".join(map(bytes, node.preloading.order(1)))
    assert order.endswith(c.encode(c.Modules(["b"])))


@pytest.mark.parametrize("jobs", [(("a",), (), ("a",)), ((), ()), (("a",), ("b",))])
def test_it_is_not_made_for_what_comes_now_and_then(jobs: tuple[tuple[str, ...], ...]) -> None:
    node = Node()
    for told in jobs:
        node.job(*told)
    assert node.made == 0


def test_nothing_is_known_any_more_when_jobs_of_others_follow() -> None:
    node = Node()
    node.job("a")
    assert node.preloading.is_worth_keeping()
    node.preloading.forget()
    assert not node.preloading.is_worth_keeping()
    node.job("a")
    assert node.made == 0
    node.job("a")
    node.preloading.serves()
    assert node.preloading.is_worth_keeping()
    node.preloading.forget()
    assert (node.preloading.source(), node.killed) == (None, [1])
    node.job("a")
    assert node.made == 1


def packed(**attached: bytes) -> c.LoadSettings:
    return HERE._replace(environment=msgpack.packb({"argv": [], "attached": attached}))


def named(name: str) -> c.LoadSettings:
    return packed()._replace(blobs=[(b"", 1, 3, name)])


def test_jobs_with_other_modules_of_their_own_have_the_same_one() -> None:
    node = Node()
    node.job("a", settings=packed(own=b"1"))
    node.job("a", settings=named("own/0"))
    node.preloading.serves()
    node.preloading.begin(packed())
    assert (node.preloading.source(), node.killed) == (1, [])


@pytest.mark.parametrize("other", [packed(files=b""), packed(packages=b""), named("files/1")])
def test_a_job_with_files_or_packages_has_none_and_teaches_nothing(other: c.LoadSettings) -> None:
    node = Node()
    for _ in range(4):
        node.job("a", settings=other)
    assert node.made == 0
    node.job("a", settings=packed())
    node.job("a", settings=packed())
    node.preloading.serves()
    node.preloading.begin(other)
    assert (node.preloading.source(), node.killed) == (None, [])
    node.preloading.begin(packed())
    assert node.preloading.source() == 1


def test_one_that_was_of_no_use_is_not_made_again() -> None:
    node = Node()
    node.job("a")
    node.job("a")
    node.preloading.serves()
    node.preloading.unfit()
    assert node.killed == [1]
    for _ in range(3):
        node.job("a")
    assert node.made == 1


@pytest.mark.parametrize(
    "other",
    [
        HERE._replace(environment=b"there"),
        HERE._replace(packages="/packages"),
        HERE._replace(func_cpu=2),
        HERE._replace(variables={"BURLA_JOB_ID": "1", "MORE": "x"}),
    ],
)
def test_a_job_in_other_surroundings_ends_it(other: c.LoadSettings) -> None:
    node = Node()
    node.job("a")
    node.job("a", settings=other)
    assert node.made == 0
    node.job("a", settings=other)
    node.preloading.serves()
    node.preloading.begin(HERE)
    assert (node.preloading.source(), node.killed) == (None, [1])


def test_more_that_jobs_import_is_for_a_new_one() -> None:
    node = Node()
    for told in "aabb":
        node.job(told)
        node.preloading.serves()
    assert (node.made, node.killed) == (2, [1])
    order = b"".join(map(bytes, node.preloading.order(2)))
    assert order.endswith(c.encode(c.Modules(["a", "b"])))
    node.preloading.begin(HERE)
    node.preloading.learn([c.encode(c.Modules(["c"]))])
    assert not node.preloading.end()


def test_what_it_died_of_is_not_tried_again() -> None:
    node = Node()
    node.job("a")
    node.job("a")
    node.preloading.gone(1)
    for _ in range(3):
        node.job("a")
    assert node.made == 1


def test_it_is_made_again_when_it_has_ended_for_what_has_changed() -> None:
    node = Node()
    node.job("a")
    node.job("a")
    node.preloading.serves()
    node.preloading.gone(1)
    assert node.preloading.source() is None
    node.job("a")
    node.job("a")
    assert node.made == 2


def test_it_looks_once_a_job_whether_something_has_changed() -> None:
    node = Node()
    node.job()
    node.preloading.begin(HERE)
    assert [node.preloading.looks() for _ in range(3)] == [True, False, False]


def test_it_ends_when_no_job_comes() -> None:
    node = Node()
    node.job("a")
    node.job("a")
    node.preloading.serves()
    jobs = node.preloading.jobs
    node.job()
    node.preloading.expire(jobs)
    assert node.killed == []
    node.preloading.expire(jobs + 1)
    assert node.killed == [1]


def test_it_ends_when_it_imports_for_too_long() -> None:
    node = Node()
    node.job("a")
    node.job("a")
    node.preloading.give_up(1)
    assert (node.killed, node.preloading.worker) == ([1], None)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\x01", c.encode(c.Ready()), c.encode(c.Modules([1])), c.encode(c.Kill(1))],  # type: ignore[list-item]
)
def test_what_is_no_list_of_modules_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="no modules"):
        Node().preloading.learn([frame])
