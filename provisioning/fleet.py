"""Machines that are got and given up: what `burla up`, `down` and `gc` do with a Provisioner.

plan.py says how many there should be; here it is carried out, and waited for, never for ever. What
a machine says of itself is believed until its node has joined: from then on jobs could say it.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from burla.provisioning.core import plan
from burla.provisioning.core.machines import (
    BadConfig,
    Machine,
    Progress,
    Provisioner,
    ProvisioningError,
    StepFailed,
    named,
    printable,
)

POLL_S = 1.0  # between two looks at machines that are on their way
WHY_MAX = 200  # characters, in one line of progress
END_S = 300.0  # until all machines are gone for good; a busy service is asked again meanwhile

# Returns the names of nodes that the scheduler knows; None: it does not answer.
Joined = Callable[[], Collection[str] | None]


@dataclass
class Fleet:
    """The machines of one provider in one cluster."""

    provisioner: Provisioner
    standing: int  # how many there shall be when no job asks for more
    boot_s: float  # from its creation to its first Hello; then a machine is given up
    joined: Joined = lambda: ()
    settle_s: float = 0.0  # for how long nodes may yet come back to a scheduler that has just begun
    drain_s: float = 600.0  # for calls that run on a machine that is replaced
    spare: bool = True  # what replaces a machine comes before that goes
    gone: Callable[[Sequence[str]], None] = lambda names: None  # is told what was replaced
    clock_s: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = field(default=time.time)  # epoch time, for what expires
    _known: set[str] = field(default_factory=set)  # machines whose nodes have joined
    _made: set[str] = field(default_factory=set)  # by this command: it has seen no job there yet

    def up(self, progress: Progress) -> list[Machine]:
        """Fill up to what shall stand; return all machines, and those that failed, deleted.

        Raises:
            ProvisioningError: not one could be made.
        """
        there = self._settled()
        useless = [*plan.orphans(there, self.now_s()), *plan.drained(there)]
        self.provisioner.delete(useless)
        missing = plan.missing(self.standing, [m for m in there if m not in useless])
        if missing:
            progress("machines", f"asking for {missing}")
            made = self._create(missing)
            progress("machines", f"{len(made)} of {missing} created")
        return self.wait_ready(progress)

    def wait_ready(self, progress: Progress) -> list[Machine]:
        """Return all machines when none is on its way any more; delete those that never come."""
        until_s = self.clock_s() + self.boot_s
        seen: dict[str, str] = {}
        while True:
            there = self._look()
            for machine in there:
                phase = told(machine)
                if seen.get(machine.name) != phase:
                    progress(machine.name, phase)
                seen[machine.name] = phase
            coming = [m for m in there if m.state in plan.COMING]
            if not coming:
                break
            if self.clock_s() >= until_s:
                self.provisioner.delete(coming)
                there = [self._late(m) if m in coming else m for m in there]
                break
            self.pause(POLL_S)
        failed = [machine for machine in there if machine.state == "failed"]
        self.provisioner.delete([machine for machine in failed if machine not in coming])
        return [machine for machine in there if machine.state in ("ready", "failed")]

    def _late(self, machine: Machine) -> Machine:
        why = f"did not join within {self.boot_s:.0f} s ({machine.why or 'it said nothing'})"
        return Machine(machine.name, machine.address, machine.provider, "failed", why)

    # --- what is known of machines ---

    def _look(self) -> list[Machine]:
        """Return all machines as they are known to be; see `plan.believed`."""
        there = self.provisioner.observe()
        joined = self.joined()  # after that: who has joined meanwhile has joined
        if joined is None:  # nobody can say: only what was made just now is believed
            doubtful = {machine.name for machine in plan.doubtful(there)}
            return plan.believed(there, (self._known | doubtful) - self._made)
        self._known |= {machine.name for machine in there} & set(joined)
        return plan.believed(there, self._known)

    def _settled(self) -> list[Machine]:
        """Return all machines, when nodes have had the time to come back to their scheduler."""
        until_s = self.clock_s() + self.settle_s
        while plan.doubtful(there := self._look()) and self.clock_s() < until_s:
            self.pause(POLL_S)
        return there

    def _create(self, count: int) -> list[Machine]:
        made = self.provisioner.create(count)
        self._made |= {machine.name for machine in made}
        return made

    # --- another version ---

    def renew(self, wanted: str, progress: Progress) -> list[Machine]:
        """Replace machines that another burla has made, one after the other, each drained.

        Returns:
            What was not replaced, and why; it goes on as it is.

        Args:
            wanted: `plan.stamp` of this burla.
            progress: is told what is done.
        """
        left: list[Machine] = []
        stale = plan.stale(self._look(), wanted)
        for number, old in enumerate(stale):
            try:
                self._replace(old, progress)
            except ProvisioningError as error:
                why = f"it is of another version, and was not replaced: {error}"
                left.append(replace(old, state="failed", why=why))
            if len(left) > 1:  # what keeps two from it keeps all of them
                why = "it is of another version, and was not replaced, as others could not be"
                left += [replace(m, state="failed", why=why) for m in stale[number + 1 :]]
                break
        return left

    def _replace(self, old: Machine, progress: Progress) -> None:
        if self.spare and not old.grown:  # more are made for jobs that ask
            self._make_one(progress)
        self._drain(old, progress)
        if not self.spare and not old.grown:
            self._make_one(progress)

    def _make_one(self, progress: Progress) -> None:
        """Make one machine more, and wait until it is a node."""
        (made,) = self._create(1)
        until_s = self.clock_s() + self.boot_s
        seen = ""
        while True:
            found = next((m for m in self._look() if m.name == made.name), None)
            if found is not None and told(found) != seen:
                seen = told(found)
                progress(made.name, seen)
            if found is not None and found.state == "ready":
                return
            is_late = self.clock_s() >= until_s
            if is_late or (found is not None and found.state not in plan.COMING):
                self.provisioner.delete([found or made])
                raise StepFailed(f"{made.name}: {self._why_not(found or made)}")
            self.pause(POLL_S)

    def _why_not(self, machine: Machine) -> str:
        is_coming = machine.state in plan.COMING
        return (self._late(machine) if is_coming else machine).why or "it ended"

    def _drain(self, old: Machine, progress: Progress) -> None:
        """Let a machine finish its calls, and give it up; the scheduler says when it has."""
        progress(old.name, "draining")
        self.provisioner.drain(old, self.drain_s)
        until_s = self.clock_s() + self.drain_s
        while not self._has_left(old.name):
            if self.clock_s() >= until_s:
                raise StepFailed(f"calls still run there after {self.drain_s:.0f} s")
            self.pause(POLL_S)
        progress(old.name, "removing")
        self.provisioner.delete([old])
        self.gone([old.name])
        progress(old.name, "removed")

    def _has_left(self, name: str) -> bool:
        there = {machine.name: machine for machine in self.provisioner.observe()}
        joined = self.joined()
        if name not in there or there[name].state == "ended":
            return True
        says_so = bool(plan.drained([there[name]]))
        return says_so and joined is not None and name not in joined

    # --- giving up ---

    def down(self, progress: Progress) -> None:
        """Delete all machines; return when none is left.

        Raises:
            ProvisioningError: some are; they end at the end of their run duration at the latest.
        """
        until_s = self.clock_s() + END_S
        left: list[Machine] = []
        trouble = ""
        while True:
            try:
                left = self.provisioner.observe()
                if not left:
                    self.provisioner.clean()
                    return
                for machine in left:
                    progress(machine.name, "removing")
                self.provisioner.delete([m for m in left if m.state != "ending" or m.why])
            except BadConfig:
                raise  # asking again does not help
            except ProvisioningError as error:
                trouble = str(error)
            if self.clock_s() >= until_s:
                raise ProvisioningError(
                    f"still there after {END_S:.0f} s: {named(m.name for m in left)}"
                    f" ({trouble or 'being deleted'}). Run the same command again, or `burla gc`"
                )
            self.pause(POLL_S)

    def collect(self, progress: Progress) -> list[Machine]:
        """Delete machines of ours that are no longer needed; return them."""
        found = plan.orphans(self._settled(), self.now_s())
        for machine in found:
            progress(machine.name, "removing")
        self.provisioner.delete(found)
        return found


def told(machine: Machine) -> str:
    """Return the phase of a machine for people, with what it waits for."""
    waits = machine.state == "creating" and machine.why
    return f"{machine.state} ({printable(machine.why)[:WHY_MAX]})" if waits else machine.state
