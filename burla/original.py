"""Arguments of the original Burla that mean something else here, or nothing: said, not passed over.

Pure, but for the warning.
"""

from typing import Any, Literal

from burla.values.payloads import short_repr

from .own_frames import warn_caller

DYNAMIC = "dynamic"
Dynamic = Literal["dynamic"]


def plain_limits(func_cpu: Any, func_ram: Any) -> tuple[Any, Any]:
    """Return the limits of a call without the word "dynamic".

    That lets the cluster find out what calls need. For memory ours does so where nothing is said: a
    node that runs short of it runs fewer calls, and calls again what was killed for it. A call that
    keeps more than one CPU busy takes it from its neighbours, which the kernel sees to.
    """
    cpu = 1 if isinstance(func_cpu, str) and func_cpu == DYNAMIC else func_cpu
    ram = None if isinstance(func_ram, str) and func_ram == DYNAMIC else func_ram
    return cpu, ram


def check_foreign(image: object = None, region: object = None, disk_gb: object = None) -> None:
    """Refuse or warn of what has no meaning here.

    Raises:
        ValueError: calls cannot run in a container.
    """
    if image is not None:
        raise ValueError(
            f"image={short_repr(image)}: calls run in the Python of the nodes, not in containers."
            " What function and modules import goes along by itself, or by packages=: leave image"
            " out. For nodes that are pods, the cluster's file names one (image of [kubernetes])"
        )
    settings = (
        ("region", region, "zones of [gce], node_selector of [kubernetes]"),
        ("disk_gb", disk_gb, "disk_gb of [gce] and [kubernetes]"),
    )
    for name, value, setting in settings:
        if value is not None:
            warn_caller(
                f"{name}={short_repr(value)} has no effect on a call: the cluster's file says"
                f" where and how machines are made ({setting})"
            )
