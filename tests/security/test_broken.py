"""Rows of the security tables that fail as they should on a copy of burla with a hole in it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import rows_descriptors as descriptors
import rows_endless as endless
import rows_hostile
import rows_ids as ids
import rows_words as words
import stage
from broken import Change, broken_copy
from stage import scheduler_of
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LATE_S = 5.0
SENT_MAX = 256 << 20
SERVER, WATCH, INTAKE = (f"scheduler/shell/{name}.py" for name in ("server", "watch", "intake"))
DOOR = "scheduler/shell/door.py"
ZAP, AUTHORIZER = "scheduler/auth/zap.py", "scheduler/auth/authorizer.py"
SPARE = "transport/descriptors.py"

HOLES = [
    pytest.param(
        ids.chosen_ids,
        [(SERVER, "return len(peer) == ROUTING_ID_BYTES", "return True")],
        id="any routing id is taken",
    ),
    pytest.param(
        ids.predicted_ids,
        [(SERVER, "seed_libzmq()  # before", "pass  # before")],
        id="libzmq is not seeded",
    ),
    pytest.param(
        ids.stolen_routing_id,
        [(INTAKE, "return peer in self._gone", "return False")],
        id="it does not matter whose connection it is",
    ),
    pytest.param(
        ids.stolen_node_id,
        [(INTAKE, "return peer in self._gone", "return False")],
        id="it does not matter which node's connection it is",
    ),
    pytest.param(
        ids.many_handshakes, [(ZAP, "ADMITTED = 256", "ADMITTED = 9999")], id="handshakes are free"
    ),
    pytest.param(
        endless.endless_message,
        [(INTAKE, "self._look_s = now_s + LOOK_S", "self._look_s = now_s + 1e9")],
        id="nobody looks at connections",
    ),
    pytest.param(
        endless.endless_together,
        [(WATCH, "UNFINISHED_ALL_MAX = 256 << 20", "UNFINISHED_ALL_MAX = 256 << 40")],
        id="all together may send what they like",
    ),
    pytest.param(
        endless.endless_subscription,
        [(INTAKE, ", *self._channel.look()]", "]")],
        id="nobody looks at subscribers",
    ),
    pytest.param(
        endless.big_and_honest,
        [(WATCH, "connection.received, connection.heard_s = received, now_s", "pass")],
        id="who speaks is hung up on",
    ),
    pytest.param(
        descriptors.local_flood,
        [(DOOR, "> self._most:\n            connection", "> 9999:\n            connection")],
        id="all are let in by a socket file",
    ),
    pytest.param(
        words.evil_words,
        [("protocol/codec.py", "        message = clean(message)", "        pass")],
        id="words are taken as they are said",
    ),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what never comes here; rows on the whole copy (test_matrix.py) are patient."""
    for room in (stage, rows_hostile, descriptors, endless, ids):
        for name, late in (("LATE_S", LATE_S), ("LATE_MS", int(LATE_S * 1000))):
            if hasattr(room, name):
                monkeypatch.setattr(room, name, late)
    monkeypatch.setattr(wait_until, "__defaults__", (LATE_S,))
    monkeypatch.setattr(endless, "SENT_MAX", SENT_MAX)


@pytest.mark.parametrize(("row", "changes"), HOLES)
def test_a_hole_is_seen(
    row: Callable[[Path], None], changes: Sequence[Change], tmp_path: Path
) -> None:
    tree = broken_copy(tmp_path, *changes)
    (tmp_path / "row").mkdir()
    with scheduler_of(tree), pytest.raises(AssertionError):
        row(tmp_path / "row")
