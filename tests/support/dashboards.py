"""A dashboard in front of a scheduler that a test plays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_scheduler import FakeScheduler
from overviews import overview, record, seen, summary
from starlette.testclient import TestClient

from burla.dashboard.app import Dashboard
from burla.dashboard.guard import Guard
from burla.dashboard.places import Place, Places
from burla.protocol import job_messages as jm, messages as m, overview_messages as ov
from burla.protocol.detach_messages import ADOPT

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"
Answer = m.Message | Callable[[Any], m.Message | tuple[m.Message, list[bytes]]]


@dataclass
class Shown:
    """A dashboard, a browser that has its cookie, and what its scheduler answers, by question."""

    dashboard: Dashboard
    guard: Guard
    browser: TestClient
    answers: dict[type[m.Message], Answer] = field(default_factory=dict)
    asked: list[m.Message] = field(default_factory=list)

    def stranger(self, **headers: str) -> TestClient:
        """Return a browser that has no cookie."""
        base = headers.pop("base", ORIGIN + self.guard.home)
        return TestClient(self.guard, base, headers=headers, follow_redirects=False)


def usual_answers() -> dict[type[m.Message], Answer]:
    return {
        ov.AskOverview: overview(),
        ov.AskNode: lambda said: ov.NodeShown(seen(said.name), "1.2", 60.0),
        jm.ListJobs: jm.JobList((summary(), summary(jm.JobState.WAITING, why="number 1")), 2),
        jm.ShowJob: jm.JobShown(record()),
        jm.CancelJob: jm.JobShown(record()),
        jm.DetachJob: jm.JobShown(record()),
    }


@contextmanager
def shown(path: Path, *more: Place) -> Iterator[Shown]:
    """Run a scheduler and a dashboard in front of it; `more`: other clusters."""
    fake = FakeScheduler(path)
    features = (jm.JOBS, ov.OVERVIEW, ADOPT)
    fake.welcome = m.Welcome(b"s" * 16, "0", f"{fake.address}.pub", features=features)
    place = Place("lab", "lab", fake.address, "a test", is_meant=True)
    dashboard = Dashboard(Places(lambda: [place, *more]))
    guard = dashboard.application(PORT)
    browser = TestClient(guard, ORIGIN + guard.home, follow_redirects=False)
    with fake.running():
        made = Shown(dashboard, guard, browser, usual_answers())

        def script(fake: FakeScheduler, peer: bytes, said: m.Message, payload: Any) -> bool:
            answer = made.answers.get(type(said))
            if answer is not None:
                made.asked.append(said)
                found = answer(said) if callable(answer) else answer
                fake.send(peer, *(found if isinstance(found, tuple) else (found,)))
            return answer is not None

        fake.script = script
        try:
            assert browser.get("/", params={"token": guard.token}).status_code == 200
            yield made
        finally:
            dashboard.close()
