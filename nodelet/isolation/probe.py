"""What a sandbox here is to show and to hide, and which tier of isolation works, for who only asks.

A nodelet has the process try that is then the supervisor of its sandboxes (supervisor.py).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import burla
from burla.system.paths import runtime_directories, settings_directory, state_directory
from burla.transport.addresses import ipc_path

from .outside import is_below
from .sandbox import Confinement
from .tier import Tier

PROBE_S = 30.0  # a machine under heavy load still imports Python within this
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from burla.nodelet.isolation.trial import main; "
    "main(sys.argv[2:])"
)


def best(confinement: Confinement) -> tuple[Tier, str]:
    """Return the best tier that works, and why it is no better one.

    Waits for a process that tries them: a tenth of a second.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(burla.__file__ or "")))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, home, str(confinement)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROBE_S,
        check=False,
    )
    if done.returncode:
        return Tier.PROCESS, (done.stderr.strip() or "the trial of it fails").splitlines()[-1]
    tier, _, why = done.stdout.partition("\n")
    return Tier(tier), why.strip()


def confinement(
    ram: int, slots: int, scheduler: str, key_file: str | None, packages: str = ""
) -> Confinement:
    """Return how sandboxes of this process are to be; `packages`: a directory they read, too."""
    has_root = os.geteuid() == 0
    images = [f"{packages}-images"] if packages else []  # whose jobs run in one see that one
    hidden = (*_hidden(scheduler, key_file, has_root), *images)
    needed = (*_needed(), *filter(None, [packages]))
    return Confinement(has_root, ram, slots, needed, hidden)


def fitted(confinement: Confinement, tier: Tier) -> Confinement:
    """Return how sandboxes of a tier are to be."""
    hidden = confinement.hidden
    if tier is not Tier.UID:  # root, too, may be without the rights that make it more than a user
        hidden = (*dict.fromkeys((*hidden, *_of_the_user())),)
    return replace(
        confinement,
        hidden=hidden,
        has_root=tier is Tier.UID,
        use_landlock=tier is Tier.LANDLOCK,
    )


def _needed() -> list[str]:
    """Return what Python and burla are loaded from: never the user's whole home, or more."""
    package = os.path.dirname(os.path.abspath(burla.__file__ or ""))
    links = [os.path.join(package, name) for name in os.listdir(package)]  # of a bare checkout
    paths = [*filter(None, sys.path), sys.prefix, sys.base_prefix]
    paths += [os.path.dirname(os.path.realpath(sys.executable)), os.path.dirname(package), package]
    paths += filter(os.path.islink, links)
    home = os.path.realpath(os.path.expanduser("~"))
    return [path for path in paths if not is_below(home, [os.path.realpath(path)])]


def _hidden(scheduler: str, key_file: str | None, has_root: bool) -> list[str]:
    """Return what is secret; root's own need not be all of it: modes guard it.

    The socket and the key file that we are told of are hidden with their directory, if that is for
    this user alone.
    """
    places = (settings_directory(), state_directory(), os.environ.get("BURLA_STATE_DIR"), key_file)
    found = [os.path.abspath(path) for path in places if path]
    for path in filter(None, (ipc_path(scheduler), key_file)):
        directory = os.path.dirname(os.path.realpath(path))
        if os.path.isdir(directory) and not os.stat(directory).st_mode & 0o077:
            found.append(directory)
    return _below_root(found) + ([] if has_root else _of_the_user())


def _of_the_user() -> list[str]:
    """Return directories of the user who runs this; agents listen in the runtime directory."""
    return _below_root([os.path.expanduser("~"), *runtime_directories()])


def _below_root(found: Sequence[str]) -> list[str]:
    return [path for path in found if os.path.isabs(path) and os.path.normpath(path) != "/"]
