"""Blobs at the scheduler: asked of a client once, passed on to all nodes, each user's alone."""

from collections.abc import ValuesView
from hashlib import sha256
from typing import Any

import pytest
from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m
from burla.protocol.arriving import STALLED_S, WRONG_MAX
from burla.protocol.blob_messages import BLOBS
from burla.scheduler.core.blob_table import IDLE_MAX, TENANT_SHARE, Name, Stored
from burla.scheduler.core.blobs import ASKED_MAX, KEPT_S
from burla.scheduler.core.effects import DropBlob, Effect, KeepBlob, Send, SendBlob
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.upkeep import WAIT_SAID_S

MIB = 1 << 20
CONTENT = bytes(range(256)) * (10 * MIB // 256)  # three windows
OTHER = b"other" * 100


def blob(content: bytes, kind: m.BlobKind = m.BlobKind.PART) -> m.Blob:
    return m.Blob(sha256(content).digest(), len(content), kind)


class World:
    """One scheduler, and whoever speaks to it under keys."""

    def __init__(self) -> None:
        self.core = Scheduler(bytes(16), "0", "pub")
        self.now_s = 0.0
        self.effects: list[Effect] = []
        self.kept: dict[int, bytes] = {}  # what the shell has of each blob

    def say(
        self, peer: str, message: m.Message, payload: tuple[bytes, ...] = (), user: str = ""
    ) -> list[Effect]:
        key = user or peer.rstrip("0123456789")
        done = self.core.receive(peer.encode(), message, list(payload), self.now_s, key)
        return self.note(done)

    def note(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            match effect:
                case KeepBlob():
                    had = self.kept.get(effect.number, b"")
                    assert len(had) == effect.start, "a gap"
                    self.kept[effect.number] = had + b"".join(effect.payload)
                case DropBlob():
                    self.kept.pop(effect.number, None)
                case _:
                    pass
        self.core.check()
        self.effects = effects
        return effects

    def later(self, seconds: float) -> list[Effect]:
        self.now_s += seconds
        for peer in list(self.core.state.peers):
            who = self.core.state.peers[peer]
            self.core.receive(peer, m.Heartbeat(), [], self.now_s, who.user)
        return self.note(self.core.expire(self.now_s))

    def client(self, name: str = "anna1") -> None:
        self.say(name, client_hello(name.encode().ljust(16)))

    def node(self, name: str = "node1", **more: Any) -> None:
        hello = node_hello(name.encode().ljust(16), **({"name": name, "features": (BLOBS,)} | more))
        self.say(name, hello)

    def open(self, job: bytes, *blobs: m.Blob, client: str = "anna1", **more: Any) -> None:
        said = open_job(job, blobs=blobs, **more)
        self.say(client, said, (b"function",))
        before = self.effects
        leaf = m.Leaf(0, 0, 4, 1)
        self.say(client, m.Inputs(job=job, batch=0, start=0, leaves=(leaf,), total=4), (b"x",))
        self.effects = before + self.effects

    def asked(self, peer: str = "anna1") -> list[m.BlobWanted]:
        sent = [e.message for e in self.effects if isinstance(e, Send) and e.peer == peer.encode()]
        return [message for message in sent if isinstance(message, m.BlobWanted)]

    def answer(self, content: bytes, client: str = "anna1", limit: int = 1 << 60) -> None:
        """Answer what was asked of a client, and what is asked then, up to `limit`."""
        asked = self.asked(client)
        while asked:
            wanted = asked.pop(0)
            for at in range(wanted.start, min(wanted.stop, limit), MIB):
                piece = content[at : min(at + MIB, wanted.stop)]
                self.say(client, m.BlobPiece(wanted.about, wanted.digest, at), (piece,))
                asked += self.asked(client)

    def leased(self) -> list[m.StartLease]:
        sent = [e.message for e in self.effects if isinstance(e, Send)]
        return [message for message in sent if isinstance(message, m.StartLease)]

    def sent(self) -> list[tuple[str, int, int]]:
        """Return what is to be sent of blobs: to whom, from where on, up to where."""
        found = [e for e in self.effects if isinstance(e, SendBlob)]
        return [(e.peer.decode(), e.message.start, e.stop) for e in found]

    def failed(self) -> list[str]:
        sent = [e.message for e in self.effects if isinstance(e, Send)]
        return [message.text for message in sent if isinstance(message, m.JobFailed)]

    def waiting(self) -> list[str]:
        sent = [e.message for e in self.effects if isinstance(e, Send)]
        return [message.waiting for message in sent if isinstance(message, m.JobStatus)]


A, B, C = b"A" * 16, b"B" * 16, b"C" * 16


def test_a_blob_is_asked_for_in_windows_and_kept() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    assert [(w.start, w.stop) for w in world.asked()] == [(0, m.BLOB_WINDOW)]
    world.answer(CONTENT)
    assert list(world.kept.values()) == [CONTENT]


def test_the_next_job_of_the_same_user_sends_nothing_even_of_another_process() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.answer(CONTENT)
    world.say("anna1", m.CloseJob(A))
    world.open(B, blob(CONTENT))
    assert not world.asked()
    world.client("anna2")
    world.open(C, blob(CONTENT), client="anna2")
    assert not world.asked("anna2")


def test_another_user_has_to_send_it() -> None:
    world = World()
    world.client()
    world.client("bert1")
    world.open(A, blob(CONTENT))
    world.answer(CONTENT)
    world.open(B, blob(CONTENT), client="bert1")
    assert world.asked("bert1"), "else bert knew that somebody has sent it"
    assert len(world.core.state.blobs.by_name) == 2


def test_nodes_get_it_as_it_comes_and_the_client_sends_it_once() -> None:
    world = World()
    world.client()
    world.node("node1")
    world.node("node2")
    world.open(A, blob(CONTENT))
    leases = {start.lease: start for start in world.leased()}
    assert len(leases) == 2
    one, two = leases
    assert leases[one].blobs == (blob(CONTENT),)
    digest = blob(CONTENT).digest
    asked = world.asked()
    world.say("node1", m.BlobWanted(one, digest, 0, m.BLOB_WINDOW))
    assert world.sent() == []
    world.say("anna1", m.BlobPiece(A, digest, 0), (CONTENT[:MIB],))
    assert world.sent() == [("node1", 0, MIB)]
    world.say("node2", m.BlobWanted(two, digest, 0, m.BLOB_WINDOW))
    assert world.sent() == [("node2", 0, MIB)]
    world.say("anna1", m.BlobPiece(A, digest, MIB), (CONTENT[MIB : 2 * MIB],))
    assert sorted(world.sent()) == [("node1", MIB, 2 * MIB), ("node2", MIB, 2 * MIB)]
    # a node that has half of what it asked for asks for more: without a gap to what is not here yet
    world.say("node1", m.BlobWanted(one, digest, m.BLOB_WINDOW, m.BLOB_WINDOW + 2 * MIB))
    world.say("anna1", m.BlobPiece(A, digest, 2 * MIB), (CONTENT[2 * MIB : 3 * MIB],))
    assert sorted(world.sent()) == [("node1", 2 * MIB, 3 * MIB), ("node2", 2 * MIB, 3 * MIB)]
    assert [w.start for w in asked] == [0]


def test_who_waits_for_it_is_told() -> None:
    world = World()
    world.client()
    world.node()
    world.open(A, blob(CONTENT))
    (start,) = world.leased()
    world.say("node1", m.BlobWanted(start.lease, blob(CONTENT).digest, 0, MIB))
    world.later(WAIT_SAID_S)
    assert world.waiting() == [
        "the 10.5 MB that its function refers to are on the way to node node1"
    ]
    world.say("node1", m.BlobWanted(start.lease, blob(CONTENT).digest, 9 * MIB, 10 * MIB))
    stored = world.core.state.blobs.of("anna", blob(CONTENT))
    assert stored is not None
    stored.arriving.forget_asked()
    world.later(0.25)  # asks again
    world.answer(CONTENT)
    assert world.core.state.jobs[A].said == ""


@pytest.mark.parametrize(
    ("who", "about", "start"),
    [("bert1", A, 0), ("anna1", B, 0), ("anna1", A, MIB), ("anna2", A, 0)],
)
def test_pieces_that_nobody_asked_for_change_nothing(who: str, about: bytes, start: int) -> None:
    world = World()
    for name in ("anna1", "anna2", "bert1"):
        world.client(name)
    world.open(A, blob(CONTENT))
    world.say(who, m.BlobPiece(about, blob(CONTENT).digest, start), (b"x" * MIB,))
    assert world.kept == {}
    world.say("anna1", m.BlobPiece(A, blob(OTHER).digest, 0), (OTHER,))
    assert world.kept == {}


def test_other_bytes_are_asked_for_again_and_fail_the_job_in_the_end() -> None:
    world = World()
    world.client()
    world.open(A, blob(OTHER))
    wrong = b"X" + OTHER[1:]
    for _ in range(WRONG_MAX):
        assert [w.start for w in world.asked()] == [0]
        world.say("anna1", m.BlobPiece(A, blob(OTHER).digest, 0), (wrong,))
        assert world.kept == {}
    assert "changed in transit" in world.failed()[0]
    assert not world.asked()


def test_what_a_node_may_not_ask_for() -> None:
    world = World()
    world.client()
    world.node("node1")
    world.node("node2")
    world.open(A, blob(CONTENT), max_parallelism=2)
    (start,) = world.leased()
    serves = world.core.state.nodes[world.core.state.leases[start.lease].node].peer.decode()
    other = {"node1": "node2", "node2": "node1"}[serves]
    world.answer(CONTENT)
    digest = blob(CONTENT).digest
    for node, lease, of, lo, hi in (
        (other, start.lease, digest, 0, MIB),  # another's lease
        (serves, b"?" * 16, digest, 0, MIB),
        (serves, start.lease, blob(OTHER).digest, 0, MIB),  # not of its job
        (serves, start.lease, digest, 0, len(CONTENT) + 1),
        (serves, start.lease, digest, 0, 2 * m.BLOB_WINDOW),
        (serves, start.lease, digest, MIB, MIB),
    ):
        world.say(node, m.BlobWanted(lease, of, lo, hi))
        assert world.sent() == [], (node, lo, hi)
    world.say(serves, m.BlobWanted(start.lease, digest, 0, MIB))
    assert world.sent() == [(serves, 0, MIB)]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.answer(CONTENT, limit=2 * MIB)
    assert len(world.kept) == 1
    world.say("anna1", m.CloseJob(A))
    assert world.kept == {}
    assert world.core.state.blobs.size == 0


def test_a_client_that_reconnects_goes_on_where_it_was() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    digest = blob(CONTENT).digest
    world.say("anna1", m.BlobPiece(A, digest, 0), (CONTENT[:MIB],))
    world.say("anna9", client_hello(b"anna1".ljust(16)), user="anna")
    world.say("anna9", open_job(A, blobs=(blob(CONTENT),), resumed=True), (b"f",), user="anna")
    assert [w.start for w in world.asked("anna9")] == [MIB]


def test_another_process_of_the_user_is_asked_when_the_first_is_gone() -> None:
    world = World()
    world.client()
    world.client("anna2")
    world.open(A, blob(CONTENT))
    world.say("anna1", m.BlobPiece(A, blob(CONTENT).digest, 0), (CONTENT[:MIB],))
    world.open(B, blob(CONTENT), client="anna2")
    assert not world.asked("anna2")
    world.say("anna1", m.CloseJob(A))
    assert [(w.about, w.start) for w in world.asked("anna2")] == [(B, MIB)]


def test_what_does_not_come_is_asked_for_again() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.say("anna1", m.BlobPiece(A, blob(CONTENT).digest, 0), (CONTENT[:MIB],))
    world.later(STALLED_S)
    assert [w.start for w in world.asked()] == [MIB]


def test_what_waits_behind_another_blob_of_a_slow_client_is_not_sent_twice() -> None:
    world = World()
    world.client()
    other = bytes(reversed(CONTENT))
    world.open(A, blob(CONTENT), blob(other))
    assert {w.digest for w in world.asked()} == {blob(CONTENT).digest, blob(other).digest}
    world.later(STALLED_S - 1)
    world.say("anna1", m.BlobPiece(A, blob(CONTENT).digest, 0), (CONTENT[:MIB],))
    world.later(STALLED_S - 1)
    assert blob(other).digest not in {w.digest for w in world.asked()}
    world.later(2)
    assert blob(other).digest in {w.digest for w in world.asked()}


def test_a_scheduler_that_was_started_again_asks_only_for_what_a_node_lacks() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT), resumed=True)
    assert not world.asked()
    world.node()
    world.later(6.0)
    (start,) = world.leased()
    assert not world.asked()
    world.say("node1", m.BlobWanted(start.lease, blob(CONTENT).digest, 0, MIB))
    assert [w.start for w in world.asked()] == [0]


