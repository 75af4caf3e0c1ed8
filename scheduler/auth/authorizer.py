"""The gate of a scheduler with keys: looks up who speaks, keeps the table fresh, logs.

What a key may say is decided in admission.py; this file has the files, the clock and the log.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from burla.protocol import messages as m
from burla.protocol.codec import WireError, decode
from burla.scheduler.core import admission
from burla.scheduler.core.admission import MAY_SAY, AdmissionError, RateLimiter, Role, Table
from burla.scheduler.core.clients import Client
from burla.scheduler.core.effects import Effect, Record, Send
from burla.scheduler.core.nodes import Node
from burla.transport.keys import KeyFileError, fingerprint

from .audit import Audit
from .key_store import AUDIT, KeyStore

COMPLAIN_S = 1.0  # a log that cannot be written is complained of this often
REFUSALS = 1  # a second: a connection is told so, whatever it sends
NAMES_MAX = 4096  # that are paced at once
LINES = 100  # a second: refusals of one key that are written down
LOCK_S = 0.2  # everybody waits meanwhile
ANSWERED = m.ClientHello | m.NodeHello | m.Join | m.AskDemand  # others are met with silence
ROUTER_DOMAIN, OUTPUT_DOMAIN = "burla", "burla.output"
# What a connection is when it has said Hello under a key of this role; a join token never does.
KINDS = {Role.CLIENT: Client, Role.ADMIN: Client, Role.NODE: Node}

log = logging.getLogger(__name__)


class Authorizer:
    """Who may come in, and say what."""

    def __init__(self, roster: KeyStore, clock_s: Callable[[], float] = time.time) -> None:
        """Read the table that lies in `roster`, and open the audit log.

        Raises:
            KeyFileError: the table is refused.
            OSError: the audit log cannot be written.
        """
        self.is_output_shut: Callable[[str], bool] = lambda user: False  # of the output channel
        self._roster, self._clock_s = roster, clock_s
        self._stamp = roster.stamp()
        self._table: Table = roster.read()
        self._audit = Audit(roster.directory / AUDIT)
        self._refusals = RateLimiter(REFUSALS, NAMES_MAX)
        self._lines = RateLimiter(LINES, NAMES_MAX)
        self._complaint_s = 0.0
        self._is_new = False

    def close(self) -> None:
        """Close the audit log."""
        self._audit.close()

    def refresh(self) -> None:
        """Read the table again if its file has changed. Costs one stat if not."""
        stamp = self._roster.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # one that is refused is not looked at again before it is another
        try:
            self._table = self._roster.read()
            log.info("read the table of keys again: %d keys", len(self._table))
        except KeyFileError as error:
            if stamp is None:
                self._table = {}  # somebody took it away: nobody may do anything
            log.error("the table of keys %s: %s", "is empty" if stamp is None else "stays", error)
        self._is_new = True

    def has_changed(self) -> bool:
        """Return whether the table is another than at the last call, whoever has read it."""
        is_new, self._is_new = self._is_new, False
        return is_new

    def admit(self, domain: str, address: str, key: str) -> str | None:
        """Answer the ZAP handler: return the key as user id, or None."""
        self.refresh()
        role = self._role(key)
        if domain == OUTPUT_DOMAIN:
            welcome = role in (Role.CLIENT, Role.ADMIN) and not self.is_output_shut(key)
        else:
            welcome = role is not None
        if not welcome:
            self._write(key, f"connect from {address}", None, self._why_not(key))
        return key if welcome else None

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
        """Return words for somebody whose key may not do what it tried."""
        text = f"key {user[:16]} may not do this: {self._why_not(user)}"
        return f"{text}. An administrator can change that by `burla auth`"

    def join(self, peer: bytes, user: str, said: m.Join) -> list[Effect]:
        """Exchange a join token for a node's own key; return the answer."""
        key = said.key.hex()
        try:
            if said.protocol != m.PROTOCOL:
                raise AdmissionError(f"the scheduler speaks protocol {m.PROTOCOL}")
            now_s = self._clock_s()
            self._table = self._roster.change(
                lambda table: admission.join(table, user, key, said.name, now_s), LOCK_S
            )
            self._stamp = self._roster.stamp()
            self._is_new = True  # somebody else may have changed it just before
        except (AdmissionError, KeyFileError, OSError) as error:
            self._write(user, f"join with key {fingerprint(said.key)}", None, str(error))
            text = f"cannot join: {error}. Ask for a new token: `burla auth token`"
            return [Send(peer, m.Refused(text, not_authorised=True))]
        self._write(user, f"join with key {fingerprint(said.key)}", None, "ok")
        return [Send(peer, m.Joined())]

    def record(self, what: Record) -> None:
        """Write down what the core says."""
        self._write(what.user, what.operation, what.job, what.result)

    def _role(self, key: str) -> Role | None:
        return admission.role_of(self._table, key, self._clock_s())

    def _why_not(self, key: str) -> str:
        role = self._role(key)
        if role is not None:
            return f"its role is {role}, and it must not choose its routing id"
        return admission.why_not(self._table, key, self._clock_s())

    def _write(self, key: str, operation: str, job: bytes | None, result: str) -> None:
        now_s = self._clock_s()
        if result != "ok" and not self._lines.allows(key, now_s):
            return  # counted in `held_back`
        entry = self._table.get(key)
        held_back, self._lines.held_back = self._lines.held_back, 0
        name = job.hex() if job is not None else None
        user = entry.user if entry is not None else ""
        try:
            if held_back:
                self._audit.write(now_s, "", "", "(flood)", None, f"{held_back} lines left out")
            self._audit.write(now_s, user, key[:16], operation, name, result)
        except OSError as error:  # a full disk must not stop the cluster
            if now_s >= self._complaint_s:
                self._complaint_s = now_s + COMPLAIN_S
                log.error("the audit log cannot be written: %s", error)
