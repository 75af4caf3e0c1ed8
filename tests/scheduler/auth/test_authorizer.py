"""The authorizer: a table that changes under it, floods, and a disk that is full."""

import json
import os
from pathlib import Path

import pytest
from keyring import Keyring
from opening import client_hello

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.protocol.key_messages import KeyReplaced
from burla.protocol.messages import ClientToScheduler, NodeletToScheduler
from burla.scheduler.auth.audit import LINES
from burla.scheduler.auth.authorizer import (
    AGAIN_S,
    OUTPUT_DOMAIN,
    ROUTER_DOMAIN,
    SHUT_OUT_S,
    Authorizer,
)
from burla.scheduler.auth.zap import NotNowError
from burla.scheduler.core.admission import Role
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import Record, Send
from burla.scheduler.core.node import Node
from burla.transport.keys import KeyFileError, make_pair

HELLO = encode(client_hello())


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


def test_each_socket_lets_in_whom_it_is_for(ring: Keyring) -> None:
    client, node = ring.make(Role.CLIENT).public.hex(), ring.make(Role.NODE).public.hex()
    authorizer = Authorizer(ring.key_store)
    assert authorizer.admit(ROUTER_DOMAIN, "1.2.3.4", client) == client
    assert authorizer.admit(ROUTER_DOMAIN, "1.2.3.4", node) == node
    assert authorizer.admit(ROUTER_DOMAIN, "1.2.3.4", "0" * 64) is None
    assert authorizer.admit(OUTPUT_DOMAIN, "1.2.3.4", client) == client
    assert authorizer.admit(OUTPUT_DOMAIN, "1.2.3.4", node) is None
    authorizer.is_output_shut = lambda user: user == client
    assert authorizer.admit(OUTPUT_DOMAIN, "1.2.3.4", client) is None
    assert authorizer.admit(ROUTER_DOMAIN, "1.2.3.4", client) == client
    authorizer.close()


def test_the_table_counts_as_it_stands_now(ring: Keyring) -> None:
    pair = ring.make(Role.CLIENT)
    key = pair.public.hex()
    authorizer = Authorizer(ring.key_store)
    assert authorizer.direction(key, None) == ClientToScheduler
    ring.add(pair, Role.NODE, "now a node")
    authorizer.admit(ROUTER_DOMAIN, "", "0" * 64)  # whoever looks first
    assert authorizer.has_changed()
    assert not authorizer.has_changed()
    assert authorizer.direction(key, None) == authorizer.direction(key, Node) == NodeletToScheduler
    assert authorizer.direction(key, Client) is None  # not on a client's connection
    ring.revoke(pair)
    authorizer.refresh()
    assert authorizer.direction(key, None) is None
    authorizer.close()


def test_a_table_that_is_refused_changes_nothing_and_one_that_is_gone_lets_nobody_in(
    ring: Keyring, tmp_path: Path
) -> None:
    key = ring.make(Role.CLIENT).public.hex()
    authorizer = Authorizer(ring.key_store)
    path = tmp_path / "keys.json"
    text = path.read_text()
    for bad in ("{", text.replace("client", "king")):
        path.write_text(bad)
        authorizer.refresh()
        assert authorizer.admit(ROUTER_DOMAIN, "", key) == key
    path.write_text(text)
    path.chmod(0o666)
    authorizer.refresh()
    assert authorizer.admit(ROUTER_DOMAIN, "", key) == key
    path.unlink()
    authorizer.refresh()
    assert authorizer.admit(ROUTER_DOMAIN, "", key) is None
    with pytest.raises(KeyFileError):
        Authorizer(ring.key_store)
    authorizer.close()


def test_a_token_is_used_once(ring: Keyring) -> None:
    token, own, other = ring.make(Role.JOIN), make_pair().public, make_pair().public
    authorizer = Authorizer(ring.key_store)
    said = [
        authorizer.join(b"p", token.public.hex(), m.Join(m.PROTOCOL, key, "n"))[0]
        for key in (own, other)
    ]
    assert said[0] == Send(b"p", m.Joined(ring.server.public))
    assert isinstance(said[1], Send)
    assert isinstance(said[1].message, m.Refused)
    assert authorizer.admit(ROUTER_DOMAIN, "", own.hex()) == own.hex()
    assert authorizer.admit(ROUTER_DOMAIN, "", other.hex()) is None
    authorizer.close()


