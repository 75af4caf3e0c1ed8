"""The keys of a cluster whose scheduler `burla up` starts: our own commands, run as anybody would.

The scheduler's keys lie in a folder beside the state of the cluster, and go with it.
"""

import getpass
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from burla.provisioning.core.machines import ProvisioningError, tail
from burla.system.launch import command
from burla.system.paths import USER_KEY_FILE, settings_directory
from burla.transport.keys import KeyFileError, KeyPair, load_or_make_pair

CALL_S = 60.0  # two processes want the table of keys at most 2 s long; a busy machine is slow
TOKEN_S = 600.0  # how long the scheduler takes a join token


class NoKeys(ProvisioningError):
    """A key or a join token can not be had; the text says why."""


@dataclass(frozen=True)
class Keys:
    """The keys of one scheduler on this machine."""

    directory: Path | None  # None: those that `burla-scheduler init` makes by itself

    def make(self) -> None:
        """Make the scheduler's keys, unless there are some.

        Raises:
            NoKeys: the folder is open to others, or can not be written to.
        """
        self._call("burla.scheduler.cli", "init", "--json")

    def let_in_user(self) -> None:
        """Let whoever runs this use the cluster, by their key; it is made if there is none.

        Raises:
            NoKeys: their key is open to others, or there is no place for it.
        """
        key = user_pair().public.hex()
        # whoever has the folder of the keys is the administrator of the cluster
        words = ("add", key, "--user", getpass.getuser(), "--role", "admin", "--json")
        self._call("burla.cli", "auth", *words)

    def revoke(self, user: str) -> None:
        """Let nobody in by the keys of a user or a node.

        Raises:
            NoKeys: there are none.
        """
        self._call("burla.cli", "auth", "revoke", user, "--json")

    def token(self) -> bytes:
        """Return a fresh join token: it makes one machine a node, within `TOKEN_S`.

        Raises:
            NoKeys: the scheduler's keys are not on this machine.
        """
        try:
            said = self._call("burla.cli", "auth", "token", "--json")
        except NoKeys as error:
            where = "run this on the scheduler's machine" if self.directory is None else ""
            raise NoKeys(f"no join token: {error}{where and f'; {where}'}") from None
        return str(json.loads(said)["token"]).encode() + b"\n"

    def _call(self, module: str, *words: str) -> str:
        where = () if self.directory is None else ("--dir", str(self.directory))
        try:
            done = subprocess.run(
                command(module, *words, *where),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd="/",
                timeout=CALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoKeys(f"the keys: no answer within {CALL_S:.0f} s") from None
        if done.returncode != 0:
            raise NoKeys(f"the keys: {tail(done.stderr) or 'it failed'}")
        return done.stdout


def user_pair() -> KeyPair:
    """Return the keys of whoever runs this; they are made if there are none.

    Raises:
        NoKeys: they are open to others, or there is no place for them.
    """
    settings = settings_directory()
    if settings is None:
        raise NoKeys("there is no HOME for your key: set BURLA_CONFIG_DIR")
    try:
        return load_or_make_pair(os.path.join(settings, USER_KEY_FILE), "a user of burla")
    except (KeyFileError, OSError) as error:
        raise NoKeys(f"your key: {error}") from None
