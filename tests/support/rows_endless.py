"""Rows of the security table: messages that never end, which libzmq gathers until they do."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opening import client_hello
from raw_curve import RawCurve
from rows_hostile import OTHER_PYTHON, Others
from stage import Peer, Stage, stage
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.scheduler.core.admission import Role
from burla.transport.sockets import FRAMES_MAX

MIB = 1 << 20
PART = 1 << 20
SENT_MAX = 1 << 30  # bytes: more is not tried, who has come so far was not hung up on
GROWN_MAX = 640 * MIB  # of the scheduler at any moment: what comes between two looks, and some
LEFT_MAX = 384 * MIB  # of that, when all have been hung up on: the C library keeps some
MANY = 48
EACH = 20 * MIB  # below what one connection may
EMPTY_PARTS = 8 * FRAMES_MAX


class Memory:
    """How much the scheduler has grown, at the most."""

    def __init__(self, at: Stage) -> None:
        self._usage = at.usage()
        self._before = self._usage.memory_info().rss
        self.peak = 0

    def look(self) -> int:
        grown = self._usage.memory_info().rss - self._before
        self.peak = max(self.peak, grown)
        return grown


@contextmanager
def flooded(directory: Path) -> Iterator[tuple[Stage, Others, Memory]]:
    """Run a scheduler that serves others meanwhile, stays small, and gives memory back."""
    with stage(directory) as at:
        others = Others(at)
        others.run_a_job()
        memory = Memory(at)
        yield at, others, memory
        others.run_a_job()
        assert memory.peak < GROWN_MAX, f"{memory.peak >> 20} MiB"
        wait_until(lambda: memory.look() < LEFT_MAX, "it is given back")


def send_until_hung_up(raw: RawCurve, part: bytes, between: Callable[[], object]) -> None:
    """Send parts of one message until the other end hangs up."""
    for number in range(SENT_MAX // max(1, len(part))):
        try:
            raw.part(part, more=True)
        except OSError:
            return
        if not number % 16:
            between()
    raise AssertionError(f"it took {SENT_MAX >> 20} MiB of one message")


def endless_message(directory: Path) -> None:
    """Known peers and those who never said a word are hung up on, and kept out for a while."""
    with flooded(directory) as (at, others, memory):

        def between() -> None:
            memory.look()
            others.live()

        pair = at.ring.make(Role.CLIENT, "anna")
        raw = at.raw(pair)
        raw.say(client_hello(os.urandom(16), python=OTHER_PYTHON))
        others.client.fence()
        send_until_hung_up(raw, bytes(PART), between)
        log = directory / "scheduler.log"
        wait_until(lambda: "without ending a message" in log.read_text(), "it is in the log")
        assert '"hung up on: it has sent' in at.ring.audit()
        assert_kept_out(at, pair)
        silent = at.raw(at.ring.make(Role.CLIENT, "silent"))
        send_until_hung_up(silent, bytes(PART), between)


def assert_kept_out(at: Stage, pair: object) -> None:
    try:
        again = at.raw(pair)  # type: ignore[arg-type]
    except (OSError, AssertionError):
        return
    again.close()
    raise AssertionError("it was let in again")


def empty_parts(directory: Path) -> None:
    """Very many parts without a byte: the message is dropped, and its sender is hung up on."""
    with flooded(directory) as (at, others, memory):
        raw = at.raw(at.ring.make(Role.CLIENT, "anna"))
        session = os.urandom(16)
        raw.say(client_hello(session, python=OTHER_PYTHON))
        for number in range(EMPTY_PARTS):
            raw.part(b"", more=True)
            if not number % 4096:
                memory.look()
                others.live()
        raw.part(b"", more=False)
        others.client.fence()
        assert raw.hangs_up(LATE_S)
        log = directory / "scheduler.log"
        wait_until(lambda: "frames" in log.read_text(), "it is in the log")


def endless_together(directory: Path) -> None:
    """Many connections, none of which has sent too much by itself."""
    with flooded(directory) as (at, others, memory):
        pairs = [at.ring.make(Role.CLIENT, f"user {number}") for number in range(MANY)]
        crowd = [at.raw(pair) for pair in pairs]
        for raw in crowd:
            raw.say(client_hello(os.urandom(16), python=OTHER_PYTHON))
        others.client.fence()

        def send(raw: RawCurve) -> None:
            with suppress(OSError):
                for _ in range(EACH // PART):
                    raw.part(bytes(PART), more=True)

        threads = [threading.Thread(target=send, args=(raw,)) for raw in crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                memory.look()
                others.live()
                thread.join(0.05)
        log = directory / "scheduler.log"
        wait_until(lambda: "without ending" in log.read_text(), "the largest are hung up on")
        assert any(not raw.hangs_up(0.1) for raw in crowd)  # and no more than must be
        for raw in crowd:
            raw.close()


def endless_subscription(directory: Path) -> None:
    """The same at the socket that output goes out by."""
    with flooded(directory) as (at, others, memory):
        pair = at.ring.make(Role.CLIENT, "anna")
        raw = at.raw(pair, b"SUB", publisher=others.client.publisher)
        send_until_hung_up(raw, bytes(900), memory.look)


def big_and_honest(directory: Path) -> None:
    """Nobody is hung up on for much that is said in messages that end."""
    with flooded(directory) as (at, others, _):
        anna: Peer = at.peer(at.ring.make(Role.CLIENT, "anna"))
        anna.be_client()
        until_s = time.monotonic() + LATE_S
        for number in range(256):
            anna.say(m.Heartbeat(), [bytes(PART), bytes(PART)])
            assert time.monotonic() < until_s
            if not number % 32:
                others.client.fence()
        anna.fence()
        assert "hung up on" not in (directory / "scheduler.log").read_text()
