"""The pages, as a web application: what is at which address."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from burla.dashboard.core.difference import Shown, difference, merged
from burla.errors import BurlaError
from burla.protocol import VERSION
from burla.protocol.detach_messages import ADOPT
from burla.protocol.job_messages import JOBS, CancelJob, DetachJob, JobShown

from . import logs
from .guard import Guard
from .pages import PAGES, WORD_CHARS_MAX, Facts, NoSuch, Page, problem_of, sample, shown
from .places import Places, Watched
from .rendering import render

SAMPLE_S = 2.0  # between two points of a chart at which nobody looks
ASKERS = 16  # that wait for clusters at once
SILENT_S = 15.0  # a stream that has nothing to say says so, or what is between might end it
STATIC = Path(__file__).parent / "static"


class Ended(Exception):
    """The dashboard has ended: nobody waits for an answer any more."""


class Dashboard:
    """Answers what a browser asks for."""

    def __init__(self, places: Places) -> None:
        """Show these clusters."""
        self._places = places
        self._askers = ThreadPoolExecutor(ASKERS, "burla-asker")
        self._guard: Guard
        self._sampling: asyncio.Task[None] | None = None
        self._is_over = False
        self._waiting: set[asyncio.Future[None]] = set()  # until all of this is over
        self._loop: asyncio.AbstractEventLoop | None = None  # once there are streams

    def application(self, port: int) -> Guard:
        """Return what is to be served at a port of loopback."""
        here = "/c/{place}"
        routes = [
            Route("/", self._clusters),
            Route(f"{here}/", self._page, name="overview"),
            Route(f"{here}/jobs", self._page, name="jobs"),
            Route(f"{here}/users", self._page, name="users"),
            Route(f"{here}/jobs/{{what}}", self._page, name="job"),
            Route(f"{here}/nodes/{{what:path}}", self._page, name="node"),
            Route(f"{here}/events/{{page}}", self._events),
            Route(f"{here}/events/{{page}}/{{what:path}}", self._events),
            Route(f"{here}/logs/{{what}}", self._logs),
            Route(f"{here}/jobs/{{what}}/cancel", self._cancel, methods=["POST"]),
            Route(f"{here}/jobs/{{what}}/detach", self._detach, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers = {404: self._nothing_there, Ended: self._nothing_more}
        application = Starlette(routes=routes, exception_handlers=handlers)
        self._guard = Guard(application, port)
        return self._guard

    def end(self) -> None:
        """End all streams, which would go on for ever; called by a handler of signals."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._is_over = True
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    def close(self) -> None:
        """Hang up everywhere."""
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._places.close()

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not longer than all of this lasts."""
        with self._until_over() as over:
            await asyncio.wait((over,), timeout=seconds)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        """Return what a function returns that waits for a cluster.

        Raises:
            Ended: all of this is over, and the cluster has not answered yet.
        """
        loop = asyncio.get_running_loop()
        with self._until_over() as over:
            work = loop.run_in_executor(self._askers, function, *arguments)
            await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Ended
        return work.result()

    @contextmanager
    def _until_over(self) -> Iterator[asyncio.Future[None]]:
        """Yield what is done when all of this is over."""
        self._loop = asyncio.get_running_loop()
        over = self._loop.create_future()
        if self._is_over:
            over.set_result(None)
        self._waiting.add(over)
        try:
            yield over
        finally:
            self._waiting.discard(over)

    async def _nothing_more(self, request: Request, error: Exception) -> Response:
        return Response(status_code=503)

    async def _nothing_there(self, request: Request, error: Exception) -> Response:
        problem = {"text": "there is no such page", "remedy": "begin at the list of clusters"}
        return HTMLResponse(self._whole("alone.html", {"problem": problem}), 404)

    def _whole(self, template: str, facts: Facts) -> str:
        """Return a whole page."""
        usual = {
            "version": VERSION,
            "place": None,
            "root": "",
            "home": self._guard.home,
            "stale": False,
            "events": "",
            "page": "",
            "form_key": self._guard.form_key,
        }
        return render(template, usual | facts)

    async def _clusters(self, request: Request) -> Response:
        """Show which clusters there are; if there is one, go there."""
        places = await self._in_thread(self._places.all)
        is_clear = len(places) == 1 or any(place.is_meant for place in places[:1])
        if is_clear and "all" not in request.query_params:
            return RedirectResponse(f"{self._root(places[0].key)}/", 303)
        return HTMLResponse(self._whole("clusters.html", {"places": places}))

    async def _watched(self, request: Request) -> Watched | None:
        found = await self._in_thread(self._places.watch, request.path_params["place"])
        assert found is None or isinstance(found, Watched)
        return found

    async def _page(self, request: Request) -> Response:
        """Show a page as it is now; a stream of changes follows."""
        watched = await self._watched(request)
        name = request.scope["route"].name
        if watched is None:
            problem = {
                "text": f"there is no cluster {request.path_params['place']}",
                "remedy": "begin at the list of clusters",
            }
            return HTMLResponse(self._whole("alone.html", {"problem": problem}), 404)
        page, what = PAGES[name], request.path_params.get("what", "")
        facts = self._facts(watched, name, what)
        now = await self._in_thread(shown, page, watched, what, facts)
        assert isinstance(now, Shown)
        more = {"parts": now.parts, "stale": now.stale}
        return HTMLResponse(self._whole(page.template, facts | more))

    def _root(self, key: str) -> str:
        """Return the path of the pages of a cluster."""
        return f"{self._guard.home}/c/{key}"

    def _facts(self, watched: Watched, name: str, what: str) -> Facts:
        """Return what templates are told besides what is shown."""
        root = self._root(watched.place.key)
        events = f"{root}/events/{name}" + (f"/{quote(what)}" if what else "")
        return {
            "place": watched.place,
            "root": root,
            "page": name,
            "what": what,
            "events": events,
            "form_key": self._guard.form_key,
        }

    async def _events(self, request: Request) -> Response:
        """Send what changes on a page, as long as it is open."""
        if self._sampling is None:
            self._sampling = asyncio.create_task(self._sample())
        watched = await self._watched(request)
        page = PAGES.get(request.path_params["page"])
        if watched is None or page is None:
            return Response(status_code=404)
        what = request.path_params.get("what", "")
        facts = self._facts(watched, request.path_params["page"], what)
        return StreamingResponse(
            self._changes(page, watched, what, facts), media_type="text/event-stream"
        )

    async def _logs(self, request: Request) -> Response:
        """Send the output of a job, and what comes of it as long as the page is open."""
        watched = await self._watched(request)
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if watched is None:
            return Response(status_code=404)
        reader = logs.reader(watched, request.path_params["what"][:WORD_CHARS_MAX], after)
        return StreamingResponse(self._lines(reader), media_type="text/event-stream")

    async def _lines(self, reader: logs.Reader) -> AsyncGenerator[bytes]:
        is_first, silent_s = True, 0.0
        while not self._is_over:
            try:
                more = await self._in_thread(reader.read)
            except Ended:
                return
            silent_s += logs.EVERY_S
            if logs.is_news(more, is_first):
                yield logs.as_event(more, reader.place)
                silent_s = 0.0
            elif silent_s >= SILENT_S:
                yield b": nothing new\n\n"
                silent_s = 0.0
            if more.over or more.why:
                return
            is_first = False
            await self._sleep(logs.EVERY_S)

    async def _sample(self) -> None:
        """Go on with charts while nobody looks, so that they are there when somebody does."""
        while not self._is_over:
            await self._sleep(SAMPLE_S)
            with suppress(Ended):
                for watched in await self._in_thread(self._places.sampled):
                    await self._in_thread(sample, watched)

    async def _changes(
        self, page: Page, watched: Watched, what: str, facts: Facts
    ) -> AsyncGenerator[bytes]:
        before: Shown | None = None
        silent_s = 0.0
        while not self._is_over:
            try:
                now = await self._in_thread(shown, page, watched, what, facts, before)
            except Ended:
                return
            change = difference(before, now)
            before, silent_s = merged(before, now), silent_s + page.every_s
            if not change.is_nothing():
                yield b"data: " + msgspec.json.encode(change) + b"\n\n"
                silent_s = 0.0
            elif silent_s >= SILENT_S:
                yield b": nothing new\n\n"
                silent_s = 0.0
            await self._sleep(page.every_s)

    async def _cancel(self, request: Request) -> Response:
        """Stop a job."""
        return await self._ask_for(request, CancelJob, JOBS)

    async def _detach(self, request: Request) -> Response:
        """Let a job go on without its script."""
        return await self._ask_for(request, DetachJob, ADOPT)

    async def _ask_for(
        self, request: Request, question: type[CancelJob | DetachJob], feature: str
    ) -> Response:
        """Ask the cluster to do something with a job, as a form of ours says."""
        if not await self._guard.has_form_key(request):
            problem = {"text": "this form is not from the page", "remedy": "load the page again"}
            return HTMLResponse(self._whole("alone.html", {"problem": problem}), 403)
        watched = await self._watched(request)
        if watched is None:
            return Response(status_code=404)
        job = request.path_params["what"]
        try:
            wanted = question(job[:WORD_CHARS_MAX])
            said = await self._in_thread(watched.line.put, wanted, JobShown, feature)
            if said.record is None or said.why:
                raise NoSuch(said.why)
        except (BurlaError, NoSuch) as error:
            facts = self._facts(watched, "", "") | {"problem": problem_of(error), "events": ""}
            return HTMLResponse(self._whole("alone.html", facts), 409)
        found = said.record.summary.job.hex()
        return RedirectResponse(f"{self._root(watched.place.key)}/jobs/{found}", 303)
