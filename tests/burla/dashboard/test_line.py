"""The connection that all pages of a cluster ask on: nobody waits long for one that is silent."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboards import Shown, shown

from burla.dashboard import line
from burla.dashboard.line import Line
from burla.errors import ClusterUnreachable
from burla.protocol import overview_messages as ov
from burla.transport.conversation import Conversation
from burla.transport.request import NoAnswer


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path) as made:
        yield made


def line_of(lab: Shown) -> Line:
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    return watched.line


def overview_of(asked: Line) -> ov.Overview:
    return asked.ask(ov.AskOverview(), ov.Overview, ov.OVERVIEW)


def test_those_behind_one_who_has_waited_in_vain_do_not_wait_again(
    lab: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    def wait(*_: object) -> None:
        waited.append("in vain")
        raise NoAnswer("no answer for 4 s")

    monkeypatch.setattr(line, "FRESH_S", 60.0)
    monkeypatch.setattr(Conversation, "wait", wait)
    asked = line_of(lab)
    for _ in range(3):
        with pytest.raises(ClusterUnreachable, match="no answer for 4 s"):
            asked.read(ov.AskOverview(), ov.Overview, ov.OVERVIEW)
    with pytest.raises(ClusterUnreachable):
        overview_of(asked)
    assert waited == ["in vain"]


def test_who_waits_when_it_is_closed_gets_no_answer(lab: Shown) -> None:
    came = threading.Event()
    del lab.answers[ov.AskOverview]
    asked, said = line_of(lab), []

    def ask() -> None:
        came.set()
        try:
            overview_of(asked)
        except ClusterUnreachable as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    came.wait(20)
    asked.close()
    thread.join(20)
    assert len(said) == 1
    with pytest.raises(ClusterUnreachable, match="load it again"):
        asked.read(ov.AskOverview(), ov.Overview, ov.OVERVIEW)


@pytest.mark.parametrize(("took_s", "fresh_s"), [(0.001, 0.7), (0.1, 2.0), (9.0, 4.0)])
def test_a_cluster_that_has_much_to_tell_is_asked_less(took_s: float, fresh_s: float) -> None:
    assert line.fresh_for(took_s) == pytest.approx(fresh_s)
