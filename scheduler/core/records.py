"""What is kept of each job for people, while it is open and when it is over. Pure, and bounded.

Nothing is kept of a call that went well but a count: durations come as a histogram with each report
of a node, and only calls that failed or were slow have names. A loop of small maps is one record.
What changes a record is called where it happens; nothing here decides anything about a job.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial

from msgspec import Struct, field

from burla.protocol import job_messages as jm, messages as m
from burla.protocol.job_messages import JobState
from burla.protocol.printable import printable

from .job import Job
from .lease import Lease
from .outputs import Outputs
from .quotas import Tenants

KEPT_MAX = 5000  # jobs that are over
KEPT_BYTES_MAX = 64 << 20  # that these take at most, roughly
RECORD_COST = 4096  # bytes that a record takes besides its texts
SPAN_COST = 100  # likewise, of a lease or a call on its time line
FOLD_S = 1.0  # a map that took less is one with the same ones before it,
FOLD_AGE_S = 60.0  # if the last of these ended not longer ago
WRITE_S = 2.0  # between two looks at what is to be filed
WRITE_MAX = 200  # jobs that are over, at one look
OPEN_WRITE_S = 10.0  # likewise of one job that is open
_NO_POLICY = m.CallPolicy()
FORMER_S = 600.0  # callers of an earlier scheduler's jobs come back within that, or never


class Share(Struct):
    """What one node has done for a job."""

    leases: int = 0
    slots: int = 0
    leased_s: float = 0.0  # by leases that are over
    calls: int = 0
    since_s: float | None = None  # when the present lease began


class Lasted(Struct, frozen=True):
    """When a call ran that lasted, or (hi is 0) a node served the job."""

    node: str
    lo: int
    hi: int
    begun_s: float
    seconds: float
    failed: bool = False
    slots: int = 0


# In C: each small map begins a record.
_calls = partial(deque[Lasted], (), jm.CALLS_KEPT_MAX)
_leases = partial(deque[Lasted], (), jm.LEASES_KEPT_MAX)


class Waits(Struct):
    """When nothing of a job ran, and why."""

    total_s: float = 0.0  # of waits that are over
    since_s: float | None = None  # the present one; None: it does not wait
    over: list[jm.Wait] = field(default_factory=list)
    reason: tuple[str, float] = ("", 0.0)  # of the present one, and since when


class Counts(Struct):
    """What is counted of a job."""

    failed: int = 0
    retried: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0
    calls: int = 0  # with an outcome that came to this scheduler, or an earlier one

    def add(self, other: "Counts", sign: int = 1) -> None:
        """Count what another has as well; or, with a sign of -1, no longer."""
        self.failed += sign * other.failed
        self.retried += sign * other.retried
        self.bytes_in += sign * other.bytes_in
        self.bytes_out += sign * other.bytes_out
        self.busy_s += sign * other.busy_s
        self.calls += sign * other.calls


class Named(Struct):
    """What of a job is not only counted."""

    faults: dict[int, jm.Fault] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)  # how many failed with which error
    slow: list[jm.SlowCall] = field(default_factory=list)  # the slowest first
    leases: deque[Lasted] = field(default_factory=_leases)  # that are over
    calls: deque[Lasted] = field(default_factory=_calls)


class Recording(Struct, eq=False):
    """What is kept of one job; times are on the caller's clock."""

    id: bytes
    tenant: str
    user: str
    name: str
    python: str
    options: jm.JobOptions
    opened_s: float
    owner: bytes = b""  # session of its caller
    ended_s: float | None = None  # None: it is open
    state: JobState = JobState.WAITING  # when it is over
    why: str = ""  # then: why it ended so
    cancelled_by: str = ""
    total: int | None = None  # when it is over, with those of equal jobs before
    done: int = 0  # likewise
    maps: int = 1
    counts: Counts = field(default_factory=Counts)
    waits: Waits = field(default_factory=Waits)
    nodes: dict[str, Share] = field(default_factory=dict)
    more_nodes: int = 0
    named: Named = field(default_factory=Named)
    durations: dict[int, int] = field(default_factory=dict)  # by bucket
    done_s: float = float("inf")  # when it had all its outcomes
    filed_s: float = float("-inf")  # when it was last given to the file
    size: int = 0  # bytes that it takes, roughly, once it is over
    is_watched: bool = False  # somebody has asked for it by name, and may ask again


