"""The process that makes sandboxes, one for each lease, and clears away what is around them.

Like the zygote it has imported what every worker needs. It forks the inits of sandboxes, each of
which is the zygote of one lease (zygote.py) and answers to the agent by a socket of its own. The
supervisor holds what must outlive them: their user ids and control groups. When the agent ends,
however it ends, the supervisor kills all sandboxes, removes what it has made, and ends.

It must never import zmq, asyncio or uvloop, run user code, or have a second thread.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from burla.nodelet.isolation import cgroups, link_local, sandbox, wiping
from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.isolation.trial import tried
from burla.nodelet.isolation.uids import NoUidError, Uids

from . import control as c, forks, worker
from .folders import remove
from .fresh import hide_seed
from .in_image import InImage, UnusableError, find_python
from .processes import Wakeup, become_subreaper, kill
from .slate import Memory
from .zygote import Zygote, refuse_forbidden

ROUND_MS = 5  # between two looks at what is still to be cleared away
CLEAR_S = 2.0  # for the last process of a control group to be gone from it, after its death
WHY_MAX = 8192  # characters of why an image cannot be used
PID_BYTES_MAX = 4096  # what the process between says: a number, or why there is no sandbox


@dataclass(slots=True)
class Sandbox:
    """One sandbox and what is held for it."""

    number: int  # the agent's name for it
    uid: int
    group: cgroups.Group
    status: int | None = None  # of its init, once that has ended
    ended_s: float = 0.0


def sweep(uids: Uids) -> None:
    """Clear away what supervisors have left that were killed."""
    for uid in uids.take_left():
        with suppress(OSError):
            cgroups.find(f"burla-{uid}").remove()
        uids.give_back(uid)


class Supervisor:
    """The state of the process, and its loop."""

    def __init__(
        self, control: socket.socket, agent: int, scratch: str, confinement: Confinement
    ) -> None:
        self._control = control
        self._agent = agent
        self._scratch = scratch
        self._confinement = confinement
        self._sandboxes: dict[int, Sandbox] = {}  # by the pid of its init
        self._uids = Uids() if confinement.has_root else None
        if self._uids is not None:
            sweep(self._uids)

    def run(self) -> NoReturn:
        """Serve the agent until it ends."""
        wakeup = Wakeup(self._control, self._agent)
        self._say(c.Ready())
        is_there = True
        while is_there and wakeup.owner_lives():
            clearing = any(box.status is not None for box in self._sandboxes.values())
            if wakeup.wait(ROUND_MS if clearing else None):
                is_there = self._obey()
            self._reap()
            self._clear()
        self._end()

    def _obey(self) -> bool:
        """Carry out one order; return False if the agent is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self._control, c.BYTES_MAX, 2, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return False
        if not data:
            return False
        match c.decode(data):
            case c.OpenSandbox() as order:
                try:
                    pid = self._open(order, fds[0], fds[1])
                    self._say(c.Opened(order.number, pid))
                except (OSError, NoUidError) as error:
                    self._say(c.Failed(order.number, str(error)))
                for fd in fds:
                    os.close(fd)
            case other:
                raise AssertionError(other)
        return True

    def _say(self, word: c.FromSupervisor) -> None:
        with suppress(OSError):  # the agent is gone: the loop sees it
            self._control.send(c.encode(word))

    # --- making one ---

    def _open(self, order: c.OpenSandbox, control: int, slates: int) -> int:
        """Make a sandbox; return the pid of its init.

        Raises:
            OSError: the system does not give what is needed.
            NoUidError: all user ids are in use.
        """
        wanted = self._confinement
        uid = self._uids.take() if self._uids is not None else os.geteuid()
        name = f"burla-{uid}" if wanted.has_root else f"burla-{os.getpid()}-{order.number}"
        group = cgroups.make(name, wanted.ram, wanted.processes())
        if wanted.has_root and (unified := group.unified()):
            with suppress(OSError):  # the trial has told of it
                link_local.shut(unified)
        box = Sandbox(order.number, uid, group)
        try:
            pid = self._fork_init(box, order, control, slates)
        except BaseException:
            self._free(box)
            raise
        self._sandboxes[pid] = box
        return pid

    def _fork_init(self, box: Sandbox, order: c.OpenSandbox, control: int, slates: int) -> int:
        """Fork twice: the process between takes the namespaces, its child is the first in them."""
        reader, writer = os.pipe()
        try:
            middle = os.fork()
            if middle == 0:
                self._be_between(box, order, writer, control, slates)
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as file:
            said = file.read(PID_BYTES_MAX).decode()
        os.waitpid(middle, 0)
        if not said.isdigit():
            raise OSError(said)
        return int(said)

    def _be_between(
        self, box: Sandbox, order: c.OpenSandbox, writer: int, control: int, slates: int
    ) -> NoReturn:
        try:
            box.group.enter()  # here, and not each worker: it waits for all CPUs of the machine
            sandbox.unshare(self._confinement)
            pid = os.fork()
            if pid == 0:
                os.close(writer)
                self._be_init(box, order, control, slates)
            os.write(writer, str(pid).encode())
        except OSError as error:
            os.write(writer, f"no sandbox: {error}".encode()[:PID_BYTES_MAX])
        finally:
            os._exit(0)

    def _be_init(self, box: Sandbox, order: c.OpenSandbox, control: int, slates: int) -> NoReturn:
        """Be the zygote of one lease, in its sandbox."""
        wanted = self._confinement
        gid = box.uid if wanted.has_root else os.getegid()
        try:
            os.setsid()
            image = InImage(order.image, order.shown) if order.image else None
            shown = sandbox.furnish(wanted, box.uid, gid)
            if image is not None:
                image.enter(wanted, box.uid, gid, is_tried=order.is_tried)
            forks.close_all_but({control, slates})  # looks into the new /proc
            forks.reset_signals()
            memory = Memory(slates)
        except UnusableError as error:
            socket.socket(fileno=control).send(c.encode(c.Unusable(str(error)[:WHY_MAX])))
            os._exit(1)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)
        Zygote(
            socket.socket(fileno=control),
            0,  # a parent outside of the namespace has no number
            memory,
            "",  # its scratch goes with it
            (lambda: sandbox.confine(wanted, box.uid, gid)) if image is None else image.confine,
            sandbox.share if image is None else image.share,
            None if image is None else find_python,
            lambda: wiping.wipe(wanted, box.uid, gid, shown, remove),
        ).run()

    # --- clearing one away ---

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if box := self._sandboxes.get(pid):
                box.status = os.waitstatus_to_exitcode(status)
                box.ended_s = time.monotonic()

    def _clear(self) -> None:
        """Say of each sandbox that has ended that it is gone, once nothing is left of it."""
        for pid, box in list(self._sandboxes.items()):
            if box.status is None:
                continue
            late = time.monotonic() > box.ended_s + CLEAR_S
            if box.group.remove() or late:
                del self._sandboxes[pid]
                self._free(box)
                self._say(c.Gone(box.number, box.status))

    def _free(self, box: Sandbox) -> None:
        box.group.remove()
        if self._uids is not None:
            self._uids.give_back(box.uid)

    def _end(self) -> NoReturn:
        """Kill everything below and go."""
        for pid, box in self._sandboxes.items():
            if box.status is None:
                kill(pid)  # and with it all that is in its namespace
        while self._sandboxes:
            self._reap()
            self._clear()
            time.sleep(ROUND_MS / 1000)
        if self._scratch:
            remove(self._scratch)
        os._exit(0)


def main(argv: list[str]) -> NoReturn:
    """Be the supervisor of an agent: `CONTROL_FD AGENT_PID SCRATCH CONFINEMENT [TRY]`.

    If told to, it tries first how far leases can be shut in here, as nobody could but a process
    that forks, and is told then in what.
    """
    refuse_forbidden()
    control = socket.socket(fileno=int(argv[0]))
    become_subreaper()
    hide_seed()
    confinement = Confinement.parse(argv[3])
    if argv[4:]:
        with suppress(OSError):  # the agent is gone: see below
            control.send(c.encode(c.Tried(*tried(confinement))))
    worker.prepare()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if argv[4:]:
        confinement = _decided(control, int(argv[1]), argv[2])
    Supervisor(control, int(argv[1]), argv[2], confinement).run()


def _decided(control: socket.socket, agent: int, scratch: str) -> Confinement:
    """Return how sandboxes are to be; end if none are wanted, or the agent is gone."""
    data = b""
    with suppress(OSError):
        data = control.recv(c.BYTES_MAX)
    if not data:
        if os.getppid() != agent:  # else it still needs it
            remove(scratch)
        os._exit(0)
    order = c.decode(data)
    assert isinstance(order, c.Confine), order
    return Confinement.parse(order.confinement)
