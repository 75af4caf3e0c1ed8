"""A cluster called lab, on hosts, as a user describes it."""

import shutil
from pathlib import Path

from hosts import Hosts
from users import User
from wanted import wheelhouse

from burla.provisioning.install.wheels import WHEEL


def at_home(user: User, hosts: Hosts) -> None:
    """Give the user the keys and known hosts."""
    shutil.rmtree(user.home / ".ssh", ignore_errors=True)
    shutil.copytree(hosts.ssh, user.home / ".ssh")


def lab(user: User, hosts: Hosts, bind: str = "", *targets: str) -> Path:
    """Write the user's file for a cluster, and return it.

    Args:
        user: whose it is.
        hosts: all of them are nodes, unless `targets` says otherwise.
        bind: of the scheduler; empty: a socket file of the user's.
        targets: as for ssh.
    """
    named = list(targets) or [f"root@{host.address}" for host in hosts.hosts]
    file = user.home / "lab.toml"
    house = next(path.parent for name, path in wheelhouse().paths.items() if name != WHEEL)
    file.write_text(
        f'bind = "{bind or f"ipc://{user.home}/s"}"\nwheelhouse = "{house}"\n'
        f"[ssh]\nhosts = {named}\ncpus = 1\n"
    )
    return file
