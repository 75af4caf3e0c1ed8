"""Machines that are got and given up: what `burla up`, `down` and `gc` do with a Provisioner.

plan.py says how many there should be; here it is carried out, and waited for, never for ever.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from burla.provisioning.core import plan
from burla.provisioning.core.machines import (
    BadConfig,
    Machine,
    Progress,
    Provisioner,
    ProvisioningError,
    named,
)

POLL_S = 1.0  # between two looks at machines that are on their way
END_S = 300.0  # until all machines are gone for good; a busy service is asked again meanwhile


@dataclass
class Fleet:
    """The machines of one provider in one cluster."""

    provisioner: Provisioner
    standing: int  # how many there shall be when no job asks for more
    boot_s: float  # from its creation to its first Hello; then a machine is given up
    clock_s: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = field(default=time.time)  # epoch time, for what expires

    def up(self, progress: Progress) -> list[Machine]:
        """Fill up to what shall stand; return all machines, and those that failed, deleted.

        Raises:
            ProvisioningError: not one could be made.
        """
        there = self.provisioner.observe()
        self.provisioner.delete(plan.orphans(there, self.now_s()))
        missing = plan.missing(self.standing, there)
        if missing:
            progress("machines", f"asking for {missing}")
            made = self.provisioner.create(missing)
            progress("machines", f"{len(made)} of {missing} created")
        return self.wait_ready(progress)

    def wait_ready(self, progress: Progress) -> list[Machine]:
        """Return all machines when none is on its way any more; delete those that never come."""
        until_s = self.clock_s() + self.boot_s
        seen: dict[str, str] = {}
        while True:
            there = self.provisioner.observe()
            for machine in there:
                if seen.get(machine.name) != machine.state:
                    progress(machine.name, machine.state)
                seen[machine.name] = machine.state
            coming = [m for m in there if m.state in ("creating", "joining")]
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
        found = plan.orphans(self.provisioner.observe(), self.now_s())
        for machine in found:
            progress(machine.name, "removing")
        self.provisioner.delete(found)
        return found
