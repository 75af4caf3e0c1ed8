"""`burla.shared`: where all nodes of the cluster have one file system, if they have."""

import os

from burla.protocol import messages as m
from burla.transport.request import NoAnswer, NotTaken, greet

from .config import cluster_address
from .errors import ClusterUnreachable, NoSharedFiles, NotAuthorised, Refused

VARIABLE = "BURLA_SHARED"
ANSWER_S = 8.0

_told: dict[str, str] = {}  # by address of a cluster


def shared_directory() -> str:
    """Return the path; in a function that of its node, else of the cluster in use.

    `BURLA_SHARED` goes before what the cluster says: so a script can be tried without one.

    Raises:
        NoSharedFiles: there is none.
        ClusterError: the cluster does not answer, or answers no.
    """
    if named := os.environ.get(VARIABLE):
        return named
    remedy = (
        'name it in the cluster\'s file, shared = "/mnt/data", and run `burla up`; or return what'
        " you want to keep, and hand over what functions read by files="
    )
    if "BURLA_JOB_ID" in os.environ:
        raise NoSharedFiles(f"burla.shared: the nodes have no file system in common: {remedy}")
    address = cluster_address()
    if address is None:
        raise NoSharedFiles(
            "burla.shared: a private cluster has the files of this machine: work with their paths,"
            f" or set {VARIABLE} to a directory"
        )
    if address not in _told:
        _told[address] = _ask(address)
    if not _told[address]:
        where = address.partition("?")[0]
        raise NoSharedFiles(f"burla.shared: {where} has no file system in common: {remedy}")
    return _told[address]


def _ask(address: str) -> str:
    from burla.shell.curves import curve_for

    curve = curve_for(address)
    pair = None if curve is None else curve.pair
    try:
        return greet(address, pair, m.SchedulerToClient, ANSWER_S).shared
    except NoAnswer as error:
        raise ClusterUnreachable(address, str(error)) from None
    except NotTaken as error:
        kind = NotAuthorised if error.not_authorised else Refused
        raise kind(f"{address.partition('?')[0]}: {error}") from None
