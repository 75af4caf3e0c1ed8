"""`burla doctor`: looks at everything that a call needs, from this machine, and says what is wrong.

Each check is a line: what was looked at, how it is, and what to do. A check that fails is why
something does not work; a warning is what somebody should know. Nothing is changed.
"""

import base64
import contextlib
import email.utils
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from burla import errors
from burla.config import (
    CLUSTER_VARIABLE,
    SETTINGS_FILE,
    cluster_address,
    settings_path,
    user_key_path,
)
from burla.protocol import VERSION, messages as m
from burla.shell.curves import curve_for
from burla.system.paths import settings_directory, state_directory
from burla.transport.addresses import Endpoint, ipc_path, take_apart
from burla.transport.keys import KeyFileError, load_pair
from burla.transport.request import NoAnswer, NotTaken, ask, greet

PASS, WARN, FAIL = "pass", "warn", "fail"
CONNECT_S = 3.0
ANSWER_S = 3.0
DESCRIPTORS_MIN, DESCRIPTORS_GOOD = 256, 4096
DISK_MIN, DISK_GOOD = 100 << 20, 1 << 30  # bytes
SKEW_S, SKEW_S_MAX = 60.0, 300.0  # a join token lasts ten minutes
INDEX = "https://pypi.org/simple"
SHARED_MEMORY = "/dev/shm"

# Of this machine, the tier that it allows, and why none better; keys that lie on this machine.
Isolation = Callable[[str], tuple[str, str]]
KeyFiles = Callable[[str | None], list[str]]


@dataclass(frozen=True)
class Check:
    """How one thing is."""

    name: str
    state: str  # PASS, WARN or FAIL
    text: str
    remedy: str = ""  # what to do, unless it passed


def run(named: str | None, isolation: Isolation, wrong_keys: KeyFiles) -> list[Check]:
    """Return what is found.

    Args:
        named: address of the cluster that the user named; None: the one in use.
        isolation: returns the best tier of isolation here, and why none better; it may fork.
        wrong_keys: returns what is wrong with key files of a scheduler on this machine.
    """
    address, first = _address(named)
    shut_in = _isolation(isolation, address)  # before there are threads, for it forks
    checks = [first]
    clocks = _Clocks()
    if address is not None:
        checks += _cluster(address, clocks)
    checks.append(_keys(address, wrong_keys))
    index = _index(clocks)
    return [*checks, *_clock(clocks), _descriptors(), *_disks(), shut_in, index]


# --- the cluster ---


def _address(named: str | None) -> tuple[str | None, Check]:
    try:
        address = cluster_address(named)
    except errors.BadSetting as error:
        return None, Check("address", FAIL, str(error), _address_remedy(error.name))
    if address is None and sys.platform != "linux":
        text = "none is configured, and calls need one here: a private cluster needs Linux"
        remedy = "`burla login ADDRESS`, with the address that whoever runs the cluster has"
        return None, Check("address", FAIL, text, remedy)
    if address is None:
        text = "none is configured: calls run in a private cluster on this machine"
        remedy = "that is fine for one machine; `burla up` or `burla login` names a cluster"
        return None, Check("address", WARN, text, remedy)
    source = str(settings_path())
    if named is not None:
        source = "--cluster"
    elif CLUSTER_VARIABLE in os.environ:
        source = CLUSTER_VARIABLE
    return address, Check("address", PASS, f"{address} (from {source})")


def _address_remedy(name: str) -> str:
    """Return how to mend what `name` says: `burla login` writes a file, which others go before."""
    if name == CLUSTER_VARIABLE:
        return f"correct it, or `unset {CLUSTER_VARIABLE}` and run `burla login ADDRESS`"
    if name == SETTINGS_FILE:
        return "correct that file, or remove it and run `burla login ADDRESS`"
    if name == "cluster":
        return "pass another --cluster"
    return "run `burla login ADDRESS`"


@dataclass
class _Clocks:
    """How many seconds ours is ahead of others; None: not known."""

    scheduler_s: float | None = None
    index_s: float | None = None


