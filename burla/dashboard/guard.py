"""Who may speak to the server on loopback: only the browser of who started it.

Every user of this machine reaches its loopback, and so does every page that a browser shows. So a
browser shows the token of the URL once and has a cookie from then on; the Host is ours (a name of
somebody else's may resolve to 127.0.0.1); what changes something comes from a page of ours.

A cookie knows no ports: a browser shows it to other servers on 127.0.0.1, too, whosever they are.
But it knows paths. So all pages lie under one that is random, and the cookie is for that only:
whoever does not know it cannot make a browser show the cookie elsewhere.

The browser that the command starts has another token, for every user sees with which words a
program is started: that one counts only for a connection of this user's, and once where the system
does not tell whose a connection is.
"""

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .peers import is_of_this_user, is_told

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, a form of ours has no Origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
SAFE = ("GET", "HEAD")
PUBLIC = ("/static/",)  # what is in the wheel of everybody
TOKEN = "token"  # in the address with which a browser comes
FORM_BYTES_MAX = 4096


def page(title: str, text: str, *, status: int = 403, leads_to: str = "") -> Response:
    """Return a page that needs nothing else; `leads_to`: where the browser goes at once."""
    head = f'<meta http-equiv="refresh" content="0; url={leads_to}">' if leads_to else ""
    body = f"<h1>{title}</h1><p>{text}</p>"
    if leads_to:
        body += f'<p><a href="{leads_to}">Go on</a></p>'
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon"'
        ' href="/static/icon.svg" type="image/svg+xml"><link rel="stylesheet"'
        f' href="/static/style.css">{head}</head>'
        f'<body><main class="alone">{body}</main></body></html>'
    )
    return HTMLResponse(html, status)


class Guard:
    """Lets through what the user's own browser asks for."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        """Guard `app`, which is served at a port of loopback."""
        self._app, self._port = app, port
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"burla-{port}"
        self.home = f"/{secrets.token_urlsafe(16)}"  # the path of all pages
        self._session = secrets.token_urlsafe(32)
        self.token = secrets.token_urlsafe(32)
        self.first_token = secrets.token_urlsafe(32)  # of the browser that we start; empty: used up
        self.form_key = secrets.token_urlsafe(32)  # stands in each form of ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        path = scope["path"]
        is_home = path.startswith(f"{self.home}/")
        if is_home:
            inner = path.removeprefix(self.home)
            scope = {**scope, "path": inner}
        refusal = self._refusal(Request(scope), is_home=is_home)
        await (self._app if refusal is None else refusal)(scope, receive, send_guarded)

    def _refusal(self, request: Request, *, is_home: bool) -> Response | None:
        """Return what is said to a request instead of an answer; None: it may have one."""
        headers = request.headers
        if headers.getlist("host") != [headers.get("host")] or headers["host"] not in self._hosts:
            return page(
                "This is not the address of the dashboard",
                "Open it by the address that <code>burla dashboard</code> printed: it begins with"
                " <code>http://127.0.0.1</code>.",
                status=421,
            )
        if request.method not in SAFE and request.method != "POST":
            return page("No", "This is not done here.", status=405)
        if not self._is_from_ours(request, headers):
            return page(
                "This came from another page", "What changes something is done on a page of ours."
            )
        if request.url.path.startswith(PUBLIC):
            return None
        is_known = _equal(request.cookies.get(self._cookie, ""), self._session)
        if request.method == "GET" and TOKEN in request.query_params:
            return self._enter(request, is_known=is_known)
        if is_known and is_home:
            return None
        return page(
            "The dashboard does not know this browser",
            "Open it by the whole address that <code>burla dashboard</code> printed, with its"
            " token. Each start of the command makes a new one.",
        )

    def _is_from_ours(self, request: Request, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if request.method in SAFE:
            return all(origin in self._origins for origin in origins)
        site = headers.get("sec-fetch-site", "same-origin")
        return len(origins) == 1 and origins[0] in self._origins and site == "same-origin"

    def _enter(self, request: Request, *, is_known: bool) -> Response:
        """Give a browser that has the token a cookie, and an address without it.

        By a page that leads on, for with a redirect the cookie would not be sent if a link on
        another page had been followed.
        """
        given = request.query_params[TOKEN]
        if not (is_known or _equal(given, self.token) or self._is_first(request, given)):
            return page(
                "This token is not the one",
                "Open the dashboard by the address that <code>burla dashboard</code> printed last."
                " Each start of the command makes a new one.",
            )
        answer = page("burla", "The dashboard opens.", status=200, leads_to=f"{self.home}/")
        answer.set_cookie(
            self._cookie, self._session, path=self.home, httponly=True, samesite="strict"
        )
        return answer

    def _is_first(self, request: Request, given: str) -> bool:
        """Return whether this is the browser that we have started."""
        if not self.first_token or not _equal(given, self.first_token):
            return False
        if request.client is None or not is_of_this_user(self._port, request.client.port):
            return False
        if not is_told():
            self.first_token = ""
        return True

    async def has_form_key(self, request: Request) -> bool:
        """Return whether a form that was sent is one of ours."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES_MAX:
                return False
        given = parse_qs(body.decode("utf-8", "replace")).get("key", [""])
        return len(given) == 1 and _equal(given[0], self.form_key)


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
