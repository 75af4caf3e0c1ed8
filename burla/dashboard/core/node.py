"""One node on a page, and users with what they have and may have."""

from msgspec import Struct

from burla.commands.jobs_view import duration, size
from burla.protocol.node_messages import NodeState
from burla.protocol.overview_messages import NodeShown, NodeTurn, TenantUse

from .cells import in_words
from .colours import Colours
from .overview import DIGITS, Figure, compact

ISOLATION = {
    "uid": "jobs are separated by user ids, namespaces and control groups",
    "namespaces": "jobs are separated by namespaces",
    "landlock": "jobs are kept from each other's files",
    "process": "jobs are separated as processes only",
}


class Turn(Struct, frozen=True):
    """A job that the node has served."""

    id: str
    digits: str
    name: str
    user: str
    colour: str
    state: str
    ago: str
    leased: str
    calls: int
    slots: int
    is_leased: bool


class NodeView(Struct, frozen=True):
    """All that the page of a node shows."""

    name: str
    state: str
    words: str
    user: str
    colour: str
    job: str  # its id
    function: str
    percent: float  # of its slots that are in use
    figures: list[Figure]
    facts: list[tuple[str, str]]
    turns: list[Turn]
    turns_total: int


def node_view(said: NodeShown, name: str, colours: Colours) -> NodeView | None:
    """Return what the page of a node shows; None: nothing is known of it."""
    seen = said.node
    turns = [_turn(turn, colours) for turn in said.turns]
    if seen is None:
        return None
    status = seen.status
    kind = "bad" if status.state is NodeState.LOST else ""
    figures = [
        Figure("state", status.state.value, _since(said), kind),
        Figure("calls running", f"{seen.busy:,}", f"of {seen.slots:,} slots"),
        Figure("CPUs", f"{status.cpus:,}"),
        Figure("memory", size(status.ram)),
        Figure("GPUs", f"{len(status.gpus):,}", ", ".join(dict.fromkeys(status.gpus))),
    ]
    facts = [("Python", status.python), ("isolation", _isolation(status.isolation))]
    if said.version:
        facts.insert(0, ("burla", said.version))
        facts.append(("connected for", duration(float(round(said.joined_s)))))
    return NodeView(
        name=name,
        state=status.state.value,
        words=in_words(seen),
        user=seen.user,
        colour=colours.of(seen.user),
        job=seen.job.hex(),
        function=status.job,
        percent=round(100 * seen.busy / seen.slots, 1) if seen.slots else 0.0,
        figures=figures,
        facts=facts,
        turns=turns,
        turns_total=said.turns_total,
    )


def _isolation(tier: str) -> str:
    return f"{tier}: {ISOLATION[tier]}" if tier in ISOLATION else tier


def _since(said: NodeShown) -> str:
    assert said.node is not None
    status = said.node.status
    if status.state is NodeState.LOST and status.lost_s:
        return f"for {duration(float(round(status.lost_s)))}"
    if said.node.slots:
        return f"for {duration(float(round(said.node.leased_s)))}"
    return f"for {duration(float(round(status.idle_s)))}" if status.idle_s else ""


def _turn(turn: NodeTurn, colours: Colours) -> Turn:
    leased_s = float(round(turn.leased_s)) if turn.is_leased else turn.leased_s
    return Turn(
        id=turn.job.hex(),
        digits=turn.job.hex()[:DIGITS],
        name=turn.name,
        user=turn.user,
        colour=colours.of(turn.user),
        state=turn.state.value,
        ago=duration(float(round(turn.opened_ago_s))),
        leased=duration(leased_s),
        calls=turn.calls,
        slots=turn.slots,
        is_leased=turn.is_leased,
    )


class Meter(Struct, frozen=True):
    """How much of a quota is used."""

    name: str
    has: str
    most: str
    percent: float
    kind: str  # "", "high", "full"


class UserView(Struct, frozen=True):
    """One user: what is used of each quota, and what works for them."""

    user: str
    colour: str
    nodes: int
    slots: int
    calls: int
    opens_per_s: int
    meters: list[Meter]


def users_view(tenants: tuple[TenantUse, ...], colours: Colours) -> list[UserView]:
    """Return users, those who have the most first."""
    order = sorted(tenants, key=lambda use: (-use.slots, -use.jobs, use.user))
    return [_user(use, colours) for use in order]


def _user(use: TenantUse, colours: Colours) -> UserView:
    return UserView(
        user=use.user,
        colour=colours.of(use.user),
        nodes=use.nodes,
        slots=use.slots,
        calls=use.calls,
        opens_per_s=use.opens_per_s,
        meters=[
            _meter("open jobs", use.jobs, use.jobs_max, compact(use.jobs), compact(use.jobs_max)),
            _meter(
                "inputs", use.inputs, use.inputs_max, compact(use.inputs), compact(use.inputs_max)
            ),
            _meter(
                *("memory", use.bytes_held, use.bytes_max),
                *(size(use.bytes_held), size(use.bytes_max)),
            ),
        ],
    )


def _meter(name: str, has: int, most: int, has_text: str, most_text: str) -> Meter:
    percent = round(min(100.0, 100 * has / most), 1) if most else 100.0
    kind = "full" if percent >= 95 else "high" if percent >= 75 else ""
    return Meter(name, has_text, most_text, percent, kind)
