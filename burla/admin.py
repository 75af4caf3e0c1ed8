"""What people ask a cluster about itself."""

from burla.protocol import messages as m
from burla.shell.clients import curve_for
from burla.transport.request import NoAnswer, NotTaken, ask

from .config import CLUSTER_VARIABLE, cluster_address
from .errors import BadSetting, ClusterUnreachable, NotAuthorised, Refused

GB = 1 << 30


def list_nodes() -> list[m.NodeStatus]:
    """Return the nodes of the configured cluster.

    Raises:
        BadSetting: no cluster is configured.
        ClusterUnreachable: nothing answers.
        NotAuthorised: it does not take our key, or has not the one that it should have.
        Refused: it does not answer us.
    """
    address = cluster_address()
    if address is None:
        raise BadSetting(
            CLUSTER_VARIABLE, None, "the address of a cluster, as `burla up` prints it"
        )
    curve = curve_for(address)
    pair = None if curve is None else curve.pair
    try:
        answer = ask(address, pair, m.ListNodes(), m.Nodes, m.SchedulerToClient)
    except NoAnswer as error:
        raise ClusterUnreachable(address, str(error)) from None
    except NotTaken as error:
        raise (NotAuthorised if error.not_authorised else Refused)(str(error)) from None
    return list(answer.nodes)


def as_table(nodes: list[m.NodeStatus]) -> str:
    """Return lines for people, with a heading."""
    rows = [("NAME", "ISOLATION", "CPUS", "RAM", "PYTHON", "STATE", "JOB")]
    for node in nodes:
        ram = f"{node.ram / GB:.4g} GB"
        state = node.state.value
        rows.append((node.name, node.isolation, str(node.cpus), ram, node.python, state, node.job))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