def test_one_client_is_asked_for_a_few_at_a_time() -> None:
    world = World()
    world.client()
    contents = [bytes([n]) * 5 * MIB for n in range(ASKED_MAX + 2)]
    world.open(A, *map(blob, contents))
    by_digest = {blob(content).digest: content for content in contents}
    asked = world.asked()
    assert len({w.digest for w in asked}) == ASKED_MAX
    while asked:
        wanted = asked.pop(0)
        content = by_digest[wanted.digest]
        for at in range(wanted.start, wanted.stop, MIB):
            piece = content[at : min(at + MIB, wanted.stop)]
            world.say("anna1", m.BlobPiece(A, wanted.digest, at), (piece,))
            asked += world.asked()
    assert world.core.state.jobs[A].lacks == 0


def test_what_no_job_needs_goes_after_a_while() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.answer(CONTENT)
    world.say("anna1", m.CloseJob(A))
    world.later(KEPT_S - 1)
    assert world.kept
    world.later(1)
    assert world.kept == {}


def test_the_oldest_goes_when_its_room_is_needed() -> None:
    world = World()
    world.core.state.blobs.bytes_max = 5 * MIB
    world.client()
    for job, at in ((A, 1), (B, 2), (C, 3)):
        content = bytes([at]) * 2 * MIB
        world.open(job, blob(content))
        world.answer(content)
        world.say("anna1", m.CloseJob(job))
        world.now_s += 1
    assert [content[:1] for content in world.kept.values()] == [b"\x02", b"\x03"]


