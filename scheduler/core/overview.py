"""What people ask about a whole cluster, and about one node: who has what, and does what. Pure.

As with jobs: of others' only administrators learn whose a node is. Costs O(nodes and users), and
for one node O(jobs that are kept): it is asked by people who look, not by programs that run.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice

from burla.protocol import overview_messages as ov
from burla.protocol.messages import HEADER_BYTES_MAX

from .client import Client
from .node import Node
from .operators import lost_statuses
from .quotas import Usage
from .records import Recording
from .state import State
from .telling import summary

BYTES_MAX = HEADER_BYTES_MAX // 2  # of the nodes, and of the users, in one answer
NODE_BYTES, USER_BYTES, CHAR_BYTES = 80, 100, 4  # of one besides its texts; of a character at most
EVERYBODY = "everybody"  # where there are no keys, all are one


def answer(
    state: State, client: Client, said: ov.OverviewQuestion, *, sees_all: bool
) -> ov.OverviewAnswer:
    """Return the answer to a question about the cluster."""
    tenant = None if sees_all else state.tenants.of(client.user)
    match said:
        case ov.AskOverview():
            return _overview(state, client, tenant)
        case ov.AskNode():
            return _node(state, said.name, tenant)


def _overview(state: State, client: Client, tenant: str | None) -> ov.Overview:
    nodes = list(_nodes(state, tenant))
    calls = _calls(state)
    names = _names(state, tenant)
    return ov.Overview(
        who=name_of(state, state.tenants.of(client.user)),
        sees_all=tenant is None,
        nodes=tuple(_bounded(nodes)),
        nodes_total=len(nodes),
        calls=max(0, calls.total() if tenant is None else calls[tenant]),
        tenants=tuple(_tenants(state, names[: ov.TENANTS_MAX], calls)),
        tenants_total=len(names),
    )


def name_of(state: State, tenant: str) -> str:
    """Return what people call a tenant."""
    return _called(tenant, state.tenants.users.values())


def _called(tenant: str, users: Collection[str]) -> str:
    if tenant and tenant not in users:
        return f"key {tenant[:8]}" if len(tenant) == 64 else tenant
    return tenant or EVERYBODY


def _nodes(state: State, tenant: str | None) -> Iterator[ov.NodeSeen]:
    """Yield all nodes, those that were lost too, by name."""
    there = [_seen(state, node, tenant) for node in state.nodes.values()]
    lost = [ov.NodeSeen(status) for status in lost_statuses(state)]
    yield from sorted([*there, *lost], key=lambda seen: seen.status.name)


def _bounded(nodes: list[ov.NodeSeen]) -> Iterator[ov.NodeSeen]:
    size = 0
    for seen in nodes[: ov.NODES_SEEN_MAX]:
        status = seen.status
        texts = (status.name, status.isolation, status.job, status.why, seen.user, *status.gpus)
        size += NODE_BYTES + CHAR_BYTES * sum(map(len, texts))
        if size > BYTES_MAX:
            return
        yield seen


def _seen(state: State, node: Node, tenant: str | None) -> ov.NodeSeen:
    lease = node.lease
    job = state.job_of(lease)
    if lease is None or job is None:
        return ov.NodeSeen(node.status("", state.now_s))
    is_told = tenant is None or state.tenants.of(job.tenant) == tenant
    return ov.NodeSeen(
        node.status(job.spec.name if is_told else "", state.now_s),
        _user_of(state, state.records.open[job.id]) if is_told else "",
        job.id if is_told else b"",
        lease.slots,
        min(lease.slots, lease.held.total),
        max(0.0, state.now_s - lease.since_s),
    )


def _user_of(state: State, record: Recording) -> str:
    return state.tenants.users.get(record.tenant, record.user)[:256]


def _names(state: State, tenant: str | None) -> list[str]:
    """Return which tenants are told: those that are known, and those that have jobs; by name."""
    known = state.tenants
    names = {*known.own, *known.users.values(), *map(known.of, state.usages)}
    return sorted(names) if tenant is None and names else [tenant or ""]


def _tenants(state: State, names: Sequence[str], calls: Counter[str]) -> Iterator[ov.TenantUse]:
    """Yield what tenants have."""
    known = state.tenants
    nodes: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    for job in state.jobs.values():
        of = known.of(job.tenant)
        nodes[of] += len(job.work.leases)
        slots[of] += job.work.slots
    usages = {known.of(name): usage for name, usage in state.usages.items()}
    users = frozenset(known.users.values())
    for name in names:
        usage, quotas = usages.get(name, Usage()), known.quotas_of(name)
        yield ov.TenantUse(
            user=_called(name, users),
            jobs=usage.jobs,
            inputs=usage.inputs,
            bytes_held=usage.bytes_held,
            nodes=nodes[name],
            slots=slots[name],
            calls=max(0, calls[name]),
            jobs_max=quotas.jobs_max,
            inputs_max=quotas.inputs_max,
            bytes_max=quotas.bytes_max,
            opens_per_s=quotas.opens_per_s,
        )


def _calls(state: State) -> Counter[str]:
    """Return how many calls have had an outcome, by tenant."""
    records, of = state.records, state.tenants.of
    calls: Counter[str] = Counter()
    for name, count in records.totals.calls_of.items():
        calls[of(name)] += count
    for record in records.open.values():
        calls[of(record.tenant)] += record.counts.calls
    return calls


# --- one node ---


def _node(state: State, name: str, tenant: str | None) -> ov.NodeShown:
    node = next((one for one in state.nodes.values() if one.name == name), None)
    turns = [
        record for record in _newest(state) if name in record.nodes and _sees(state, record, tenant)
    ]
    told = tuple(_turn(state, record, name) for record in islice(turns, ov.TURNS_MAX))
    if node is not None:
        joined_s = max(0.0, state.now_s - node.joined.at_s)
        return ov.NodeShown(
            _seen(state, node, tenant), node.joined.version, joined_s, told, len(turns)
        )
    lost = next((one for one in lost_statuses(state) if one.name == name), None)
    seen = None if lost is None else ov.NodeSeen(lost)
    return ov.NodeShown(seen, turns=told, turns_total=len(turns))


def _newest(state: State) -> Iterator[Recording]:
    kept = state.records
    return chain(
        reversed(kept.open.values()), reversed(kept.former.values()), reversed(kept.over.values())
    )


def _sees(state: State, record: Recording, tenant: str | None) -> bool:
    return tenant is None or state.tenants.of(record.tenant) == tenant


def _turn(state: State, record: Recording, node: str) -> ov.NodeTurn:
    line = summary(record, state.jobs.get(record.id), state.now_s)
    share = record.nodes[node]
    since_s = share.since_s
    now_s = 0.0 if since_s is None else max(0.0, state.now_s - since_s)
    return ov.NodeTurn(
        job=record.id,
        user=_user_of(state, record),
        name=record.name,
        state=line.state,
        opened_ago_s=line.opened_ago_s,
        leases=max(1, share.leases),
        slots=share.slots,
        leased_s=share.leased_s + now_s,
        calls=share.calls,
        is_leased=since_s is not None,
    )
