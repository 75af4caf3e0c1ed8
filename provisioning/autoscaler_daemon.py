"""The daemon of a cluster's autoscalers, one for each of its providers of machines.

It is a process of its own beside the scheduler, because the library of a cloud blocks.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from burla.provisioning.core.machines import ProvisioningError
from burla.provisioning.core.plan import Limits
from burla.system import daemon
from burla.system.failure import FAILED, Complaint, Parser, told
from burla.system.preparing import prepare

from . import state
from .autoscaler import Autoscaler
from .cluster import Cluster

LOOK_S = 5.0  # between two looks; the scheduler forgets what we said after many of them

T = TypeVar("T")
log = logging.getLogger(__name__)


class Stopping(ProvisioningError):
    """This process is about to end: nothing new is begun."""


def autoscalers_of(cluster: Cluster) -> list[Autoscaler]:
    """Return the autoscalers of a cluster that is up."""
    config, grow = cluster.config, cluster.config.grow
    return [
        Autoscaler(
            name=f"{config.name}/{provider}",
            provisioner=fleet.provisioner,
            ask=cluster.head.ask,
            limits=Limits(
                grow.max_nodes if provider == config.grows_by else 0,
                grow.max_cost_per_h,
                grow.keep,
                grow.idle_min * 60,
                grow.grown_idle_min * 60,
            ),
            python=config.python,
            boot_s=fleet.boot_s,
            gone=cluster.head.forget_nodes,
        )
        for provider, fleet in cluster.fleets().items()
    ]


async def serve(autoscaler: Autoscaler, look_s: float = LOOK_S) -> None:
    """Look and act until cancelled, whatever goes wrong. What blocks runs in threads."""
    making: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        while True:
            # a look that began before the end of a `make` may not have seen what that has made
            is_making = making is not None and not making.done()
            orders = await _do(autoscaler.look)
            if orders and not is_making:
                making = group.create_task(_do(partial(autoscaler.make, orders)))
            await asyncio.sleep(look_s)


async def _do(step: Callable[[], T]) -> T | None:
    """Return what a step returns; None if something unexpected went wrong."""
    try:
        return await asyncio.to_thread(step)
    except Exception:  # a machine that is forgotten for an error of ours costs money
        log.exception("unexpected error")
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the autoscalers of a cluster that `burla up` knows; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return told(lambda: _serve(words), json="--json" in words, say=_say)


def _say(text: str) -> None:
    print(f"burla-autoscaler: {text}", file=sys.stderr)


def _serve(words: list[str]) -> int:
    """Run the autoscalers."""
    parser = Parser(prog="burla-autoscaler", description=__doc__)
    parser.as_json = "--json" in words
    parser.add_argument("--cluster", required=True, help="name of the cluster")
    parser.add_argument("--ready-file", type=Path, help="a file that is made once it looks")
    daemon.add_log_level(parser)
    parser.add_argument("--look", type=float, default=LOOK_S, help="seconds between two looks")
    parser.add_argument("--json", action="store_true", help="print errors as JSON on stdout")
    options = parser.parse_args(words)
    prepare("burla-autoscaler", daemon.log_level(options))
    stopping = threading.Event()

    def pause(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Stopping("the autoscaler is stopping")

    try:
        known = state.read(options.cluster)
        if known is None:
            raise ProvisioningError(f"there is no cluster {options.cluster!r}")
        autoscalers = autoscalers_of(Cluster(known, pause=pause, say=log.info))
    except ProvisioningError as error:
        raise Complaint(FAILED, str(error)) from None

    async def run() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for autoscaler in autoscalers:
                    group.create_task(serve(autoscaler, options.look))
        finally:
            stopping.set()

    if options.ready_file is not None:
        options.ready_file.touch()
    return daemon.run(run)


if __name__ == "__main__":
    sys.exit(main())
