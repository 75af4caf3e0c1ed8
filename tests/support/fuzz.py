"""Fuzzing of whatever peers with valid keys may say, guided by coverage; by hand, not in CI.

    pip install atheris
    PYTHONPATH=.:tests/support python -m fuzz CORPUS -max_total_time=600

CORPUS is a folder, filled with conversations at first. A conversation is a row of messages: who
says it, the header, payload frames. The scheduler's core must take any, and hold what it asserts.
"""

import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]  # by hand only

with atheris.instrument_imports(include=["burla"]):
    from hostile import Words

    from burla.protocol import admin_messages as am, messages as m
    from burla.protocol.codec import WireError, decode, encode, unpack_runs
    from burla.scheduler.core.effects import Publish, Send
    from burla.scheduler.core.scheduler import Scheduler

PEERS: list[tuple[bytes, Any]] = [
    (b"client", m.ClientToScheduler),
    (b"other", m.ClientToScheduler),
    (b"node", m.NodeletToScheduler),
    (b"spare", m.NodeletToScheduler),
    (b"admin", am.AdminToScheduler),
]
HEAD = struct.Struct("<BBBH")  # who, tenths of a second later, payload frames, bytes of the header
FRAME_BYTES = 8  # of a payload frame
SEEDS = 200
WORDS = 30  # messages of a conversation
IDS = [bytes([number]) * 16 for number in range(1, 7)]


def conversation(data: bytes) -> Iterator[tuple[int, float, list[bytes]]]:
    """Yield who says what, and how much later."""
    at = 0
    while at + HEAD.size <= len(data):
        who, later, count, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        frames = [data[at : at + size]]
        at += size
        for _ in range(count % 8):
            frames.append(data[at : at + FRAME_BYTES])
            at += FRAME_BYTES
        yield who % len(PEERS), (later % 16) / 10, frames


def try_one(data: bytes) -> None:
    """Let the core hear one conversation."""
    core = Scheduler(bytes(16), "0", "pub")
    now_s = 0.0
    for who, later_s, frames in conversation(data):
        peer, direction = PEERS[who]
        now_s += later_s
        try:
            message, payload = decode(frames, direction)
        except WireError:
            continue
        if isinstance(message, m.Outcomes):
            with suppress(WireError):
                unpack_runs(message.runs, payload)  # as the client does
        effects = core.receive(peer, message, payload, now_s, peer.decode())
        if now_s >= core.next_deadline_s():
            effects += core.expire(now_s)
        for effect in effects:
            if isinstance(effect, Send | Publish):
                encode(effect.message)
        core.check()


def fill(corpus: Path) -> None:
    """Write conversations of well-formed words."""
    corpus.mkdir(exist_ok=True)
    for seed in range(SEEDS):
        random = Random(seed)
        words = Words(random, list(IDS))
        said = b""
        for _ in range(WORDS):
            who = random.randrange(len(PEERS))
            message = words.any_of(PEERS[who][1])
            header, *payload = encode(message, words.payload_of(message))
            payload = [frame[:FRAME_BYTES].ljust(FRAME_BYTES) for frame in payload[:7]]
            if len(header) < 1 << 16:
                head = HEAD.pack(who, random.randrange(16), len(payload), len(header))
                said += head + header + b"".join(payload)
        (corpus / f"seed-{seed}").write_bytes(said)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and not Path(sys.argv[1]).exists():
        fill(Path(sys.argv[1]))
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