class Totals(Struct):
    """What is counted of all jobs since the scheduler began, for metrics.

    Of an open one its record counts, so that a report costs nothing for it here.
    """

    opened: int = 0
    ended: dict[JobState, int] = field(default_factory=dict)  # how many, by how
    counts: Counts = field(default_factory=Counts)
    durations: dict[int, int] = field(default_factory=dict)  # by bucket
    calls_of: dict[str, int] = field(default_factory=dict)  # with an outcome, by tenant

    def add(self, record: Recording, sign: int = 1) -> None:
        """Count what a record has; or, with a sign of -1, leave it out: it was counted before."""
        self.counts.add(record.counts, sign)
        of = record.tenant
        self.calls_of[of] = self.calls_of.get(of, 0) + sign * record.counts.calls
        for bucket, count in record.durations.items():
            self.durations[bucket] = self.durations.get(bucket, 0) + sign * count


class Records(Struct, eq=False):
    """The records of all jobs."""

    open: dict[bytes, Recording] = field(default_factory=dict)  # by job
    over: dict[bytes, Recording] = field(default_factory=dict)  # the one that ended first is first
    former: dict[bytes, Recording] = field(default_factory=dict)  # that an earlier one had open
    former_until_s: float = 0.0
    is_filed: bool = False  # somebody keeps what `take_unfiled` yields
    totals: Totals = field(default_factory=Totals)
    outputs: Outputs = field(default_factory=Outputs)
    _last: dict[bytes, Recording] = field(default_factory=dict)  # by session: the last of `over`
    _cost: int = 0
    _look_s: float = 0.0
    _unfiled: dict[bytes, Recording] = field(default_factory=dict)  # of `over`

    # --- the life of a record ---

    def opened(self, job: Job, user: str, tenants: Tenants, now_s: float) -> None:
        """Begin the record of a job, or go on with that of an earlier life of the scheduler."""
        record = self.former.get(job.id)
        if record is not None and tenants.of(record.tenant) == tenants.of(job.tenant):
            del self.former[job.id]
            self.totals.add(record, -1)  # an earlier scheduler has
            record.owner, record.why = _owner(job), ""
        else:
            spec, policy = job.spec, job.spec.policy or _NO_POLICY
            options = jm.JobOptions(
                spec.func_cpu,
                spec.func_ram,
                spec.max_parallelism,
                spec.grow,
                policy.goes_on,
                policy.timeout_s,
                policy.retries,
                policy.func_gpu,
            )
            known = (job.id, job.tenant, user, spec.name, job.python, options, now_s)
            record = Recording(*known, owner=_owner(job))
        record.waits.since_s = now_s
        self.open[job.id] = record
        self.outputs.opened(job.id, job.tenant)
        self.totals.opened += 1

    def ended(self, job: Job, why: str, now_s: float) -> None:
        """Take note that a job is over; `why`: unless it is complete or its caller ended it."""
        record = self.open.pop(job.id)
        state, why = _end_of(job, record, why)
        if state is JobState.COMPLETE:  # its caller's last word may come later
            now_s = min(now_s, max(record.done_s, record.opened_s))
        end_wait(record, now_s)
        record.ended_s, record.state, record.why = now_s, state, why[: jm.WHY_CHARS_MAX]
        record.total, record.done = job.work.total, job.work.done.total
        self.totals.ended[state] = self.totals.ended.get(state, 0) + 1
        self.totals.add(record)
        last = self._last.get(record.owner) if record.owner else None
        is_there = last is not None and self.over.get(last.id) is last
        if last is not None and is_there and _may_fold(last, record):
            _fold(last, record)
            self.outputs.ended(record.id, last.id)
            self.over[last.id] = self.over.pop(last.id)
            if self.is_filed:
                self._unfiled[last.id] = last
        else:
            self._keep(record)

    def _keep(self, record: Recording) -> None:
        known = self.over.get(record.id)
        if known is not None and known.tenant != record.tenant:
            self.outputs.ended(record.id, None)
            return  # somebody has learnt the id of another's job
        if known is not None:
            self._forget(known)
        self.outputs.ended(record.id, record.id)
        record.size = _size(record)
        self.over[record.id] = record
        self._cost += record.size
        if self.is_filed:
            self._unfiled[record.id] = record
        if record.owner:
            self._last[record.owner] = record
        while self.over and (len(self.over) > KEPT_MAX or self._cost > KEPT_BYTES_MAX):
            self._forget(next(iter(self.over.values())))

    def _forget(self, record: Recording) -> None:
        del self.over[record.id]
        self._cost -= record.size
        self._unfiled.pop(record.id, None)
        self.outputs.forget(record.id)
        if self._last.get(record.owner) is record:
            del self._last[record.owner]

    # --- the file ---

    def take_unfiled(self, now_s: float, *, at_once: bool = False) -> Iterator[Recording]:
        """Yield, now and then, some of what the file does not know yet; `at_once`: all of it."""
        if not self.is_filed or (now_s < self._look_s and not at_once):
            return
        self._look_s = now_s + WRITE_S
        if self.former and now_s >= self.former_until_s:
            former, self.former = self.former, {}
            for record in former.values():
                record.ended_s, record.state = now_s, JobState.LOST
                record.why = "the scheduler was started anew, and its caller did not come back"
                self._keep(record)
        for record in list(self._unfiled.values())[: None if at_once else WRITE_MAX]:
            del self._unfiled[record.id]
            yield record
        for record in self.open.values():
            is_old = record.opened_s <= now_s - WRITE_S and record.filed_s <= now_s - OPEN_WRITE_S
            if is_old or at_once:
                record.filed_s = now_s
                yield record

    def restore(self, kept: Iterable[Recording], now_s: float) -> None:
        """Take up what an earlier scheduler filed."""
        for record in sorted(kept, key=lambda each: each.ended_s or each.opened_s):
            if record.ended_s is None:
                self.former[record.id] = record
            else:
                self._keep(record)
        self._unfiled.clear()
        self.is_filed = self.outputs.is_filed = True
        self.former_until_s = now_s + FORMER_S

    def check(self, jobs: dict[bytes, Job]) -> None:
        """Assert that each open job has its record. Costs O(state): for tests."""
        assert set(self.open) == set(jobs)
        assert set(self.outputs.open) <= set(self.open)
        assert set(self.outputs.over) <= {*self.over, *self.former}
        self.outputs.check()
        assert self._cost == sum(record.size for record in self.over.values())
        for record in (*self.open.values(), *self.over.values()):
            assert len(record.named.faults) <= jm.FAULTS_MAX
            assert len(record.named.slow) <= jm.SLOW_MAX
            assert len(record.named.types) <= jm.TYPES_MAX
            assert len(record.nodes) <= jm.NODES_KEPT_MAX
            assert len(record.waits.over) <= jm.WAITS_MAX
        for owner, record in self._last.items():
            assert self.over[record.id] is record
            assert record.owner == owner