def _cluster(address: str, clocks: _Clocks) -> Iterator[Check]:
    """Yield one check after the other; the first that fails is why the others would."""
    where = take_apart(address)
    for check in (_name, _port):
        yield (found := check(where))
        if found.state == FAIL:
            return
    try:
        curve = curve_for(address)
        pair, known = (None, None) if curve is None else (curve.pair, curve.known)
        began_s = time.time()
        welcome = greet(address, pair, m.SchedulerToClient, ANSWER_S, known)
        if welcome.time_s:  # it was that time there at some moment in between
            behind_s, ahead_s = began_s - welcome.time_s, time.time() - welcome.time_s
            clocks.scheduler_s = min(0.0, ahead_s) + max(0.0, behind_s)
        how = (m.SchedulerToClient, ANSWER_S, known)
        nodes = ask(address, pair, m.ListNodes(), m.Nodes, *how).nodes
    except errors.BadSetting as error:
        yield Check("handshake", FAIL, str(error), "correct what the text names")
        return
    except (NotTaken, errors.NotAuthorised) as error:
        remedy = (
            "get the address from the cluster's administrator, run `burla login ADDRESS` with it,"
            " and let them run the command that it prints"
        )
        yield Check("handshake", FAIL, str(error), remedy)
        return
    except NoAnswer as error:
        remedy = "look at `burla status` on its machine, and at the log that it names"
        yield Check("handshake", FAIL, f"something listens, but {error}", remedy)
        return
    yield Check("handshake", PASS, "the scheduler takes you")
    yield _versions(welcome.version, nodes)
    yield _nodes(nodes)


def _name(where: Endpoint) -> Check:
    if (path := ipc_path(where.endpoint)) is not None:
        if os.path.exists(path):
            return Check("name", PASS, f"the socket file {path} is there")
        remedy = "`burla up` starts the scheduler again, if it was made by that"
        return Check("name", FAIL, f"there is no socket file {path}", remedy)
    host, port = _host_port(where)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        remedy = "correct the address, or add the name to DNS or /etc/hosts"
        return Check("name", FAIL, f"{host} leads to no address: {error}", remedy)
    numbers = ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))
    return Check("name", PASS, f"{host} is {numbers}")


def _port(where: Endpoint) -> Check:
    path = ipc_path(where.endpoint)
    try:
        if path is not None and sys.platform != "win32":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_S)
                probe.connect(path)
        else:
            socket.create_connection(_host_port(where), CONNECT_S).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        remedy = (
            "start the scheduler (`burla up` on its machine)"
            if isinstance(error, ConnectionRefusedError)
            else "let firewalls pass this port and the next one, and see that the machine runs"
        )
        return Check("port", FAIL, f"cannot connect to {where.endpoint}: {why}", remedy)
    return Check("port", PASS, f"{where.endpoint} takes connections")


def _host_port(where: Endpoint) -> tuple[str, int]:
    host, _, port = where.endpoint.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


def _versions(scheduler: str, nodes: tuple[m.NodeStatus, ...]) -> Check:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pythons = sorted({node.python for node in nodes if node.state is not m.NodeState.LOST})
    text = f"burla {VERSION} here, {scheduler} there; Python {python} here"
    text += f", {', '.join(pythons)} on nodes" if pythons else ""
    if pythons and python not in pythons:
        remedy = (
            f"call with Python {pythons[0]}, or make nodes with {python}: run `burla up` with it"
            f' for nodes on the scheduler\'s machine; for others, python = "{python}" in its file'
        )
        return Check("versions", FAIL, text, remedy)
    if scheduler != VERSION:
        return Check("versions", WARN, text, "`burla up` on the head brings all to its version")
    return Check("versions", PASS, text)


def _nodes(nodes: tuple[m.NodeStatus, ...]) -> Check:
    lost = [node.name for node in nodes if node.state is m.NodeState.LOST]
    text = f"{len(nodes) - len(lost)} are there"
    text += f", {len(lost)} lost: {', '.join(lost[:5])}" if lost else ""
    if lost or not nodes:
        state = WARN if len(lost) < len(nodes) else FAIL
        return Check("nodes", state, text, "look at `burla nodes list`; `burla up` mends nodes")
    return Check("nodes", PASS, text)


# --- this machine ---


def _keys(address: str | None, wrong_keys: KeyFiles) -> Check:
    wrong = wrong_keys(address)
    path = user_key_path()
    looked = []
    if path is not None and os.path.lexists(path):
        looked.append(path)
        try:
            load_pair(path)
        except KeyFileError as error:
            wrong.append(str(error))
    if wrong:
        return Check("key modes", FAIL, "; ".join(wrong), "do what is said of each file")
    text = f"{path} is only yours" if looked else "you have no key of your own, and need none yet"
    return Check("key modes", PASS, text)


