"""Which key a host may have, by known_hosts files, and what is said when it shows another one.

Only ever reads. Names may be hashed, patterns and negated, as sshd(8) says of these files; a line
with @cert-authority is not used, so such a host is unknown until its own key is there.
"""

import base64
import binascii
import hashlib
import hmac
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from paramiko import SSHException
from paramiko.pkey import PKey, UnknownKeyType

from burla.provisioning.core.machines import Unreachable


class HostKeyRefused(Unreachable):
    """The host's key is not the one that is known, or none is known."""


class KnownHosts:
    """What files say of one host."""

    def __init__(self, name: str, paths: Iterable[str]) -> None:
        """Look for `name`, a host or `[HOST]:PORT`, in files; the first is the user's own."""
        self.name = name
        self.paths = list(paths)
        self.keys: list[PKey] = []  # that it may have
        self._revoked: set[str] = set()  # base64 of keys that are no longer accepted
        for path in self.paths:
            try:
                text = Path(path).read_text(errors="replace")
            except OSError:
                continue
            for marker, key in _lines(text, name):
                if marker == "@revoked":
                    self._revoked.add(key.get_base64())
                elif not marker:
                    self.keys.append(key)

    def check(self, who: str, offered: PKey) -> None:
        """Return if the key is one that is known.

        Raises:
            HostKeyRefused: it is not; says both fingerprints and how to accept the one offered.
        """
        if offered.get_base64() in self._revoked:
            raise HostKeyRefused(
                f"{who}: its key {fingerprint(offered)} is marked @revoked in known_hosts"
            )
        if any(key == offered for key in self.keys):
            return
        file = shlex.quote(self.paths[0])
        line = f"{self.name} {offered.get_name()} {offered.get_base64()}"
        accept = f"echo {shlex.quote(line)} >> {file}"
        if not self.keys:
            raise HostKeyRefused(
                f"the key of {who} is not known.\n  offered: {fingerprint(offered)}\n"
                f"  known:   none for {self.name} in {self.paths[0]}\n"
                f"If its owner confirms this fingerprint, accept it with:\n  {accept}"
            )
        forget = f"ssh-keygen -f {file} -R {shlex.quote(self.name)}"
        known = ", ".join(map(fingerprint, self.keys))
        raise HostKeyRefused(
            f"the key of {who} HAS CHANGED: somebody may be intercepting the connection.\n"
            f"  offered: {fingerprint(offered)}\n  known:   {known}\n"
            f"If its owner confirms that it has a new key, accept it with:\n  {forget} && {accept}"
        )


def fingerprint(key: PKey) -> str:
    """Return the fingerprint as `ssh-keygen -l` shows it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({key.get_name()})"


def _lines(text: str, name: str) -> Iterator[tuple[str, PKey]]:
    """Yield marker and key of each line about `name`; what cannot be read is skipped."""
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if line.startswith("@") else ""
        if len(words) < 3 or line.startswith("#") or not matches(words[0], name):
            continue
        try:
            key = PKey.from_type_string(words[1], base64.b64decode(words[2]))
        except (binascii.Error, UnknownKeyType, SSHException, ValueError):
            continue
        yield marker, key


def matches(patterns: str, name: str) -> bool:
    """Return whether the first word of a line in known_hosts means the host `name`."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("!") and _like(pattern[1:], name):
            return False
        found |= _hashed(pattern, name) if pattern.startswith("|1|") else _like(pattern, name)
    return found


def _like(pattern: str, name: str) -> bool:
    parts = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(parts, name, re.IGNORECASE) is not None


def _hashed(pattern: str, name: str) -> bool:
    _, _, salt, digest = (pattern.split("|") + [""] * 4)[:4]
    try:
        key, wanted = base64.b64decode(salt), base64.b64decode(digest)
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.digest(key, name.encode(), "sha1"), wanted)