def _end_of(job: Job, record: Recording, why: str) -> tuple[JobState, str]:
    """Return how a job has ended, and why."""
    if record.cancelled_by:
        return JobState.CANCELLED, f"cancelled by {record.cancelled_by}"
    if why:
        return JobState.ENDED, why
    if job.failure is not None:
        return JobState.FAILED, job.failure.text
    if job.failed:
        fault = next(iter(record.named.faults.values()), None)
        text = "" if fault is None else f"input {fault.index}: {fault.type}: {fault.text}"
        return JobState.FAILED, text.strip(": ") or "a call failed"
    if job.work.is_complete():
        return JobState.COMPLETE, ""
    return JobState.ENDED, "by its caller"


def _size(record: Recording) -> int:
    """Return how many bytes a record takes, roughly; so many nodes as it may have are counted."""
    faults, spans = record.named.faults.values(), len(record.named.leases) + len(record.named.calls)
    texts = sum(len(fault.text) + len(fault.type) + len(fault.last_words) for fault in faults)
    texts += sum(len(call.last_words) for call in record.named.slow)
    return RECORD_COST + 2 * texts + len(record.why) + SPAN_COST * spans


def _owner(job: Job) -> bytes:
    """Return the session whose maps are one record if they are alike: detached jobs are none."""
    return job.owner if job.spec.detached is None else b""


