"""Blobs at a node: asked for when a lease lacks them, there once, and its owner's alone."""

from hashlib import sha256
from typing import Any

from opening import start_lease
from worker_model import MEMORY, HandNode, assign

from burla.nodelet.core import effects as e
from burla.nodelet.core.blobs import ASKED_MAX, IDLE_MAX, KEPT_S, Blobs
from burla.nodelet.core.events import Reading
from burla.protocol import messages as m
from burla.protocol.arriving import STALLED_S, WRONG_MAX

MIB = 1 << 20
CONTENT = bytes(range(256)) * (10 * MIB // 256)  # three windows
ANNA, BERT = b"a" * 16, b"b" * 16
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def blob(content: bytes) -> m.Blob:
    return m.Blob(sha256(content).digest(), len(content))


class Kept:
    """Blobs of one node, and a shell that keeps their bytes."""

    def __init__(self, bytes_max: int = 1 << 30, idle_max: int = IDLE_MAX) -> None:
        self.effects: list[e.Effect] = []
        self.blobs = Blobs(bytes_max, self.effects, idle_max)
        self.kept: dict[int, bytes] = {}
        self.finished: list[int] = []
        self.now_s = 0.0

    def need(self, lease: bytes, *contents: bytes, owner: bytes = ANNA) -> tuple[int, ...]:
        start = start_lease(lease=lease, blobs=tuple(map(blob, contents)), owner=owner)
        return self.blobs.need(start, self.now_s)

    def take(self) -> list[m.Message]:
        """Carry out what is asked for; return what is said."""
        said = []
        for effect in self.effects:
            match effect:
                case e.KeepBlob():
                    had = self.kept.get(effect.number, b"")
                    assert len(had) == effect.start
                    self.kept[effect.number] = had + b"".join(effect.payload)
                case e.FinishBlob():
                    self.finished.append(effect.number)
                case e.DropBlob():
                    self.kept.pop(effect.number, None)
                case e.Send():
                    said.append(effect.message)
                case _:
                    assert isinstance(effect, e.Note)
        self.effects.clear()
        self.blobs.check()
        return said

    def answer(self, *contents: bytes) -> None:
        """Send what is asked for, until nothing is."""
        by_digest = {blob(content).digest: content for content in contents}
        asked = self.take()
        while asked:
            wanted = asked.pop(0)
            assert isinstance(wanted, m.BlobWanted)
            for at in range(wanted.start, wanted.stop, MIB):
                piece = by_digest[wanted.digest][at : min(at + MIB, wanted.stop)]
                said = m.BlobPiece(wanted.about, wanted.digest, at)
                self.blobs.take(said, [piece], self.now_s)
                asked += self.take()


def test_a_lease_has_all_when_all_has_come() -> None:
    one = Kept()
    (number,) = one.need(ONE, CONTENT)
    assert not one.blobs.has_all(ONE)
    one.answer(CONTENT)
    assert one.blobs.has_all(ONE)
    assert one.kept == {number: CONTENT}
    assert one.finished == [number]


def test_the_next_lease_of_the_owner_has_it_and_that_of_another_asks() -> None:
    one = Kept()
    one.need(ONE, CONTENT)
    one.answer(CONTENT)
    one.blobs.release(ONE, 1.0)
    assert one.need(TWO, CONTENT) == (1,)
    assert one.take() == []
    assert one.blobs.has_all(TWO)
    assert one.need(b"3" * 16, CONTENT, owner=BERT) == (2,)
    assert len(one.take()) == 1


def test_what_nobody_needs_goes_when_it_is_old_or_its_room_is_needed() -> None:
    one = Kept(bytes_max=25 * MIB)
    one.need(ONE, CONTENT)
    one.answer(CONTENT)
    one.blobs.release(ONE, 1.0)
    other = b"z" * 16 * MIB
    one.need(TWO, other)
    one.answer(other)
    assert list(one.kept) == [2]
    one.blobs.release(TWO, 2.0)
    one.blobs.settle(2.0 + KEPT_S)
    one.take()
    assert one.kept == {}


def test_what_is_half_here_when_its_lease_ends_goes_at_once() -> None:
    one = Kept()
    one.need(ONE, CONTENT)
    one.take()
    one.blobs.take(m.BlobPiece(ONE, blob(CONTENT).digest, 0), [CONTENT[:MIB]], 0.0)
    one.take()
    assert one.kept
    one.blobs.release(ONE, 1.0)
    one.take()
    assert one.kept == {}


def test_what_never_has_room_is_refused() -> None:
    one = Kept(bytes_max=MIB)
    one.need(ONE, CONTENT)
    (said,) = one.take()
    assert said == m.LeaseRefused(ONE, "it has no room for what the function refers to")
    assert not one.blobs.has_all(ONE)
    one.blobs.ask_again(1.0)
    assert one.take() == [said]
    one.blobs.release(ONE, 1.0)


def test_pieces_that_were_not_asked_for_change_nothing() -> None:
    one = Kept()
    digest = blob(CONTENT).digest
    one.blobs.take(m.BlobPiece(ONE, digest, 0), [b"x"], 0.0)
    one.need(ONE, CONTENT)
    one.take()
    one.blobs.take(m.BlobPiece(TWO, digest, 0), [b"x"], 0.0)
    one.blobs.take(m.BlobPiece(ONE, digest, MIB), [b"x"], 0.0)
    one.blobs.take(m.BlobPiece(ONE, b"?" * 32, 0), [b"x"], 0.0)
    assert one.take() == []
    assert one.kept == {}


def test_a_flipped_byte_is_noticed_and_all_is_asked_for_again() -> None:
    one = Kept()
    one.need(ONE, b"abcdef")
    digest = blob(b"abcdef").digest
    for _ in range(WRONG_MAX):
        assert one.take() == [m.BlobWanted(ONE, digest, 0, 6)]
        one.blobs.take(m.BlobPiece(ONE, digest, 0), [b"abcdeF"], 0.0)
    (said,) = one.take()
    assert isinstance(said, m.LeaseRefused)
    assert "other bytes each time" in said.why
    assert one.kept == {}


def test_what_does_not_come_is_asked_for_again() -> None:
    one = Kept()
    one.need(ONE, CONTENT)
    assert len(one.take()) == 1
    one.blobs.settle(STALLED_S - 0.1)
    assert one.take() == []
    one.blobs.settle(STALLED_S)
    assert one.take() == [m.BlobWanted(ONE, blob(CONTENT).digest, 0, m.BLOB_WINDOW)]
    one.blobs.ask_again(STALLED_S)  # a new connection
    assert one.take() == [m.BlobWanted(ONE, blob(CONTENT).digest, 0, m.BLOB_WINDOW)]


def test_a_few_are_asked_for_at_a_time() -> None:
    one = Kept()
    contents = [bytes([at]) * MIB for at in range(ASKED_MAX + 2)]
    one.need(ONE, *contents)
    assert len(one.effects) == ASKED_MAX
    one.answer(*contents)
    assert one.blobs.has_all(ONE)


def test_memory_that_cannot_be_had_is_told() -> None:
    one = Kept()
    (number,) = one.need(ONE, CONTENT)
    one.take()
    one.blobs.failed(number, "Cannot allocate memory")
    (said,) = one.take()
    assert isinstance(said, m.LeaseRefused)
    assert said.why == "what the function refers to cannot be kept: Cannot allocate memory"


def test_what_could_not_be_kept_is_asked_for_anew_by_the_next_lease() -> None:
    one = Kept()
    (number,) = one.need(ONE, b"model")
    one.answer(b"model")
    one.blobs.failed(number, "Too many open files")  # as the shell says: it wrote nothing
    (said,) = one.take()
    assert isinstance(said, m.LeaseRefused)
    one.blobs.release(ONE, 1.0)
    (again,) = one.need(TWO, b"model")
    assert again != number
    assert not one.blobs.has_all(TWO)
    one.answer(b"model")
    assert one.kept == {again: b"model"}


def test_what_cannot_be_kept_is_asked_for_no_more_by_a_lease_that_waits() -> None:
    one = Kept()
    number, _ = one.need(ONE, CONTENT, b"model")
    one.need(TWO, CONTENT)
    one.take()
    one.blobs.failed(number, "Cannot allocate memory")
    assert [type(said) for said in one.take()] == [m.LeaseRefused] * 2
    one.blobs.take(m.BlobPiece(ONE, blob(CONTENT).digest, 0), [CONTENT[:MIB]], 0.0)
    one.blobs.settle(STALLED_S)
    assert one.take() == []
    assert one.kept == {}


def test_a_lease_waits_for_the_room_of_another_that_ends() -> None:
    one = Kept(bytes_max=16 * MIB)
    one.need(ONE, CONTENT)
    one.answer(CONTENT)
    other = CONTENT[::-1]
    one.need(TWO, other, owner=BERT)
    assert one.take() == []
    assert not one.blobs.has_all(TWO)
    one.blobs.ask_again(1.0)
    one.blobs.settle(1.0 + STALLED_S)
    assert one.take() == []
    one.blobs.release(ONE, 2.0)
    one.answer(other)
    assert one.blobs.has_all(TWO)
    assert one.kept == {2: other}


def test_leases_get_room_in_turn_even_if_a_later_one_has_all() -> None:
    one = Kept(bytes_max=16 * MIB)
    small, large, first = b"s" * MIB, b"l" * 16 * MIB, b"f" * MIB
    one.need(b"0" * 16, small)
    one.answer(small)
    one.blobs.release(b"0" * 16, 0.0)
    one.need(ONE, first)
    one.answer(first)
    one.need(TWO, large)
    (number,) = one.need(THREE, small)
    assert not one.blobs.has_all(THREE), "else the large one never had room"
    one.blobs.release(ONE, 1.0)
    one.answer(large)
    assert one.blobs.has_all(TWO)
    assert not one.blobs.has_all(THREE)
    one.blobs.release(TWO, 2.0)
    one.answer(small)
    assert one.blobs.has_all(THREE)
    assert one.kept == {number: small}


def test_a_few_that_nobody_needs_are_kept() -> None:
    one = Kept(idle_max=2)
    contents = [bytes([at]) for at in range(4)]
    numbers = one.need(ONE, *contents)
    one.answer(*contents)
    assert len(one.kept) == 4
    one.blobs.release(ONE, 1.0)
    one.take()
    assert tuple(one.kept) == numbers[2:]


# --- in the nodelet ---

NEEDS: dict[str, Any] = {"lease": ONE, "blobs": (blob(b"model"),), "owner": ANNA}


def begun(node: HandNode) -> list[e.BeginLease]:
    return [effect for effect in node.effects if isinstance(effect, e.BeginLease)]


def send_model(node: HandNode, content: bytes = b"model") -> None:
    node.hear(m.BlobPiece(ONE, blob(b"model").digest, 0), [content])


def test_a_lease_begins_when_it_has_all() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    assert m.BlobWanted(ONE, blob(b"model").digest, 0, 5) in node.said()
    node.hear(*assign((0, 2), lease=ONE))
    assert begun(node) == []
    send_model(node)
    (begin,) = begun(node)
    assert begin.blobs == (1,)
    node.load()
    assert node.assigned() == [(0, 1), (1, 2)]
    node.core.check()


def test_a_lease_that_ends_while_it_waits_is_stopped_and_leaves_nothing() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    node.hear(m.EndLease(ONE, discard=True))
    assert m.Stopped(ONE) in node.said()
    send_model(node)
    assert begun(node) == []
    assert not any(isinstance(effect, e.KeepBlob) for effect in node.effects)
    node.core.check()


def test_workers_that_linger_go_on_only_if_all_is_here() -> None:
    node = HandNode()
    node.serve(lease=TWO)
    node.load()
    node.hear(m.Linger(TWO))
    node.hear(start_lease(keep=TWO, **NEEDS), [b"function"])
    assert len(begun(node)) == 1
    node.end()
    send_model(node)
    assert [begin.keep for begin in begun(node)] == [False, False]


def test_the_next_lease_of_the_loop_goes_on_at_once() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    send_model(node)
    node.load()
    node.hear(m.Linger(ONE))
    node.said()
    node.hear(start_lease(keep=ONE, **NEEDS | {"lease": TWO}), [b"function"])
    assert [begin.keep for begin in begun(node)] == [False, True]
    assert not any(isinstance(message, m.BlobWanted) for message in node.said())


def test_a_node_asks_again_when_it_is_welcomed_by_another_life_of_the_scheduler() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    node.said()
    node.hear(m.Welcome(b"another life of it", "0", "pub"))
    assert m.BlobWanted(ONE, blob(b"model").digest, 0, 5) in node.said()


def test_a_node_that_is_short_of_memory_lets_go_of_what_no_lease_needs() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    send_model(node)
    node.load()
    reading = Reading(total=MEMORY, available=1)
    node.tell(reading)
    assert not any(isinstance(effect, e.DropBlob) for effect in node.effects)
    node.hear(m.EndLease(ONE, discard=True))
    node.end()
    node.hear(start_lease(lease=TWO), [b"function"])
    node.load()
    node.tell(reading)
    assert any(isinstance(effect, e.DropBlob) for effect in node.effects)


def test_the_state_dump_shows_blobs() -> None:
    node = HandNode()
    node.serve(**NEEDS)
    found = node.core.snapshot()["blobs"]
    assert isinstance(found, dict)
    assert [each["bytes_here"] for each in found["blobs"]] == [0]


def test_a_lease_that_comes_while_another_ends_is_not_refused_for_its_room() -> None:
    node = HandNode()
    node.core._blobs._bytes_max = 8
    node.serve(**NEEDS)
    send_model(node)
    node.load()
    node.hear(m.Linger(ONE))
    node.said()
    node.hear(m.EndLease(ONE, discard=False))  # both at once, when another user gets the node
    other: dict[str, Any] = {"lease": TWO, "blobs": (blob(b"other"),), "owner": BERT}
    node.hear(start_lease(**other), [b"function"])
    assert not any(isinstance(said, m.LeaseRefused | m.BlobWanted) for said in node.said())
    node.end()
    assert m.BlobWanted(TWO, blob(b"other").digest, 0, 5) in node.said()
    node.hear(m.BlobPiece(TWO, blob(b"other").digest, 0), [b"other"])
    assert len(begun(node)) == 2
    node.core.check()
