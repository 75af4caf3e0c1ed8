"""Who may connect to a scheduler with keys, and say what: keeps the table fresh, and logs.

What a key may say is decided in admission.py; this file has the files, the clock and the log.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from burla.protocol import (
    admin_messages as am,
    job_messages as jm,
    messages as m,
    output_messages as om,
    overview_messages as ov,
)
from burla.protocol.admin_messages import KeyOperation
from burla.protocol.codec import WireError, decode
from burla.protocol.key_messages import KeyReplaced
from burla.scheduler.core import admission
from burla.scheduler.core.admission import MAY_SAY, AdmissionError, RateLimiter, Role, Table
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import Effect, Record, Send
from burla.scheduler.core.node import Node
from burla.transport.descriptors import spare
from burla.transport.keys import KeyFileError, fingerprint

from . import taken
from .audit import Audit
from .key_store import AUDIT, KeyStore, Stamp
from .management import manage
from .server_key import known_keys
from .zap import NotNowError

AGAIN_S = 1.0  # a table that could not be read is tried again so often
COMPLAIN_S = 1.0  # a log that cannot be written is complained of this often
REFUSALS = 1  # a second: a connection is told so, whatever it sends
NAMES_MAX = 4096  # whose rates are limited at once
LOCK_S = 0.2  # everybody waits meanwhile
SHUT_OUT_S = 300.0  # who has sent a message without an end may not come in again for so long
SHUT_OUT_MAX = 1024  # keys
# others are met with silence
ANSWERED = m.ClientHello | m.NodeHello | m.Join | m.AskDemand | am.AskJobs | am.EndJobs
ANSWERED |= am.ForgetNodes | am.ManageKeys | jm.JobQuestion | om.ReadOutput
ANSWERED |= ov.OverviewQuestion
ROUTER_DOMAIN, OUTPUT_DOMAIN = "burla", "burla.output"
# What a connection is when it has said Hello under a key of this role; a join token never does.
KINDS = {Role.CLIENT: Client, Role.ADMIN: Client, Role.NODE: Node}

log = logging.getLogger(__name__)


class Authorizer:
    """Who may come in, and say what."""

    def __init__(self, key_store: KeyStore, clock_s: Callable[[], float] = time.time) -> None:
        """Read the table that lies in `key_store`, and open the audit log.

        Raises:
            KeyFileError: the table is refused.
            OSError: the audit log cannot be written.
        """
        self.is_output_shut: Callable[[str], bool] = lambda user: False  # of the output channel
        self._key_store, self._clock_s = key_store, clock_s
        self._stamp = key_store.stamp()
        self._table: Table = key_store.read()
        self._audit = Audit(key_store.directory / AUDIT)
        self._first_key = known_keys(key_store).first(key_store.server_pair().public)
        self._refusals = RateLimiter(REFUSALS, NAMES_MAX)
        self._refused: Stamp | None = ()  # what stood there when it could not be read
        self._again_s = 0.0
        self._complaint_s = 0.0
        self._is_new = False
        taken.note(key_store.directory, self._stamp)
        self._shut_out: dict[str, float] = {}  # key -> until when

    def close(self) -> None:
        """Close the audit log."""
        self._log(lambda: self._audit.count(self._clock_s(), at_once=True))
        self._audit.close()
        taken.forget(self._key_store.directory)

    def refresh(self) -> None:
        """Read the table again if its file has changed. Costs one stat if not."""
        self._log(lambda: self._audit.count(self._clock_s()))
        stamp = self._key_store.stamp()
        if stamp == self._stamp or (stamp == self._refused and self._clock_s() < self._again_s):
            return
        is_news = stamp != self._refused
        try:
            with spare():  # strangers' connections may have taken all others
                self._table = self._key_store.read()
            self._stamp, self._refused = stamp, ()
            log.info("reloaded the table of keys: %d keys", len(self._table))
            taken.note(self._key_store.directory, stamp)
        except (KeyFileError, OSError) as error:
            # perhaps only for now, as when descriptors have run out: a revocation must not be lost
            self._refused, self._again_s = stamp, self._clock_s() + AGAIN_S
            if not is_news:
                return
            if stamp is None:
                self._table = {}  # it was deleted: no key is accepted
            outcome = (
                "no key is accepted" if stamp is None else "the old table of keys stays in use"
            )
            log.error("%s: %s", outcome, error)
        self._is_new = True

    def has_changed(self) -> bool:
        """Return whether the table has changed since the last call."""
        is_new, self._is_new = self._is_new, False
        return is_new

    def admit(self, domain: str, address: str, key: str) -> str | None:
        """Answer the ZAP handler: return the key as user id, or None.

        Raises:
            NotNowError: the key is good, but shut out for a while.
        """
        self.refresh()
        if self._clock_s() < self._shut_out.get(key, 0.0):
            raise NotNowError
        role = self._role(key)
        if domain == OUTPUT_DOMAIN:
            welcome = role in (Role.CLIENT, Role.ADMIN) and not self.is_output_shut(key)
        else:
            welcome = role is not None
        if not welcome:
            self._write(key, f"connect from {address}", None, self._why_not(key))
        return key if welcome else None

    def shut_out(self, user: str, why: str) -> None:
        """Let a key not in again for a while."""
        self._write(user, "go on", None, f"hung up on: {why}")
        if not user:
            return
        if len(self._shut_out) >= SHUT_OUT_MAX:
            del self._shut_out[next(iter(self._shut_out))]
        self._shut_out[user] = self._clock_s() + SHUT_OUT_S

    def direction(self, user: str, kind: type[Client] | type[Node] | None) -> Any:
        """Return the union of messages that a key may say; None: nothing.

        Args:
            user: the key.
            kind: what its connection is; None: no Hello came yet.
        """
        role = self._role(user)
        if role is None or (kind is not None and KINDS.get(role) is not kind):
            return None
        return MAY_SAY[role]

    def refuse(self, peer: bytes, user: str, frames: list[bytes]) -> list[Effect]:
        """Return what to do about a message that its sender may not say, or that is none."""
        if self._role(user) is not None:
            try:
                said, _ = decode(frames, ANSWERED)
            except WireError:
                return []
            operation = f"say {type(said).__name__}"
        else:
            operation = "speak"
        self._write(user, operation, None, self._why_not(user))
        if not self._refusals.allows(peer.hex(), self._clock_s()):
            return []
        return [Send(peer, m.Refused(self.why_not(user), not_authorised=True))]

    def why_not(self, user: str) -> str:
        """Return the text for a peer whose key may not do what it tried."""
        text = f"key {user[:16]} is not allowed to do this: {self._why_not(user)}"
        return f"{text}. An administrator can change that with `burla auth`"

    def join(self, peer: bytes, user: str, said: m.Join) -> list[Effect]:
        """Exchange a join token for a node's own key; return the answer."""
        key = said.key.hex()
        try:
            if not m.PROTOCOL_OLDEST <= said.protocol <= m.PROTOCOL:
                raise AdmissionError(f"the scheduler speaks protocol {m.PROTOCOL}")
            now_s = self._clock_s()
            with spare():
                self._table = self._key_store.change(
                    lambda table: admission.join(table, user, key, said.name, now_s), LOCK_S
                )
            self._stamp = self._key_store.stamp()
            taken.note(self._key_store.directory, self._stamp)
            self._is_new = True  # another process may have changed it just before
        except (AdmissionError, KeyFileError, OSError) as error:
            self._write(user, f"join with key {fingerprint(said.key)}", None, str(error))
            text = f"cannot join: {error}. Make a new token with `burla auth token`"
            return [Send(peer, m.Refused(text, not_authorised=True))]
        self._write(user, f"join with key {fingerprint(said.key)}", None, "ok")
        return [Send(peer, m.Joined(self._first_key))]

    def manage(self, peer: bytes, user: str, said: am.ManageKeys | m.ReplaceKey) -> list[Effect]:
        """Look at or change the table, as its sender may; return the answer."""
        with spare():
            answer = manage(self._key_store, said, user, LOCK_S)
        self.refresh()
        what = "replace its key"
        if isinstance(said, am.ManageKeys):
            what = f"{said.operation} keys {said.key[:64]}".strip()
        is_change = not answer.why and what != f"{KeyOperation.LIST} keys"
        self._write(user, what, None, answer.why or "ok", always=is_change)
        return [Send(peer, answer)]

    def replace_key(self, peer: bytes, user: str, said: m.ReplaceKey) -> tuple[list[Effect], bool]:
        """Give a node another key; return the answer, and whether it has got it."""
        answer = manage(self._key_store, said, user, LOCK_S)
        self.refresh()
        self._write(user, "replace its key", None, answer.why or "ok")
        return [Send(peer, KeyReplaced(said.key, answer.why))], not answer.why

    def is_expiring(self, user: str) -> bool:
        """Return whether a key was replaced, and its holder goes on with it."""
        entry = self._table.get(user)
        return entry is not None and entry.expires_s is not None

    def record(self, what: Record) -> None:
        """Write down what the core says."""
        self._write(what.user, what.operation, what.job, what.result)

    def _role(self, key: str) -> Role | None:
        return admission.role_of(self._table, key, self._clock_s())

    def _why_not(self, key: str) -> str:
        role = self._role(key)
        if role is not None:
            return f"its role is {role}, and peers must connect under a random id of 16 bytes"
        return admission.why_not(self._table, key, self._clock_s())

    def _write(
        self, key: str, operation: str, job: bytes | None, result: str, *, always: bool = False
    ) -> None:
        entry = self._table.get(key)
        name = job.hex() if job is not None else None
        user = entry.user if entry is not None else ""
        facts = (self._clock_s(), user, key[:16], operation, name, result)
        self._log(
            lambda: self._audit.write(*facts, is_known=entry is not None, always=always),
        )

    def _log(self, write: Callable[[], None]) -> None:
        """Write to the audit log; a full disk must not stop the cluster."""
        try:
            write()
        except OSError as error:
            now_s = self._clock_s()
            if now_s >= self._complaint_s:
                self._complaint_s = now_s + COMPLAIN_S
                log.error("cannot write the audit log: %s", error)
