"""A connection to one cluster, on which all pages ask; what was just answered is not asked again.

Whoever asks waits, in a thread of its own.
"""

import threading
import time
from typing import Any, TypeVar

from burla.errors import BurlaError, ClusterUnreachable, NotAuthorised, Refused
from burla.protocol import admin_messages as am, messages as m
from burla.shell.curves import curve_for
from burla.transport.conversation import Conversation
from burla.transport.request import NoAnswer, NotTaken, ask

ANSWER_S = 4.0
FRESH_S = 0.7  # an answer is taken for the present state of things for so long
FRESH_SHARE = 20  # or for so many times as long as it took: who has much to tell is asked less
KEPT_MAX = 256  # answers

A = TypeVar("A", bound=m.Message)


class Line:
    """Asks one cluster. Thread-safe."""

    def __init__(self, address: str, why_gone: Any = lambda: None) -> None:
        """Connect with the first question.

        Args:
            address: of the scheduler.
            why_gone: returns why nothing can answer there any more; None: it may.
        """
        self.address = address
        self._why_gone = why_gone
        self._lock = threading.Lock()
        self._conversation: Conversation | None = None
        self._known: dict[m.Message, tuple[float, m.Message | BurlaError]] = {}  # until when
        self._silent: tuple[float, str] = 0.0, ""  # until when nobody asks again, and why
        self._is_closed = False

    def ask(self, question: m.Message, answer: type[A], feature: str) -> A:
        """Return what the scheduler answers, or answered a moment ago.

        Raises:
            BurlaError: it cannot be reached, or says no.
        """
        with self._lock:
            known = self._known.get(question)
            if known is None or time.monotonic() > known[0]:
                known = self._ask_now(question, answer, feature)
            said = known[1]
        if isinstance(said, BurlaError):
            raise said
        assert isinstance(said, answer)
        return said

    def read(self, question: m.Message, answer: type[A], feature: str) -> tuple[A, list[bytes]]:
        """Return what the scheduler answers now, with its payload.

        Raises:
            BurlaError: it cannot be reached, or says no.
        """
        with self._lock:
            try:
                said, payload = self._converse(question, answer, feature)
            except (NoAnswer, NotTaken) as error:
                self._hang_up()
                raise self._error(error) from None
        assert isinstance(said, answer)
        return said, payload

    def put(self, question: m.Message, answer: type[A], feature: str) -> A:
        """Return what the scheduler answers to a question that changes something: asked once.

        Raises:
            BurlaError: it cannot be reached, or says no.
        """
        curve = curve_for(self.address)
        pair, known = (None, None) if curve is None else (curve.pair, curve.known)
        parts = (answer, am.SchedulerToAdmin, ANSWER_S, known, feature)
        try:
            said = ask(self.address, pair, question, *parts)
        except (NoAnswer, NotTaken) as error:
            raise self._error(error) from None
        with self._lock:
            self._known.clear()
        return said

    def close(self) -> None:
        """Hang up; who waits for an answer gets none."""
        self._is_closed = True
        if (conversation := self._conversation) is not None:
            conversation.give_up()
        with self._lock:
            self._hang_up()

    def _ask_now(
        self, question: m.Message, answer: type[A], feature: str
    ) -> tuple[float, m.Message | BurlaError]:
        said: m.Message | BurlaError
        begun_s = time.monotonic()
        try:
            said, _ = self._converse(question, answer, feature)
        except (NoAnswer, NotTaken) as error:
            self._hang_up()  # what comes late is not to be taken for the answer to another question
            said = self._error(error)
        except BurlaError as error:
            said = error
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        now_s = time.monotonic()
        fresh_s = FRESH_S if isinstance(said, BurlaError) else fresh_for(now_s - begun_s)
        self._known[question] = found = now_s + fresh_s, said
        return found

    def _converse(
        self, question: m.Message, answer: type[A], feature: str
    ) -> tuple[m.Message, list[bytes]]:
        if self._is_closed:
            raise NoAnswer("this page is of a connection that was closed: load it again")
        if (why := self._why_gone()) is not None:
            raise NoAnswer(why)
        until_s, why = self._silent
        if time.monotonic() < until_s:  # of many who wait for their turn, each would wait as long
            raise NoAnswer(why)
        if self._conversation is None:
            curve = curve_for(self.address)
            self._conversation = Conversation(self.address, curve, am.SchedulerToAdmin, ANSWER_S)
            if self._is_closed:  # meanwhile, by who saw no conversation that could be given up
                raise NoAnswer("this page is of a connection that was closed: load it again")
        self._conversation.ask(question)
        try:
            return self._conversation.wait(lambda message: isinstance(message, answer), feature)
        except NoAnswer as error:
            self._silent = time.monotonic() + FRESH_S, str(error)
            raise

    def _error(self, error: NoAnswer | NotTaken) -> BurlaError:
        if isinstance(error, NotTaken):
            return (NotAuthorised if error.not_authorised else Refused)(str(error))
        return ClusterUnreachable(self.address, str(error))

    def _hang_up(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


def fresh_for(took_s: float) -> float:
    """Return how long an answer is fresh that took so long."""
    return max(FRESH_S, min(ANSWER_S, FRESH_SHARE * took_s))
