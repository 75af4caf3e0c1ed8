"""What must be true of what was recorded under chaos, whatever was done meanwhile. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Record:
    """What users saw, and what their calls wrote down."""

    jobs: dict[str, list[int]]  # user -> inputs of each job
    printed: list[str] = field(default_factory=list)  # "user job input"
    effects: list[str] = field(default_factory=list)  # "begun|ended user job input node ns"
    refused: set[str] = field(default_factory=set)  # "user job": given back when some had run

    def calls(self) -> set[str]:
        """Return all that had to be called, as they print themselves."""
        return {
            f"{user} {job} {x}"
            for user, inputs in self.jobs.items()
            for job, count in enumerate(inputs)
            for x in range(count)
        }

    def begun(self) -> Counter[str]:
        """Return how often each call was begun."""
        words = (line.split() for line in self.effects)
        return Counter(" ".join(each[1:4]) for each in words if each[0] == "begun")


@dataclass(frozen=True)
class Verdict:
    """What one run showed."""

    lost: int  # calls that nobody ran, or whose prints nobody saw
    doubled: int  # prints that came more often than their call was begun
    repeated: int  # calls that were begun again, but for those of jobs that were refused
    shared: int  # times when calls of two users were on one node


def judge(record: Record) -> Verdict:
    """Return what is wrong with a record, in counts."""
    calls, begun = record.calls(), record.begun()
    printed = Counter(record.printed)
    strange = (set(begun) | set(printed)) - calls
    assert not strange, f"nobody asked for these: {sorted(strange)[:3]}"
    lost = sum(1 for call in calls if not begun[call] or not printed[call])
    doubled = sum(max(0, printed[call] - begun[call]) for call in calls)
    again = {call: count - 1 for call, count in begun.items() if count > 1}
    repeated = sum(n for call, n in again.items() if call.rpartition(" ")[0] not in record.refused)
    return Verdict(lost, doubled, repeated, _shared(record.effects))


def _shared(effects: Iterable[str]) -> int:
    """Return how often a call was begun where one of another user had not ended."""
    by_node: Mapping[str, list[tuple[int, int, str]]] = defaultdict(list)
    times: dict[str, list[tuple[int, str]]] = defaultdict(list)  # of each call, on each node
    for line in effects:
        what, *call, ns = line.split()
        times[" ".join(call)].append((int(ns), what))
    for call_there, told in times.items():
        user, _, _, node = call_there.split()
        ordered = sorted(told, key=lambda one: (one[0], one[1] == "ended"))
        for (at_ns, said), (next_ns, next_said) in pairwise([*ordered, (0, "")]):
            if said == "begun":
                # one that did not end, or was begun again there, was killed: nobody knows when
                by_node[node].append((at_ns, next_ns if next_said == "ended" else at_ns, user))
    count = 0
    for spans in by_node.values():
        until: dict[str, int] = {}
        for begun_ns, ended_ns, user in sorted(spans):
            count += any(other != user and end > begun_ns for other, end in until.items())
            until[user] = max(until.get(user, 0), ended_ns)
    return count
