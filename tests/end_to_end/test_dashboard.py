"""The dashboard in a real browser: every page, live while a job runs; nobody else gets in."""

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import Cluster, cluster
from playwright.sync_api import Browser, Page, expect, sync_playwright
from waiting import LATE_S

from burla import cli, errors, remote_parallel_map

pytestmark = pytest.mark.slow
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
expect.set_options(timeout=LATE_S * 1000)  # what a page comes to show, on a busy machine too


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dashboard"), 2, 1) as made:
        yield made


@pytest.fixture(scope="module")
def url(shared: Cluster) -> Iterator[str]:
    """Run the dashboard; yield the address that it prints."""
    line = [sys.executable, "-m", "burla", "dashboard", "--no-browser"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            found = process.stdout.readline().split()[-1]
            yield found
            stream = _stream(found)
        finally:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does, with a page open
            _, said = process.communicate(timeout=20)
        assert stream.read() is not None  # it has an end
        assert (process.returncode, said) == (0, "")


def _stream(url: str) -> Any:
    """Return a stream of changes, as a page has one, of which the first have come."""
    cookies = urllib.request.HTTPCookieProcessor()
    opener = urllib.request.build_opener(cookies)
    with opener.open(url) as entered:
        home = re.search(r"url=/([^/]+/)", entered.read().decode())
    assert home is not None
    stream = opener.open(f"{url.partition('?')[0]}{home[1]}c/_/events/overview")
    assert stream.readline().startswith(b"data: ")
    return stream


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """Yield the overview; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    context = browser.new_context()
    made = context.new_page()
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    made.goto(url)
    made.wait_for_url(lambda address: "/c/" in address)
    yield made
    context.close()
    assert complaints == []


@pytest.fixture
def running() -> Iterator[list[BaseException]]:
    """Run a job until it is cancelled; yield how it ended."""
    ended: list[BaseException] = []

    def wait(x: int) -> int:
        print("says <b>", x, flush=True)
        if x == 2:
            raise ValueError("<script>document.title = 'broken'</script>")
        time.sleep(0.05 if x < 20 else 600)
        return x

    wait.__name__ = wait.__qualname__ = "<script>document.title='broken'</script>"

    def call() -> None:
        try:
            remote_parallel_map(wait, range(30), return_exceptions=True, spinner=False)
        except errors.JobFailed as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    yield ended
    if not ended:
        assert cli.main(["jobs", "cancel", _open_job()]) == 0
    thread.join(30)
    assert not thread.is_alive()


def _open_job() -> str:
    from burla.commands import admin
    from burla.config import cluster_address
    from burla.protocol.job_messages import JOBS, JobList, ListJobs

    found = admin.put(cluster_address(), ListJobs(1, only_open=True), JobList, feature=JOBS)
    return found.jobs[0].job.hex()


def test_a_job_is_seen_while_it_runs_and_cancelled(
    page: Page, running: list[BaseException]
) -> None:
    """From the overview to the job, its error and its node, and to its end; without a reload."""
    job = page.locator("[data-part=running] tbody tr")
    expect(job).to_contain_text("<script>")  # as text: it came by itself
    expect(job).to_contain_text("20/30")
    expect(page.locator(".grid .node.leased")).to_have_count(2)
    expect(page.locator(".chart canvas")).to_be_visible()
    expect(page.locator("#live")).to_have_text("live")
    page.locator(".grid .node").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("node1")
    expect(page.locator("[data-part=node_turns] tbody tr")).to_contain_text("<script>")
    page.locator("[data-part=node_turns] tbody th a").click()
    expect(page.locator("h1")).to_contain_text("<script>")
    expect(page.locator("[data-part=job_errors]")).to_contain_text("ValueError")
    expect(page.locator("[data-part=job_errors] pre").first).to_contain_text("<script>")
    expect(page.locator("#live")).to_have_text("live")
    page.keyboard.press("/")
    page.keyboard.type("nothing like it")
    expect(page.locator("[data-part=job_errors] pre").first).to_be_hidden()
    expect(page.locator("#log li").first).to_contain_text("says <b>")
    page.get_by_label("Search output").fill("says <b> 7")
    expect(page.locator("#log li:visible")).to_have_count(1)
    expect(page.locator(".timeline rect.lease")).to_have_count(2)
    assert "broken" not in page.title()
    page.locator("summary", has_text="Cancel").click()
    page.get_by_role("button", name="Cancel this job").click()
    expect(page.locator(".title .state")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Cancel this job")).to_have_count(0)
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("[data-part=over] tbody tr").first).to_contain_text("cancelled")
    assert "was cancelled by" in str(_first(running))


def _first(ended: list[BaseException]) -> BaseException:
    until_s = time.monotonic() + 20
    while not ended:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return ended[0]


def test_a_job_appears_and_ends_without_a_reload(page: Page) -> None:
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.locator("h1")).to_have_text("Jobs")
    expect(page.locator("#live")).to_have_text("live")

    def appears_by_itself(x: int) -> int:
        return x

    remote_parallel_map(appears_by_itself, [1, 2, 3], spinner=False)
    row = page.locator("tbody tr", has_text="appears_by_itself")
    expect(row).to_contain_text("complete")
    page.get_by_label("Filter jobs").fill("appears complete")
    expect(page.locator("tbody tr:visible")).to_have_count(1)


def test_users_the_theme_and_a_narrow_window(page: Page) -> None:
    page.get_by_role("link", name="Users").click()
    expect(page.locator("tbody tr")).to_contain_text("everybody")
    expect(page.locator("#live")).to_have_text("live")
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = [page.evaluate(colour)]
    for _ in range(2):
        page.keyboard.press("t")
        seen.append(page.evaluate(colour))
    assert seen[1] != seen[2]
    page.reload()
    assert page.evaluate(colour) == seen[2]  # it is kept
    for path in ("", "jobs", "users"):
        page.goto(f"{page.url.split('/c/')[0]}/c/_/{path}")
        for width in (400, 800):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nobody_gets_in_without_the_token_or_by_another_name(browser: Browser, url: str) -> None:
    base, _, _ = url.partition("?token=")
    context = browser.new_context()
    page = context.new_page()
    for wrong in (base, f"{base}c/_/", f"{url}x", f"{base}?token="):
        answer = page.goto(wrong)
        assert answer is not None
        assert answer.status == 403
        assert context.cookies() == []
    context.close()
    for host in ("evil.example", f"evil.example:{base.split(':')[-1].rstrip('/')}"):
        request = urllib.request.Request(url, headers={"Host": host})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(request)