def test_a_flood_is_answered_once_a_second_and_counted_in_the_log(ring: Keyring) -> None:
    now = [1_000_000.0]
    authorizer = Authorizer(ring.key_store, lambda: now[0])
    key = "0" * 64
    answers = [authorizer.refuse(b"p", key, HELLO) for _ in range(LINES * 3)]
    assert [bool(answer) for answer in answers] == [True] + [False] * (LINES * 3 - 1)
    now[0] += 1
    assert authorizer.refuse(b"p", key, HELLO)
    authorizer.close()
    lines = [json.loads(line) for line in ring.audit().splitlines()]
    assert len(lines) == LINES + 1
    assert lines[-1]["result"].startswith(f"{LINES * 2 + 1} lines were left out")


def test_a_known_key_that_says_nonsense_is_not_told_so(ring: Keyring) -> None:
    key = ring.make(Role.CLIENT).public.hex()
    authorizer = Authorizer(ring.key_store)
    assert authorizer.refuse(b"p", key, [b"nonsense"]) == []
    assert authorizer.refuse(b"p", key, HELLO) != []
    authorizer.close()


def test_a_log_that_cannot_be_written_stops_nobody(ring: Keyring) -> None:
    authorizer = Authorizer(ring.key_store)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, authorizer._audit._file)
    os.close(full)
    authorizer.record(Record("0" * 64, "open job", bytes(16), "ok"))
    authorizer.close()


def test_a_revocation_that_could_not_be_read_at_once_is_read_later(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a stranger's connections have taken all descriptors just then."""
    now = [1_000_000.0]
    pair = ring.make(Role.CLIENT)
    key = pair.public.hex()
    authorizer = Authorizer(ring.key_store, lambda: now[0])
    ring.revoke(pair)
    for error in (KeyFileError("too many open files"), OSError(24, "too many open files")):
        with monkeypatch.context() as patch:

            def fails(error: Exception = error) -> None:
                raise error

            patch.setattr(ring.key_store, "read", fails)
            now[0] += 1.0
            authorizer.refresh()
            assert authorizer.direction(key, None) == ClientToScheduler
    authorizer.refresh()  # not in every turn of the loop
    assert authorizer.direction(key, None) == ClientToScheduler
    now[0] += AGAIN_S
    authorizer.refresh()
    assert authorizer.has_changed()
    assert authorizer.direction(key, None) is None
    authorizer.close()


def test_a_key_that_is_shut_out_may_come_again_later(ring: Keyring) -> None:
    now = [1_000_000.0]
    key = ring.make(Role.CLIENT).public.hex()
    authorizer = Authorizer(ring.key_store, lambda: now[0])
    authorizer.shut_out(key, "it has sent 99 MiB")
    with pytest.raises(NotNowError):
        authorizer.admit(ROUTER_DOMAIN, "", key)
    assert "hung up on: it has sent 99 MiB" in ring.audit()
    now[0] += SHUT_OUT_S
    assert authorizer.admit(ROUTER_DOMAIN, "", key) == key
    authorizer.close()


def test_a_node_gets_another_key_and_the_old_one_is_about_to_expire(ring: Keyring) -> None:
    """Said again it changes nothing; and one that has lost the new key may make another one."""
    old = ring.make(Role.NODE, "n").public.hex()
    first, second = make_pair().public, make_pair().public
    authorizer = Authorizer(ring.key_store)
    for key in (first, first, second):
        effects, is_taken = authorizer.replace_key(b"p", old, m.ReplaceKey(key, 600.0))
        assert effects == [Send(b"p", KeyReplaced(key))]
        assert is_taken
        assert authorizer.direction(key.hex(), None) == NodeletToScheduler
    assert authorizer.is_expiring(old)
    assert not authorizer.is_expiring(first.hex())
    assert len(ring.key_store.read()) == 3
    taken = ring.make(Role.CLIENT).public
    ((sent,), is_taken) = authorizer.replace_key(b"p", old, m.ReplaceKey(taken, 600.0))
    assert isinstance(sent, Send)
    assert isinstance(sent.message, KeyReplaced)
    assert ("is known already" in sent.message.why, is_taken) == (True, False)
    assert "replace its key" in ring.audit()
    authorizer.close()