def _descriptors() -> Check:
    if sys.platform == "win32":
        return Check("descriptors", PASS, "this system does not limit them")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"a process may open {soft} files, {hard} if it asks"
    remedy = "raise it: `ulimit -n 65536`, or nofile in /etc/security/limits.conf"
    if hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_GOOD:
        return Check("descriptors", PASS, text)
    return Check("descriptors", FAIL if hard < DESCRIPTORS_MIN else WARN, text, remedy)


def _disks() -> Iterator[Check]:
    """Yield how much is free where we write; each file system once."""
    seen = set()
    wanted = [tempfile.gettempdir(), SHARED_MEMORY, state_directory(), settings_directory()]
    for path in filter(None, wanted):
        there = Path(path)
        while not there.exists() and there != there.parent:
            there = there.parent
        device = os.stat(there).st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        text = f"{free / (1 << 30):.3g} GiB are free at {there}"
        state = FAIL if free < DISK_MIN else WARN if free < DISK_GOOD else PASS
        yield Check("disk", state, text, "" if state == PASS else _disk_remedy(there))


def _disk_remedy(there: Path) -> str:
    if there != Path(SHARED_MEMORY):
        return "make room there"
    larger = f"`mount -o remount,size=2g {SHARED_MEMORY}`, or `--shm-size 2g` of a container"
    return f"remove what is left there, or make it larger: {larger}"


def _isolation(isolation: Isolation, address: str | None) -> Check:
    if sys.platform != "linux":
        return Check("isolation", PASS, "this machine can be no node: those need Linux")
    try:
        tier, why = isolation(address or "")
    except OSError as error:
        return Check("isolation", WARN, f"cannot be tried: {error}", "see `burla-nodelet --help`")
    text = f"a node here would isolate jobs by {tier}{f' ({why})' if why else ''}"
    if tier == "process":
        remedy = "let only users who trust each other share it, or allow user namespaces"
        return Check("isolation", WARN, text, remedy)
    return Check("isolation", PASS, text)


def _index(clocks: _Clocks) -> Check:
    url = _index_url()
    request = urllib.request.Request(f"{_plain(url).rstrip('/')}/pip/", method="HEAD")
    if login := urllib.parse.urlsplit(url).netloc.rpartition("@")[0]:  # urllib takes none in a URL
        basic = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        if error.code not in (404, 405):  # it is there all the same
            return _no_index(url, str(error))
        date = error.headers.get("Date")
    except (OSError, ValueError) as error:
        return _no_index(url, str(getattr(error, "reason", error)))
    with contextlib.suppress(TypeError, ValueError):  # it is no date
        clocks.index_s = time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    return Check("index", PASS, f"pip finds packages at {_plain(url)}")


def _no_index(url: str, why: str) -> Check:
    remedy = "nodes cannot install from it: `burla up --wheelhouse auto`, or --index URL"
    text = f"the package index {_plain(url)} does not answer: {why}"
    return Check("index", WARN, text, remedy)


def _plain(url: str) -> str:
    """Return a URL without a password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def _index_url() -> str:
    """Return which index pip is configured to ask."""
    if named := os.environ.get("PIP_INDEX_URL"):
        return named
    line = [sys.executable, "-m", "pip", "config", "list"]
    try:
        said = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return INDEX
    found = re.search(r"^(?:global|user|site|install)\.index-url='(.*)'$", said, re.MULTILINE)
    return found[1] if found else INDEX


def _clock(clocks: _Clocks) -> Iterator[Check]:
    """Yield how our clock is, beside those that we know of; which one is wrong two of them tell."""
    remedy = "set the clock: `timedatectl set-ntp true`"
    if clocks.scheduler_s is not None:
        yield _compared(clocks.scheduler_s, "the scheduler's machine", f"{remedy}, here or there")
    if clocks.index_s is not None:
        yield _compared(clocks.index_s, "the package index", remedy)
    if clocks != _Clocks():
        return
    line = ["timedatectl", "show", "--property", "NTPSynchronized", "--value"]
    try:
        said = subprocess.run(line, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    if said.strip() == "yes":
        yield Check("clock", PASS, "it is kept by NTP")
    else:
        yield Check("clock", WARN, "nothing here tells whether it is right", remedy)


def _compared(skew_s: float, whose: str, remedy: str) -> Check:
    by_s = abs(skew_s)
    state = FAIL if by_s > SKEW_S_MAX else WARN if by_s > SKEW_S else PASS
    text = f"it is {by_s:.0f} s {'ahead of' if skew_s >= 0 else 'behind'} that of {whose}"
    if by_s < 1:
        text = f"it is that of {whose}"
    return Check("clock", state, text, "" if state == PASS else remedy)
