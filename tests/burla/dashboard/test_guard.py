"""Who may speak to the dashboard: only a browser that was shown the token, by our own address."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboards import HOST, ORIGIN, PORT, Shown, shown

from burla.protocol.job_messages import CancelJob, DetachJob

JOB = "/c/lab/jobs/00010203"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with shown(tmp_path_factory.mktemp("lab")) as made:
        yield made


PAGES = ["/", "/?all", "/c/lab/", "/c/lab/jobs", JOB, "/c/lab/nodes/n1", "/c/lab/users"]
PAGES += ["/c/lab/events/overview", "/nowhere"]


@pytest.mark.parametrize("path", PAGES)
def test_who_has_no_cookie_sees_nothing(lab: Shown, path: str) -> None:
    for headers in ({}, {"cookie": f"burla-{PORT}=guess"}, {"cookie": f"burla-{PORT}="}):
        said = lab.stranger(**headers).get(path)
        assert said.status_code == 403
        assert "printed" in said.text
        assert "parse" not in said.text


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "é"])
def test_a_wrong_token_opens_nothing(lab: Shown, token: str) -> None:
    said = lab.stranger().get("/", params={"token": token})
    assert said.status_code == 403
    assert "set-cookie" not in said.headers


def test_the_token_gives_a_cookie_that_no_other_page_can_use(lab: Shown) -> None:
    said = lab.stranger().get("/", params={"token": lab.guard.token})
    cookie = said.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert lab.guard.token not in cookie  # who reads the one has not the other
    assert lab.guard.token not in said.text
    # a page of ours leads on: no token stays in sight
    assert f'content="0; url={lab.guard.home}/"' in said.text


def test_other_servers_of_this_machine_are_not_shown_the_cookie(lab: Shown) -> None:
    """A browser shows a cookie at all ports of 127.0.0.1, but not at other paths."""
    said = lab.stranger(base=ORIGIN).get("/", params={"token": lab.guard.token})
    assert f"Path={lab.guard.home}" in said.headers["set-cookie"]
    assert len(lab.guard.home) > 20
    assert lab.guard.token not in lab.guard.home
    browser = lab.stranger(base=ORIGIN)
    browser.get("/", params={"token": lab.guard.token})
    asked = [browser.build_request("GET", path) for path in ("/", "/c/lab/", "/static/app.js")]
    assert [request.headers.get("cookie") for request in asked] == [None] * 3
    assert browser.get(f"{lab.guard.home}/c/lab/").status_code == 200


def test_the_cookie_opens_nothing_but_the_pages_under_their_path(lab: Shown) -> None:
    cookie = f"burla-{PORT}={lab.guard._session}"
    stranger = lab.stranger(base=ORIGIN, cookie=cookie)
    for path in ("/", "/c/lab/", f"/x{lab.guard.home}/c/lab/", f"{lab.guard.home}x/c/lab/"):
        assert stranger.get(path).status_code == 403
    assert stranger.get(f"{lab.guard.home}/c/lab/").status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.2:{PORT}", "localhost:1", ""],
)
def test_a_name_of_somebody_elses_is_refused_with_the_cookie_too(lab: Shown, host: str) -> None:
    for path in ("/c/lab/", "/static/style.css", f"/?token={lab.guard.token}"):
        said = lab.browser.get(path, headers={"host": host})
        assert said.status_code == 421
        assert "parse" not in said.text


def test_localhost_is_ours_as_well(lab: Shown) -> None:
    assert lab.browser.get("/c/lab/", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"https://{HOST}", "http://127.0.0.1"]
)
def test_what_another_page_asks_for_is_refused(lab: Shown, origin: str) -> None:
    key = {"key": lab.guard.form_key}
    before = len(lab.asked)
    for method, path in (("GET", "/c/lab/"), ("POST", f"{JOB}/cancel")):
        data = key if method == "POST" else None
        said = lab.browser.request(method, path, headers={"origin": origin}, data=data)
        assert said.status_code == 403
    assert len(lab.asked) == before


@pytest.mark.parametrize(("what", "question"), [("cancel", CancelJob), ("detach", DetachJob)])
def test_something_is_done_with_a_job_by_a_form_of_ours_only(
    lab: Shown, what: str, question: type[CancelJob | DetachJob]
) -> None:
    path, ours = f"{JOB}/{what}", {"origin": ORIGIN}
    key = {"key": lab.guard.form_key}
    assert lab.browser.post(path, data=key).status_code == 403  # no origin
    assert lab.browser.post(path, headers=ours).status_code == 403  # no key
    assert lab.browser.post(path, headers=ours, data={"key": "x"}).status_code == 403
    assert lab.browser.post(path, headers=ours, data={"key": "x" * 9999}).status_code == 403
    cross = ours | {"sec-fetch-site": "cross-site"}
    assert lab.browser.post(path, headers=cross, data=key).status_code == 403
    assert lab.stranger(**ours).post(path, data=key).status_code == 403  # no cookie
    assert lab.browser.get(path).status_code in (404, 405)  # nothing changes by a GET
    assert not any(isinstance(said, question) for said in lab.asked)
    said = lab.browser.post(path, headers=ours, data=key)
    led = said.headers["location"]
    assert (said.status_code, led.startswith(f"{lab.guard.home}/c/lab/jobs/")) == (303, True)
    assert [said for said in lab.asked if isinstance(said, question)] == [question("00010203")]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_else_is_done(lab: Shown, method: str) -> None:
    said = lab.browser.request(method, "/c/lab/", headers={"origin": ORIGIN})
    assert said.status_code == 405


@pytest.mark.parametrize("path", [*PAGES, "/static/app.js", "/static/uplot/uplot.js"])
def test_every_answer_says_what_browsers_are_to_refuse(lab: Shown, path: str) -> None:
    if "events" in path:
        return
    headers = lab.browser.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/static/../guard.py", "/static/%2e%2e/guard.py", "/static//etc/passwd"]
)
def test_only_what_is_to_be_served_is(lab: Shown, path: str) -> None:
    assert lab.browser.get(path).status_code == 404


def test_the_browser_that_is_started_gets_in_only_as_this_user(
    lab: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users of the machine see the address among the words that it is started with."""
    asked: list[tuple[int, int]] = []
    is_ours = False

    def is_of_this_user(port: int, peer: int) -> bool:
        asked.append((port, peer))
        return is_ours

    monkeypatch.setattr("burla.dashboard.guard.is_of_this_user", is_of_this_user)
    first = {"token": lab.guard.first_token}
    assert first["token"] != lab.guard.token
    assert lab.stranger().get("/", params=first).status_code == 403
    is_ours = True
    browser = lab.stranger()
    assert browser.get("/", params=first).status_code == 200
    assert asked == [(PORT, 50000)] * 2
    assert browser.get("/", params=first).status_code == 200  # from its history
    assert browser.get("/c/lab/").status_code == 200
    is_ours = False
    assert lab.stranger().get("/", params=first).status_code == 403


def test_where_nobody_tells_whose_a_connection_is_the_first_token_counts_once(
    lab: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.dashboard.peers.SOCKETS", Path("/nowhere"))
    monkeypatch.setattr(lab.guard, "first_token", "f" * 43)
    first = {"token": lab.guard.first_token}
    assert lab.stranger().get("/", params=first).status_code == 200
    assert lab.stranger().get("/", params=first).status_code == 403
    assert lab.stranger().get("/", params={"token": ""}).status_code == 403
