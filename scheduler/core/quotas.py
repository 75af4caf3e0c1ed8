"""How much one tenant may have here at once, and how much that is now. Pure.

A tenant is a user with all their keys, or a key of which no user is known; where there are no keys
(over ipc) all that come are one. What is counted
lies in the scheduler's memory: functions, and batches that have not all their outcomes yet. The
windows of an honest client keep it far below these figures.
"""

from collections.abc import Mapping

from msgspec import Struct, field

from burla.protocol.codec import FRAME_COST as FRAME_COST

from .pacing import Pacer

JOBS_MAX = 1000  # a process has one per thread; a user has some processes
INPUTS_MAX = 1 << 26  # 32 jobs with full windows of tiny inputs
OPENS_PER_S = 2000  # a loop of tiny maps in one process makes a thousand
OPENS_S = 10.0  # so many seconds' worth at once
BYTES_MAX = 8 << 30  # 32 jobs with full windows, or two inputs of the largest size
LEAF_COST = 256  # likewise a leaf
JOB_COST = 8 << 10  # likewise a job


class Quotas(Struct, frozen=True):
    """What each tenant may have at once."""

    jobs_max: int = JOBS_MAX
    inputs_max: int = INPUTS_MAX
    bytes_max: int = BYTES_MAX
    opens_per_s: int = OPENS_PER_S  # jobs opened, on average


class Tenants(Struct, frozen=True):
    """Who the tenants are, and what each may have. Replaced as a whole when it changes."""

    default: Quotas = field(default_factory=Quotas)
    own: Mapping[str, Quotas] = field(default_factory=dict)  # of users who have others, by name
    users: Mapping[str, str] = field(default_factory=dict)  # public key -> user

    def of(self, key: str) -> str:
        """Return the tenant that a key belongs to."""
        return self.users.get(key, key)

    def quotas_of(self, tenant: str) -> Quotas:
        """Return what a tenant may have at once."""
        return self.own.get(tenant, self.default)


class Usage(Struct):
    """What a tenant has: of all its jobs together."""

    jobs: int = 0
    inputs: int = 0  # of batches that have not all their outcomes
    bytes_held: int = 0  # of those, and of functions


class Charge(Struct):
    """What one open job counts for in the usage of its tenant."""

    usage: Usage
    inputs: int = 0
    bytes_held: int = 0

    def add(self, inputs: int, size: int) -> None:
        """Count more, or less if negative."""
        self.inputs += inputs
        self.bytes_held += size
        self.usage.inputs += inputs
        self.usage.bytes_held += size

    def end(self) -> None:
        """Count nothing of the job any more: it is closed."""
        self.add(-self.inputs, -self.bytes_held)
        self.usage.jobs -= 1


def excess(quotas: Quotas, usage: Usage, jobs: int, inputs: int, size: int) -> str:
    """Return which quota so much more would exceed, in words for the user; empty: none."""
    for what, has, more, most in (
        ("open jobs", usage.jobs, jobs, quotas.jobs_max),
        ("inputs without an outcome", usage.inputs, inputs, quotas.inputs_max),
        ("bytes of functions and inputs", usage.bytes_held, size, quotas.bytes_max),
    ):
        if more and has + more > most:
            return (
                f"over your quota of {what} on this cluster: {most} at once; your jobs have {has}, "
                f"and this would add {more}. Ask for less at once, or have an administrator raise"
                " it (`burla auth quota USER`)"
            )
    return ""


def too_often(quotas: Quotas) -> str:
    """Return in words for the user that its jobs are opened too often."""
    return (
        f"over your quota of jobs opened on this cluster: {quotas.opens_per_s} a second on average,"
        f" {int(quotas.opens_per_s * OPENS_S)} at once; give many inputs to one call instead"
    )


def new_opens() -> Pacer:
    """Return what counts how often tenants open jobs."""
    return Pacer(int(OPENS_PER_S * OPENS_S), OPENS_PER_S)
