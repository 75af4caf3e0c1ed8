"""What people ask a cluster about itself: `burla nodes list`."""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import TypeVar

from burla.config import CLUSTER_VARIABLE
from burla.errors import BadSetting, BurlaError, ClusterUnreachable, NotAuthorised, Refused
from burla.protocol import admin_messages as am, messages as m
from burla.shell.curves import curve_for
from burla.transport.request import NoAnswer, NotTaken, ask

A = TypeVar("A", bound=m.Message)
GB = 1 << 30
LINE_CHARS_MAX = 1000  # of the table; a name has at most 256 characters


class NoJob(Exception):
    """There is no such job, it is over, or it cannot be followed; says which."""


def list_nodes(address: str | None) -> list[m.NodeStatus]:
    """Return the nodes of the cluster at an address.

    Raises:
        BadSetting: there is no address: no cluster is configured.
        ClusterUnreachable: nothing answers.
        NotAuthorised: it does not accept our key, or has another one than its address says.
        Refused: it does not answer us.
    """
    return list(put(address, m.ListNodes(), m.Nodes).nodes)


def required(address: str | None) -> str:
    """Return the address of a cluster.

    Raises:
        BadSetting: there is none: no cluster is configured.
    """
    if address is None:
        raise BadSetting(
            CLUSTER_VARIABLE,
            None,
            "the address of a cluster, as `burla up` prints it, or be stored by `burla up` or"
            " `burla login`; or pass --cluster",
        )
    return address


def put(
    address: str | None,
    question: m.Message,
    answer: type[A],
    answer_s: float | None = None,
    feature: str = "",
) -> A:
    """Return what the scheduler at an address answers to a question; see `request.ask`.

    Raises:
        BadSetting: there is no address: no cluster is configured.
        ClusterUnreachable: nothing answers.
        NotAuthorised: it does not accept our key, or has another one than its address says.
        Refused: it does not answer us.
    """
    address = required(address)
    curve = curve_for(address)
    pair, known = (None, None) if curve is None else (curve.pair, curve.known)
    try:
        return ask(address, pair, question, answer, am.SchedulerToAdmin, answer_s, known, feature)
    except NoAnswer as error:
        raise ClusterUnreachable(address, str(error)) from None
    except NotTaken as error:
        raise (NotAuthorised if error.not_authorised else Refused)(str(error)) from None


def answered(answer: am.KeysManaged) -> am.KeysManaged:
    """Return what was answered about keys, if something was done.

    Raises:
        BurlaError: nothing was, and why.
    """
    if answer.why:
        raise BurlaError(answer.why)
    return answer


def print_nodes(nodes: list[m.NodeStatus]) -> None:
    """Print a table for people on stdout: one line for each node, whatever the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    headings = ["NAME", "ISOLATION", "CPUS", "RAM", "PYTHON", "STATE", "JOB"]
    if any(node.gpus for node in nodes):
        headings.insert(4, "GPUS")
    if any(node.why for node in nodes):
        headings.append("WHY")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for node in nodes:
        ram, state = f"{node.ram / GB:.4g} GB", node.state.value
        row = [node.name, node.isolation, str(node.cpus), ram, node.python, state, node.job]
        if "GPUS" in headings:
            row.insert(4, _gpus(node))
        if node.why:
            since = datetime.fromtimestamp(time.time() - node.lost_s, UTC)
            row.append(f"since {since:%Y-%m-%d %H:%M:%S} UTC: {node.why}")
        table.add_row(*map(Text, row))  # as Text, for names are not markup
    Console(width=LINE_CHARS_MAX).print(table, crop=False)


def _gpus(node: m.NodeStatus) -> str:
    """Return what devices a node has, as "2 NVIDIA L4, 1 NVIDIA T4"."""
    counts = Counter(node.gpus)
    return ", ".join(f"{count} {model}" for model, count in counts.items())