def test_a_job_waits_for_room_and_is_told() -> None:
    world = World()
    world.core.state.blobs.bytes_max = 5 * MIB
    for name in ("anna1", "bert1", "carl1"):
        world.client(name)
    world.node()
    sizes = {"anna1": 2 * MIB, "bert1": 2 * MIB, "carl1": 2 * MIB}
    for name, job in (("anna1", A), ("bert1", B), ("carl1", C)):
        world.open(job, blob(name[:1].encode() * sizes[name]), client=name)
    assert not world.asked("carl1")
    world.later(WAIT_SAID_S)
    assert any("waiting for room" in text for text in world.waiting())
    world.say("anna1", m.CloseJob(A))
    assert [w.about for w in world.asked("carl1")] == [C]


def test_what_never_has_room_fails() -> None:
    world = World()
    world.core.state.blobs.bytes_max = 5 * MIB
    world.client()
    world.open(A, blob(bytes(5 * MIB // TENANT_SHARE + 1)))
    assert "the function refers to 2,621,441 bytes" in world.failed()[0]


def test_a_node_without_room_is_not_leased() -> None:
    world = World()
    world.client()
    world.node(ram=len(CONTENT))
    world.open(A, blob(CONTENT))
    assert not world.leased()
    world.later(WAIT_SAID_S)
    assert any("room for 0.01 GB" in text for text in world.waiting())


def test_a_node_of_the_last_version_gets_the_function_whole_when_all_is_here() -> None:
    world = World()
    world.client()
    world.node(features=())
    world.open(A, blob(CONTENT))
    assert not world.leased()
    wanted = world.asked()
    digest = blob(CONTENT).digest
    sent: list[Send] = []
    while wanted:
        part = wanted.pop(0)
        for at in range(part.start, part.stop, MIB):
            world.say("anna1", m.BlobPiece(A, digest, at), (CONTENT[at : at + MIB],))
            wanted += world.asked()
            sent += [e for e in world.effects if isinstance(e, Send) and e.blobs]
    (start,) = sent
    assert isinstance(start.message, m.StartLease)
    assert (start.message.blobs, start.message.owner) == ((), b"")
    assert world.kept[start.blobs[0]] == CONTENT


def test_a_full_disk_fails_the_job_and_the_next_one_may_be_served() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.note(world.core.blob_lost(1, "No space left on device", world.now_s))
    assert world.failed() == [
        "the scheduler cannot keep what the function refers to: No space left on device"
    ]
    world.say("anna1", m.CloseJob(A))
    world.open(B, blob(CONTENT))
    world.answer(CONTENT)
    assert list(world.kept.values()) == [CONTENT]


def test_a_node_that_cannot_serve_fails_the_job_of_its_lease_only() -> None:
    world = World()
    world.client()
    world.node()
    world.node("node2")
    world.open(A, blob(CONTENT), max_parallelism=1)
    (start,) = world.leased()
    peer = world.core.state.nodes[world.core.state.leases[start.lease].node].peer.decode()
    other = "node2" if peer == "node1" else "node1"
    world.say(other, m.LeaseRefused(start.lease, "no memory"))
    assert world.failed() == []
    world.say(peer, m.LeaseRefused(start.lease, "no memory"))
    assert world.failed() == [f"node {peer} cannot serve this job: no memory"]


def test_a_node_that_is_lost_in_the_middle_is_sent_nothing_more() -> None:
    world = World()
    world.client()
    world.node()
    world.open(A, blob(CONTENT))
    (start,) = world.leased()
    digest = blob(CONTENT).digest
    world.say("node1", m.BlobWanted(start.lease, digest, 0, m.BLOB_WINDOW))
    world.note(world.core.unreachable(b"node1", world.now_s))
    world.now_s += 1.0
    world.note(world.core.expire(world.now_s))
    assert not world.core.state.nodes
    world.say("anna1", m.BlobPiece(A, digest, 0), (CONTENT[:MIB],))
    assert world.sent() == []


def test_the_state_dump_shows_blobs_without_their_bytes() -> None:
    world = World()
    world.client()
    world.open(A, blob(CONTENT))
    world.answer(CONTENT, limit=MIB)
    found = world.core.snapshot(world.now_s)["blobs"]
    assert isinstance(found, list)
    assert (found[0]["bytes"], found[0]["bytes_here"]) == (len(CONTENT), MIB)


def named(job: bytes, count: int) -> list[bytes]:
    return [b"%s-%d" % (job, at) for at in range(count)]


def serve(world: World, job: bytes, contents: list[bytes], client: str = "anna1") -> None:
    """Open a job whose client sends all that it is asked for."""
    by_digest = {blob(content).digest: content for content in contents}
    world.open(job, *map(blob, contents), client=client)
    asked = world.asked(client)
    while asked:
        part = asked.pop(0)
        world.say(client, m.BlobPiece(part.about, part.digest, 0), (by_digest[part.digest],))
        asked += world.asked(client)


def test_a_loop_of_changing_parts_leaves_a_bounded_number_of_them() -> None:
    world = World()
    world.client()
    for number in range(IDLE_MAX // m.BLOBS_MAX + 1):
        job = b"%016d" % number
        serve(world, job, named(job, m.BLOBS_MAX))
        assert world.core.state.jobs[job].lacks == 0
        world.say("anna1", m.CloseJob(job))
    assert len(world.kept) == IDLE_MAX
    assert b"%016d-0" % 0 not in world.kept.values(), "the oldest go first"
    assert job + b"-0" in world.kept.values()


def test_a_job_waits_until_its_tenant_needs_fewer() -> None:
    world = World()
    world.core.state.blobs.number_max = 8
    world.client()
    world.client("bert1")
    world.node()
    serve(world, A, named(A, 3))
    serve(world, B, named(B, 2))
    assert not world.core.state.jobs[B].has_room
    serve(world, C, named(C, 4), client="bert1")
    assert world.core.state.jobs[C].has_room, "what another tenant needs is nothing to it"
    world.later(WAIT_SAID_S)
    assert any("waiting for room" in text for text in world.waiting())
    world.say("anna1", m.CloseJob(A))
    assert world.core.state.jobs[B].has_room
    assert {w.about for w in world.asked()} == {B}


def test_the_oldest_goes_when_its_descriptor_is_needed() -> None:
    world = World()
    world.core.state.blobs.number_max = 4
    world.client()
    world.client("bert1")
    serve(world, A, named(A, 2))
    world.say("anna1", m.CloseJob(A))
    serve(world, B, named(B, 2))
    serve(world, C, named(C, 1), client="bert1")
    assert list(world.kept.values()) == [*named(A, 2)[1:], *named(B, 2), *named(C, 1)]


def test_a_job_that_alone_names_too_many_fails() -> None:
    world = World()
    world.core.state.blobs.number_max = 8
    world.client()
    world.open(A, *map(blob, named(A, 5)))
    assert world.failed()[0].startswith(
        "the function refers to 5 big objects or files, and this cluster keeps at most 4 of them"
    )


class Walked(dict[Name, Stored]):
    """A table that counts how often somebody goes through all of it."""

    count = 0

    def values(self) -> ValuesView[Stored]:  # type: ignore[override]
        self.count += 1
        return super().values()


def test_a_turn_goes_through_the_blobs_a_few_times_however_many_there_are() -> None:
    world = World()
    world.client()
    walked = world.core.state.blobs.by_name = Walked()
    for job in (A, B, C):
        world.open(job, *map(blob, named(job, m.BLOBS_MAX)))
    before, check = walked.count, world.core.check
    world.core.check = lambda: None  # type: ignore[method-assign]
    world.later(0.25)
    world.say("anna1", m.CloseJob(B))
    world.core.check = check  # type: ignore[method-assign]
    assert walked.count - before < 10
    world.core.check()


def test_another_client_is_not_asked_for_more_when_one_has_sent_something() -> None:
    world = World()
    world.client()
    world.client("bert1")
    world.open(A, *map(blob, named(A, ASKED_MAX + 1)))
    (first, *_) = world.asked()
    world.open(B, *map(blob, named(B, ASKED_MAX + 1)), client="bert1")
    assert len(world.asked("bert1")) == ASKED_MAX
    world.say("anna1", m.BlobPiece(A, first.digest, 0), (named(A, 1)[0],))
    assert (len(world.asked()), len(world.asked("bert1"))) == (1, 0)


def test_a_client_goes_on_with_its_next_job_when_one_has_all() -> None:
    world = World()
    world.client()
    world.open(A, *map(blob, named(A, ASKED_MAX)))
    asked = world.asked()
    world.open(B, *map(blob, named(B, ASKED_MAX)))
    assert not world.asked()
    for part, content in zip(asked, named(A, ASKED_MAX), strict=True):
        world.say("anna1", m.BlobPiece(A, part.digest, 0), (content,))
        assert [w.about for w in world.asked()] == [B]


def test_a_resumed_job_gets_its_blobs_whole_if_only_older_nodes_are_there() -> None:
    world = World()
    world.client()
    world.node(features=())
    world.open(A, blob(OTHER), resumed=True)
    assert not world.asked()
    hold_s = world.core.state.jobs[A].hold_until_s
    world.later(hold_s - world.now_s)
    world.answer(OTHER)
    assert world.core.state.jobs[A].lacks == 0
    assert list(world.kept.values()) == [OTHER]
