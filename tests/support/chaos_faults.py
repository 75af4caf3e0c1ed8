"""What happens to a cluster under chaos, and what callers see of it."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from chaos_site import Needs, Site, daemons
from links import DOWN, UP

SELDOM_S = (2.0, 5.0)  # for what others need seconds to come back from
DAY_S = 24 * 3600
NOTHING = Needs()


def kill_worker(site: Site) -> None:
    """`kill -9` of a process below a nodelet, never of what forks them."""
    with suppress(psutil.NoSuchProcess, IndexError):
        zygote = psutil.Process(site.node().pid).children()[0]
        site.chance.choice(zygote.children()).kill()


def kill_node(site: Site) -> None:
    """`kill -9` of a nodelet; another one comes."""
    site.node().kill()
    time.sleep(site.chance.uniform(0, 0.5))
    site.add_node()


def stop_node(site: Site) -> None:
    """SIGSTOP of a nodelet, for a while."""
    site.stand_still(site.node(), site.chance.uniform(0.5, 5))


def stop_scheduler(site: Site) -> None:
    """SIGSTOP of the scheduler, for a while."""
    site.stand_still(site.made.scheduler, site.chance.uniform(0.5, 4))


def stop_caller(site: Site) -> None:
    """SIGSTOP of a caller's program, for a while."""
    caller = site.caller()
    if caller is not None:
        site.stand_still(caller, site.chance.uniform(0.5, 4))


def hold_line(site: Site, *directions: str) -> None:
    """Let nothing pass on a line for a while; nobody is told."""
    link = site.link()
    link.hold(*directions)
    time.sleep(site.chance.uniform(0.5, 5))
    link.heal()


def slow_line(site: Site) -> None:
    """A line as to a far country, for a while."""
    link = site.link()
    link.slow(200_000, 0.05)
    time.sleep(site.chance.uniform(0.5, 3))
    link.heal()


def pull_plug(site: Site) -> None:
    """The line of a machine is down for a while."""
    assert site.net is not None
    line = site.chance.choice(site.nodes())
    site.net.pull(line)
    time.sleep(site.chance.uniform(0.5, 6))
    site.net.plug(line)


def drop_packets(site: Site) -> None:
    """Packets of a machine are lost in one direction, for a while."""
    assert site.net is not None
    site.net.drop(site.chance.choice(site.nodes()), to_hub=site.chance.random() < 0.5)
    time.sleep(site.chance.uniform(0.5, 6))
    site.net.drop_nothing()


def narrow_line(site: Site) -> None:
    """Hardly anything passes to a machine, for a while."""
    assert site.net is not None
    line = site.chance.choice(site.nodes())
    site.net.narrow(line, site.chance.choice((64, 256, 1024)))
    time.sleep(site.chance.uniform(0.5, 6))
    site.net.widen(line)


def jump_clock(site: Site) -> None:
    """The clock on the wall of the scheduler and of all nodes is wrong by up to a day."""
    site.jump(site.chance.randint(-DAY_S, DAY_S))


def take_descriptors(site: Site) -> None:
    """A daemon cannot open files for a while."""
    site.take_descriptors(site.chance.choice(daemons(site)), site.chance.uniform(0.5, 3))


def detach_job(site: Site) -> None:
    """A user's program is told to detach what it waits for."""
    caller = site.caller()
    if caller is not None:
        caller.send_signal(signal.SIGURG)  # which nobody dies of


@dataclass(frozen=True)
class Fault:
    """Something that happens to a cluster, again and again."""

    happen: Callable[[Site], None]
    seen: str  # of it by callers
    repeats: bool = False  # calls that ran when it happened are run again
    every_s: tuple[float, float] = (0.3, 1.2)  # between two of them
    needs: Needs = NOTHING


# A call whose nodes die again and again is told as their killer: nodes die not so often by chance.
AGAIN = "nothing; its calls are run again"
NET = Needs(net=True)
FAULTS = {
    "none": Fault(lambda site: None, "nothing"),
    "worker killed": Fault(kill_worker, "nothing; its call is run again", repeats=True),
    "node killed": Fault(kill_node, AGAIN, repeats=True, every_s=(1.0, 3.0)),
    "node stands still": Fault(stop_node, "nothing"),
    "scheduler killed": Fault(Site.restart_scheduler, "nothing", every_s=SELDOM_S),
    "scheduler stands still": Fault(stop_scheduler, "nothing"),
    "caller stands still": Fault(stop_caller, "nothing"),
    "line cut": Fault(lambda site: site.link().cut(), "nothing"),
    "line dead, both ways": Fault(lambda site: hold_line(site, UP, DOWN), "nothing"),
    "line dead, one way": Fault(
        lambda site: hold_line(site, site.chance.choice((UP, DOWN))), "nothing"
    ),
    "line slow": Fault(slow_line, "nothing"),
    "plug pulled": Fault(pull_plug, "nothing", needs=NET),
    "packets lost, one way": Fault(drop_packets, "nothing", needs=NET),
    "line narrow": Fault(narrow_line, "nothing", needs=NET),
    "disk full": Fault(
        lambda site: site.fill_disk(site.chance.uniform(0.5, 3)),
        "a detached job is refused in words; else nothing",
        needs=Needs(disk=True),
    ),
    "clock jumps": Fault(jump_clock, "nothing", needs=Needs(clock=True)),
    # what cannot start a process is a machine that has failed
    "no descriptors": Fault(take_descriptors, AGAIN, repeats=True, every_s=(1.0, 3.0)),
}
ANYWHERE = [name for name, fault in FAULTS.items() if name != "none" and fault.needs == NOTHING]


def happen_any(site: Site) -> None:
    """Any of all faults that need nothing of the machine."""
    FAULTS[site.chance.choice(ANYWHERE)].happen(site)


def happen_any_on_a_net(site: Site) -> None:
    """Any of those and of what a network does."""
    more = [name for name, fault in FAULTS.items() if fault.needs == NET]
    FAULTS[site.chance.choice([*ANYWHERE, *more])].happen(site)


def detach_in_the_middle(site: Site) -> None:
    """A job is detached while something else happens."""
    detach_job(site)
    time.sleep(site.chance.uniform(0, 0.3))
    happen_any(site)


ALL = {
    **FAULTS,
    "all of these, mixed": Fault(happen_any, "nothing; as above", repeats=True, every_s=(1.0, 3.0)),
    "detached midway": Fault(
        detach_job, "`burla.JobDetached`; what runs then is run again", repeats=True
    ),
    "detached midway, mixed": Fault(
        detach_in_the_middle, "`burla.JobDetached`; as above", repeats=True, every_s=(1.0, 3.0)
    ),
    "mixed, with a network": Fault(
        happen_any_on_a_net, "nothing; as above", repeats=True, every_s=(1.0, 3.0), needs=NET
    ),
}