def _may_fold(last: Recording, record: Recording) -> bool:
    """Return whether a job is one of a loop of equal ones, of which there is nothing to tell."""
    assert record.ended_s is not None
    assert last.ended_s is not None
    return (
        last.state is record.state is JobState.COMPLETE
        and record.ended_s - record.opened_s < FOLD_S
        and record.opened_s - last.ended_s < FOLD_AGE_S
        and (last.maps > 1 or last.ended_s - last.opened_s < FOLD_S)
        and last.name == record.name
        and last.options == record.options
        and not (record.named.faults or last.named.faults or record.counts.retried)
        and not record.is_watched
    )


def _fold(last: Recording, record: Recording) -> None:
    last.ended_s, last.maps = record.ended_s, last.maps + 1
    last.total = None if None in (last.total, record.total) else last.total + record.total  # type: ignore[operator]
    last.done += record.done
    last.counts.add(record.counts)
    last.waits.total_s += record.waits.total_s
    for bucket, count in record.durations.items():
        last.durations[bucket] = last.durations.get(bucket, 0) + count
    last.named.leases += record.named.leases
    for name, share in record.nodes.items():
        known = last.nodes.get(name)
        if known is not None:
            known.leases += share.leases
            known.leased_s += share.leased_s
            known.calls += share.calls
            known.slots = share.slots
        elif len(last.nodes) < jm.NODES_KEPT_MAX:
            last.nodes[name] = share


# --- what happens to an open job ---


def lease_begins(record: Recording, lease: Lease, node: str, now_s: float) -> None:
    """Take note that a node serves the job."""
    end_wait(record, now_s)
    share = record.nodes.get(node)
    if share is None:
        if len(record.nodes) >= jm.NODES_KEPT_MAX:
            record.more_nodes += 1
            return
        share = record.nodes[node] = Share()
    share.leases += 1
    share.slots, share.since_s = lease.slots, now_s


def lease_ends(record: Recording, node: str, now_s: float, *, is_last: bool) -> None:
    """Take note that a node serves the job no longer; `is_last`: nor does any other."""
    share = record.nodes.get(node)
    if share is not None and share.since_s is not None:
        seconds = now_s - share.since_s
        share.leased_s += seconds
        record.named.leases.append(Lasted(node, 0, 0, share.since_s, seconds, slots=share.slots))
        share.since_s = None
    if is_last:
        record.waits.since_s = now_s


def note_reason(record: Recording, why: str, now_s: float) -> None:
    """Take note of why nothing of the job runs; what differs only in its numbers is the same."""
    before, _ = record.waits.reason
    if _kind(before) == _kind(why):
        return
    _end_reason(record, now_s)
    since_s = now_s if before or record.waits.since_s is None else record.waits.since_s
    record.waits.reason = why[: jm.WHY_CHARS_MAX], since_s


def end_wait(record: Recording, now_s: float) -> None:
    """Take note that something of the job runs, or that it is over."""
    waits = record.waits
    if waits.since_s is not None:
        waits.total_s += now_s - waits.since_s
        waits.since_s = None
    if waits.reason[0]:
        _end_reason(record, now_s)


