"""What each attack costs an honest user, and the scheduler: a table, by hand.

    PYTHONPATH=.:tests/support python -m siege [NAME ...]

Beside each row of tests/security/test_matrix.py whose name has one of these words (all that
attack), a program of its own runs tiny jobs on a node of its own, from OpenJob to CloseJob, again
and again, and the memory of the scheduler is looked at. A row that fails is told as such.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import rows_descriptors as descriptors
import rows_endless as endless
import rows_floods as floods
import rows_hostile as hostile
import rows_ids as ids
import rows_keys as keys
import rows_output as output
import rows_tenants as tenants
import rows_words as words
import stage as stages
import zmq
from keyring import Keyring
from opening import client_hello, node_hello
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.core.admission import Role

PYTHON = "3.99"  # so that no other job or node fits to those of the honest user
PAUSE_S = 0.01  # between two jobs: the attack has the machine, too
LOOK_S = 0.02
MIB = 1 << 20
ROWS: dict[str, Callable[[Path], None]] = {
    "nobody attacks": floods.quiet,
    "handshakes without end under one key": ids.many_handshakes,
    "slowloris and 2,000 half handshakes": keys.half_handshakes,
    "ten thousand raw connections": hostile.raw_connections,
    "connections that take all descriptors": descriptors.revoked_in_a_flood,
    "10,000 mutated frames": hostile.mutated_frames,
    "array header claiming 2^32": hostile.huge_array,
    "10 GB frame declared": hostile.ten_gigabytes,
    "pickle bombs in every field": hostile.pickle_bombs,
    "control characters in every word": words.evil_words,
    "many ranges in OpenJob.done": floods.many_ranges,
    "messages of 16,400 frames": floods.many_frames,
    "a message without an end": endless.endless_message,
    "a message of very many empty parts": endless.empty_parts,
    "many messages without an end, each a bit": endless.endless_together,
    "a subscription without an end": endless.endless_subscription,
    "much that ends": endless.big_and_honest,
    "asks without end and never reads": hostile.never_reads,
    "2,000 jobs": hostile.quotas,
    "topic flood": output.topic_flood,
    "another's job": tenants.foreign_job,
    "stolen routing id": ids.stolen_routing_id,
}


# --- the honest user, a process of its own ---


def be_honest(directory: Path, address: str) -> None:
    """Run jobs until stdin ends; then print how long each took."""
    with ExitStack() as ends:
        ring = Keyring(directory)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        at = stages.Stage(ring, None, address, context, ends)  # type: ignore[arg-type]  # no process
        client = at.peer(ring.make(Role.CLIENT, "honest"))
        node = at.peer(ring.make(Role.NODE, "honest node"))
        node.say(node_hello(bytes(16), name="honest", python=PYTHON, cpus=1))
        node.hear(m.Welcome)
        client.say(client_hello(client.session, python=PYTHON))
        client.hear(m.Welcome)
        took: list[float] = []
        ending = threading.Event()

        def wait_told() -> None:
            sys.stdin.read()
            ending.set()

        threading.Thread(target=wait_told, daemon=True).start()
        number = 0
        while not ending.is_set():
            number += 1
            began_s = time.perf_counter()
            run_a_job(client, node, number.to_bytes(16, "big"))
            took.append(time.perf_counter() - began_s)
            if number == 1:
                print("ready", flush=True)
            ending.wait(PAUSE_S)
        print(json.dumps(took), flush=True)


def run_a_job(client: stages.Peer, node: stages.Peer, job: bytes) -> None:
    client.open(job)
    while not isinstance(said := node.hear(m.Message)[0], m.StartLease):
        if isinstance(said, m.EndLease):
            node.say(m.Stopped(said.lease))
    node.say(outcomes(said.lease, [m.Run(0, 1, m.Kind.RESULT, 1)]), [b"result"])
    client.hear(m.JobOutcomes)
    client.say(m.CloseJob(job))


# --- beside an attack ---


class Measured:
    """What was seen of one row."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.peak = 0

    @contextmanager
    def stage(self, real: Any, *arguments: Any) -> Iterator[stages.Stage]:
        """Run a stage with the honest user beside it."""
        with real(*arguments) as at:
            line = [sys.executable, "-m", "siege", "--honest"]
            line += [str(at.ring.key_store.directory), at.address]
            with subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as honest:
                assert honest.stdin is not None
                assert honest.stdout is not None
                assert honest.stdout.readline() == "ready\n"
                ending = threading.Event()
                looking = threading.Thread(target=self._look, args=(at.usage(), ending))
                looking.start()
                try:
                    yield at
                finally:
                    ending.set()
                    looking.join()
                    honest.stdin.close()
                    told = honest.stdout.readline()
                    self.took += json.loads(told) if told else [float("inf")]

    def _look(self, usage: psutil.Process, ending: threading.Event) -> None:
        while not ending.wait(LOOK_S):
            self.peak = max(self.peak, usage.memory_info().rss)

    def row(self, name: str, failed: str) -> str:
        took = sorted(self.took)
        at = [took[min(len(took) - 1, int(len(took) * part))] * 1e3 for part in (0.5, 0.99)]
        figures = f"{len(took)} | {at[0]:.1f} | {at[1]:.1f} | {took[-1] * 1e3:.0f}"
        return f"| {name} | {figures} | {self.peak / MIB:.0f} |{f' {failed}' if failed else ''}"


def main(wanted: list[str]) -> None:
    print("| attack | jobs | p50 ms | p99 ms | longest ms | peak MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    real = stages.stage
    rooms = (descriptors, endless, floods, hostile, ids, keys, output, tenants, words)
    for name, row in ROWS.items():
        if wanted and not any(word in name for word in wanted):
            continue
        seen, failed = Measured(), ""

        def beside(*arguments: Any, seen: Measured = seen) -> Any:
            return seen.stage(real, *arguments)

        for room in rooms:
            room.stage = beside  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as directory:
            try:
                row(Path(directory))
            except AssertionError as error:
                failed = f"FAILED: {str(error)[:80]!r}"
        print(seen.row(name, failed), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--honest"]:
        be_honest(Path(sys.argv[2]), sys.argv[3])
    else:
        main(sys.argv[1:])
