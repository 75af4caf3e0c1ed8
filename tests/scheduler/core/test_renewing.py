"""Keys that change in the middle of jobs: who is told what, and who is let on."""

from opening import client_hello, node_hello

from burla.protocol import admin_messages as am, messages as m
from burla.protocol.key_messages import KEYS, RenewKey, ServerKey
from burla.scheduler.core.effects import Effect, Send
from burla.scheduler.core.node import UNREACHABLE_S
from burla.scheduler.core.renewing import BACK_S
from burla.scheduler.core.scheduler import Scheduler

CLIENT, OLD_CLIENT, NODE, OLD_NODE = b"client", b"old client", b"node", b"old node"
NEXT = ServerKey(b"k" * 32, 100.0)


def told(effects: list[Effect]) -> list[tuple[bytes, m.Message]]:
    return [(e.peer, e.message) for e in effects if isinstance(e, Send)]


def scheduler() -> Scheduler:
    """Return one with a client and a node of now, and of a burla that knows nothing of this."""
    core = Scheduler(bytes(16), "0", "pub")
    core.receive(CLIENT, client_hello(b"c" * 16, features=(KEYS,)), [], 0.0, "user")
    core.receive(OLD_CLIENT, client_hello(b"d" * 16), [], 0.0, "other")
    core.receive(NODE, node_hello(b"n" * 16, name="n", features=(KEYS,)), [], 0.0, "key-n")
    core.receive(OLD_NODE, node_hello(b"o" * 16, name="o"), [], 0.0, "key-o")
    return core


def test_the_next_key_is_told_to_who_knows_such_words_now_and_with_each_welcome() -> None:
    core = scheduler()
    assert told(core.announce_key(NEXT, 1.0)) == [(CLIENT, NEXT), (NODE, NEXT)]
    for hello, is_told in (
        (client_hello(b"e" * 16, features=(KEYS,)), True),
        (client_hello(b"f" * 16), False),
        (node_hello(b"p" * 16, features=(KEYS,)), True),
        (node_hello(b"q" * 16), False),
    ):
        said = [message for _, message in told(core.receive(b"new", hello, [], 1.0, "u"))]
        assert (NEXT in said) == is_told
    core.check()


def ask(core: Scheduler, name: str) -> list[tuple[bytes, m.Message]]:
    said = am.ManageKeys(am.KeyOperation.ROTATE_NODE, user=name)
    return told(core.receive(CLIENT, said, [], 1.0, "user"))


def test_a_node_renews_its_key_and_who_asked_hears_when_it_is_back() -> None:
    core = scheduler()
    assert ask(core, "n") == [(NODE, RenewKey())]
    core.key_taken(NODE, "key-n2", 1.0)
    core.unreachable(NODE, 1.0)  # it connects anew, and may take longer than others
    core.expire(1.0 + 2 * UNREACHABLE_S)
    assert b"n" * 16 in core.state.nodes
    hello = node_hello(b"n" * 16, name="n", features=(KEYS,))
    said = told(core.receive(b"again", hello, [], 3.0, "key-n2"))
    assert (CLIENT, am.KeysManaged(total=1)) in said
    assert isinstance(dict(said)[b"again"], m.Welcome)
    assert core.state.nodes[b"n" * 16].user == "key-n2"
    # from now on it is that key's
    refused = told(core.receive(b"thief", hello, [], 4.0, "key-n"))
    assert isinstance(dict(refused)[b"thief"], m.Refused)
    core.check()


def test_one_that_does_not_come_back_is_lost_after_all() -> None:
    core = scheduler()
    ask(core, "n")
    core.key_taken(NODE, "key-n2", 1.0)
    core.unreachable(NODE, 1.0)
    core.note_heard(OLD_NODE, BACK_S, "key-o")
    core.expire(1.0 + BACK_S)
    assert b"n" * 16 not in core.state.nodes


def test_under_the_old_key_it_is_still_welcome_while_that_counts() -> None:
    """Its answer may have been lost."""
    core = scheduler()
    core.key_taken(NODE, "key-n2", 1.0)
    hello = node_hello(b"n" * 16, name="n", features=(KEYS,))
    said = dict(told(core.receive(b"again", hello, [], 2.0, "key-n")))
    assert isinstance(said[b"again"], m.Welcome)


def test_a_stranger_is_no_heir() -> None:
    core = scheduler()
    core.key_taken(NODE, "key-n2", 1.0)
    core.key_taken(CLIENT, "key-c2", 1.0)  # a client has no such thing
    hello = node_hello(b"n" * 16, name="n")
    assert isinstance(dict(told(core.receive(b"x", hello, [], 2.0, "key-x")))[b"x"], m.Refused)
    other = node_hello(b"o" * 16, name="o")
    assert isinstance(dict(told(core.receive(b"x", other, [], 2.0, "")))[b"x"], m.Refused)


def test_what_cannot_renew_its_key_is_told() -> None:
    core = scheduler()
    for name, why in (("o", "runs an older burla"), ("nobody", "no node nobody is connected")):
        ((peer, said),) = ask(core, name)
        assert isinstance(said, am.KeysManaged)
        assert (peer, why in said.why) == (CLIENT, True)