def _end_reason(record: Recording, now_s: float) -> None:
    waits = record.waits
    why, since_s = waits.reason
    if why:
        after_s = max(0.0, since_s - record.opened_s)
        waits.over.append(jm.Wait(why, after_s, max(0.0, now_s - since_s)))
        del waits.over[: -jm.WAITS_MAX]
        waits.reason = "", 0.0


_NO_DIGITS = str.maketrans("", "", "0123456789")


def _kind(why: str) -> str:
    """Return what a reason has in common with others: one place further in line is none."""
    return why.partition("(")[0].translate(_NO_DIGITS)


def outcomes(
    record: Recording, node: str, said: m.Outcomes, calls: int, size: int, now_s: float
) -> None:
    """Take what a report says that had news, once for many calls.

    Args:
        record: of the job.
        node: whose report it is.
        said: the report.
        calls: how many outcomes are new.
        size: bytes of its payload.
        now_s: on the caller's clock.
    """
    counts = record.counts
    counts.bytes_out += size
    counts.calls += calls
    if (share := record.nodes.get(node)) is not None:
        share.calls += calls
    durations = record.durations
    tally = said.tally
    if tally is None:  # of a nodelet that does not tell
        if calls and said.call_s:
            bucket = jm.bucket_of(said.call_s)
            durations[bucket] = durations.get(bucket, 0) + calls
            counts.busy_s += calls * said.call_s
        return
    counts.busy_s += tally.busy_s
    for bucket, count in tally.durations:
        durations[bucket] = durations.get(bucket, 0) + count
    if tally.failed:
        _count_failed(record, node, tally)
    for call in tally.ended:
        begun_s = max(record.opened_s, now_s - call.seconds)
        lasted = Lasted(node, call.lo, call.hi, begun_s, call.seconds, call.failed)
        record.named.calls.append(lasted)
    if (slow := tally.slow) is not None:
        words = _words(tally.slow_words)
        told = jm.SlowCall(slow.lo, slow.hi, slow.seconds, node, tally.slow_memory, words)
        _note_slow(record.named.slow, told)


def _count_failed(record: Recording, node: str, tally: jm.Tally) -> None:
    record.counts.failed += tally.failed
    for kind, count in tally.types:
        _count_type(record, printable(kind.decode("utf-8", "replace"))[:256], count)
    for fault in tally.faults:
        name = printable(fault.type.decode("utf-8", "replace"))[:256]
        text = printable(fault.text.decode("utf-8", "replace"), lines=True)[: jm.FAULT_CHARS_MAX]
        facts = (fault.tries, fault.seconds, fault.memory, _words(fault.words))
        note_fault(record, jm.Fault(fault.index, name, text, node, *facts))
        if not tally.types:  # of a nodelet that does not count them
            _count_type(record, name, 1)


def _count_type(record: Recording, name: str, count: int) -> None:
    if name in record.named.types or len(record.named.types) < jm.TYPES_MAX:
        record.named.types[name] = record.named.types.get(name, 0) + count


def _words(words: bytes) -> str:
    """Return the last lines that a call has printed, as far as there is room."""
    if not words:
        return ""
    return printable(words.decode("utf-8", "replace"), lines=True)[-jm.LAST_WORDS_MAX :]


def note_fault(record: Recording, fault: jm.Fault) -> None:
    """Keep a call that has failed, if there is room, or its error is another one than others."""
    faults = record.named.faults
    if fault.index not in faults and len(faults) >= jm.FAULTS_MAX:
        kinds: dict[str, list[int]] = {}
        for index, known in faults.items():
            kinds.setdefault(known.type, []).append(index)
        most = max(kinds.values(), key=len)
        if fault.type in kinds or len(most) == 1:
            return
        del faults[most[-1]]
    faults[fault.index] = fault


def _note_slow(slow: list[jm.SlowCall], call: jm.SlowCall) -> None:
    if len(slow) < jm.SLOW_MAX or call.seconds > slow[-1].seconds:
        slow[:] = sorted([*slow, call], key=lambda each: -each.seconds)[: jm.SLOW_MAX]
