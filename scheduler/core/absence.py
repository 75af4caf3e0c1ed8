"""Callers that fall silent in the middle of a job: stopped, asleep, cut off from the network, dead.

What was run for them is kept by the nodelets, within the windows, as for any slow reader, so that
nothing need be run twice when they come back. Their jobs go on meanwhile on the nodes that they
have, and get no others. When somebody else waits for a node, or the caller's end has closed the
connection (then its process has most likely ended), the leases are drained: nothing more is begun,
and what runs has a moment. After `State.away_limit_s` all of it is given up, and the caller that
comes back later is told so.
"""

from collections import defaultdict

from . import connections, given_up, leases, warm_leases
from .client import Client
from .job import Job
from .lease import LeaseState
from .state import State

WANTED_S = 60.0  # for calls of an absent caller whose node somebody waits for; then they are ended
HUNG_UP_S = 10.0  # likewise if its process has most likely ended


def expire(state: State) -> None:
    """Look after the clients that are silent. Costs O(jobs) if there are such."""
    absent = [client for client in state.clients.values() if client.is_absent(state.now_s)]
    if not absent:
        return
    owned: defaultdict[bytes, list[Job]] = defaultdict(list)
    for job in state.jobs.values():
        owned[job.owner].append(job)
    for client in absent:
        jobs = owned[client.session]
        if not jobs:
            connections.lose_client(state, client)
        elif state.now_s - client.heard_s >= state.away_limit_s:
            _give_up(state, client, jobs)
        else:
            _wait_for(state, client, jobs)


def _wait_for(state: State, client: Client, jobs: list[Job]) -> None:
    """Go on without a client, as far as nobody else waits for its nodes."""
    if client.away_s is None:
        client.away_s = state.now_s
        state.note(f"client {client.name} is away: its jobs wait for it")
        warm_leases.end_session(state, client.session)
    hung_up = client.has_hung_up()
    patience_s = HUNG_UP_S if hung_up else WANTED_S
    for job in jobs:
        job.is_away = True
        for lease in list(job.work.leases.values()):
            if lease.state is LeaseState.ACTIVE:
                if hung_up:
                    leases.drain(state, lease)
            elif state.now_s >= max(client.away_s, lease.history[-1][0]) + patience_s:
                leases.end(state, lease, discard=False)


def _give_up(state: State, client: Client, jobs: list[Job]) -> None:
    """Close the jobs of a client that stays away; it is told when it asks for them."""
    state.note(f"client {client.name} is given up: away for {state.now_s - client.heard_s:.0f} s")
    for job in jobs:
        given_up.remember(state, job)
    connections.lose_client(state, client)


def come_back(state: State, client: Client) -> None:
    """Take note that a client that was away is heard on the connection that it always had."""
    client.away_s = None
    for job in state.jobs.values():
        if job.owner == client.session:
            job.is_away = False
            state.marks.jobs[job.id] = None
