"""docs/PROTOCOL.md says what the code does."""

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any, get_args

import msgpack
import msgspec
import pytest

from burla.protocol import (
    admin_messages as am,
    job_messages as jm,
    key_messages as km,
    messages as m,
    output_messages as om,
    overview_messages as ov,
    store_messages as sm,
)
from burla.protocol.mac import seal

PAGE = (Path(__file__).parents[3] / "docs" / "PROTOCOL.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)`( \*)? \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = {name: (bool(star), way, fields) for name, star, way, fields in ROW.findall(PAGE)}

MESSAGES = {
    kind.__name__: kind
    for module in (m, am, km, jm, om, ov, sm)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, m.Message) and kind not in (m.Message, m.Bulk)
}
# What stands in the second column, and the unions that such a message is in.
WAYS: dict[str, list[Any]] = {
    "any -> any": [m.ClientToScheduler, m.SchedulerToClient, m.NodeletToScheduler],
    "client -> scheduler": [m.ClientToScheduler],
    "client -> scheduler -> nodelet": [m.ClientToScheduler, m.SchedulerToNodelet],
    "client or nodelet -> scheduler": [m.ClientToScheduler, m.NodeletToScheduler],
    "nodelet -> scheduler -> client": [m.NodeletToScheduler, m.SchedulerToClient],
    "autoscaler -> scheduler": [am.AdminToScheduler],
    "administrator -> scheduler": [am.AdminToScheduler],
    "scheduler -> administrator": [am.SchedulerToAdmin],
    "scheduler -> client or administrator": [am.SchedulerToAdmin],
    "scheduler -> any": [
        m.SchedulerToClient,
        m.SchedulerToNodelet,
        m.SchedulerToAutoscaler,
        am.SchedulerToAdmin,
    ],
    "scheduler -> client or nodelet": [m.SchedulerToClient, m.SchedulerToNodelet],
    "scheduler -> client": [m.SchedulerToClient],
    "scheduler -> autoscaler": [m.SchedulerToAutoscaler],
    "scheduler -> nodelet": [m.SchedulerToNodelet],
    "scheduler -> joining nodelet": [m.SchedulerToJoining],
    "nodelet -> scheduler": [m.NodeletToScheduler],
    "joining nodelet -> scheduler": [m.Join | None],  # a union has two
    "in the store": [],  # of a scheduler, in its files
}


def test_every_message_is_listed_in_order() -> None:
    assert list(ROWS) == list(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_has_its_fields_on_the_page(name: str) -> None:
    star, _, fields = ROWS[name]
    has = [field.name for field in msgspec.structs.fields(MESSAGES[name])]
    assert star == issubclass(MESSAGES[name], m.Bulk)
    assert [*(["piece", "pieces"] if star else []), *re.findall(r"`(\w+)`", fields)] == has


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_goes_the_way_that_the_page_says(name: str) -> None:
    assert all(MESSAGES[name] in get_args(union) for union in WAYS[ROWS[name][1]])


def example() -> dict[str, str]:
    """Return the example of a seal, name by name."""
    section = PAGE[PAGE.index("* **Seals**") :]
    block = section.split("```")[1]
    return dict(line.split() for line in block.strip().splitlines())


def test_the_example_of_a_seal_is_what_the_code_makes() -> None:
    said = {name: bytes.fromhex(text) for name, text in example().items() if len(text) > 1}
    seq, output = int(example()["seq"]), int(example()["output"])
    outcomes = m.JobOutcomes(
        job=b"j" * 16,
        lease=said["lease"],
        seq=seq,
        node="n",
        runs=said["runs"],
        output=output,
    )
    assert seal(said["secret"], outcomes, [said["frame"]]) == said["seal"]


def test_the_example_of_a_seal_follows_from_the_words_around_it() -> None:
    said = {name: bytes.fromhex(text) for name, text in example().items() if len(text) > 1}
    seq, output = int(example()["seq"]), int(example()["output"])
    facts = msgpack.packb([said["lease"], seq, output, said["runs"], [len(said["frame"])]])
    assert facts == said["facts"]
    sealed = len(facts).to_bytes(8, "big") + facts + said["frame"]
    assert hmac.digest(said["secret"], sealed, hashlib.sha256)[:16] == said["seal"]
