"""Arguments of the original Burla that mean something else here, or nothing: said, not passed over.

Pure, but for the warning. What machines that are made are to be like is checked in options.py.
"""

from typing import Any, Literal

from burla.protocol.messages import Machines

from .own_frames import warn_caller

DYNAMIC = "dynamic"
Dynamic = Literal["dynamic"]


def plain_limits(func_cpu: Any, func_ram: Any) -> tuple[Any, Any]:
    """Return the limits of a call without the word "dynamic".

    That lets the cluster find out what calls need. For memory ours does so where nothing is said: a
    node that runs short of it runs fewer calls, and calls again what was killed for it. A call that
    keeps more than one CPU busy takes it from its neighbours, which the kernel sees to.
    """
    if type(func_cpu) is int and func_ram is None:
        return func_cpu, None
    cpu = 1 if isinstance(func_cpu, str) and func_cpu == DYNAMIC else func_cpu
    ram = None if isinstance(func_ram, str) and func_ram == DYNAMIC else func_ram
    return cpu, ram


def warn_of_machines(machines: Machines | None) -> None:
    """Say that no machine is made for a call, so that it does not matter where or how."""
    if machines is not None:
        names = ", ".join(f"{name}={value!r}" for name, value in machines.said().items())
        warn_caller(
            f"without effect: {names} (it is for machines that are made for this call: there are"
            " none without grow=True and a cluster of yours)"
        )
