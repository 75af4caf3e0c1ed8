"""What ARCHITECTURE.md says about rooms and purity, checked on every first-party file."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Where a room lies, and the name its modules have when imported. The longest prefix decides.
ROOMS = {
    "burla/wire": "burla.wire",
    "burla": "burla",
    "scheduler": "burla.scheduler",
    "nodelet": "burla.nodelet",
    "provisioning": "burla.provisioning",
    "perf": "perf",
    "tests": "tests",
}
OPENS_PAYLOADS = {"burla.wire.values", "burla.wire.pickling"}  # not for daemons
DAEMONS = ("burla.scheduler.cli", "burla.scheduler.server", "burla.nodelet.agent")
FORKING = (
    "burla.nodelet.zygote",
    "burla.nodelet.worker",
    "burla.nodelet.keeper",
)  # what they import runs in workers

# Room -> what of ours it may import: whole rooms, or single modules.
MAY_IMPORT = {
    "burla/wire": {"burla.wire"},
    "burla": {"burla", "burla.wire"},
    "scheduler": {"burla.scheduler", "burla.wire"},  # but for OPENS_PAYLOADS
    "nodelet": {"burla.nodelet", "burla.wire"},
    "provisioning": {"burla.provisioning", "burla.wire"},
    "perf": {
        "burla",
        "burla.wire",
        "burla.scheduler",
        "burla.nodelet",
        "burla.provisioning",
        "perf",
    },
}
PRODUCT = {"burla/wire", "burla", "scheduler", "nodelet", "provisioning"}
COMMANDS = {"burla/cli.py", "burla/key_commands.py"}  # may import any room, inside a command

PURE = {
    "burla/acks.py",
    "burla/effects.py",
    "burla/replay.py",
    "burla/session.py",
    "burla/wire/codec.py",
    "burla/wire/messages.py",
    "burla/wire/ranges.py",
    "burla/wire/seals.py",
    "nodelet/core.py",
    "nodelet/crew.py",
    "nodelet/dealing.py",
    "nodelet/effects.py",
    "nodelet/lease.py",
    "nodelet/memory.py",
    "nodelet/phases.py",
    "nodelet/reporting.py",
    "nodelet/robbery.py",
    "nodelet/store.py",
    "nodelet/streams.py",
    "provisioning/addresses.py",
    "provisioning/capacity.py",
    "provisioning/facts.py",
    "provisioning/machines.py",
    "provisioning/plan.py",
    "provisioning/steps.py",
    "scheduler/batches.py",
    "scheduler/admission.py",
    "scheduler/board.py",
    "scheduler/checking.py",
    "scheduler/clients.py",
    "scheduler/core.py",
    "scheduler/dealing.py",
    "scheduler/demand.py",
    "scheduler/effects.py",
    "scheduler/feeding.py",
    "scheduler/held.py",
    "scheduler/jobs.py",
    "scheduler/leases.py",
    "scheduler/lingering.py",
    "scheduler/nodes.py",
    "scheduler/quotas.py",
    "scheduler/status.py",
    "scheduler/waiting.py",
}
PURE_NEEDS = {  # a list of what is allowed: what is not on it may read a clock or a socket
    *("__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib"),
    *("heapq", "hmac", "itertools", "math", "operator", "typing", "msgspec", "msgpack"),
    *("re", "shlex", "types"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__"}

DEPENDENCIES = {  # as imported; pyproject.toml has them as installed
    *("zmq", "msgpack", "msgspec", "cloudpickle", "uvloop", "rich", "click"),
    *(
        "paramiko",
        "google",
        "requests",
    ),  # of the extras "ssh" and "gce": loaded by what needs them only
}
NO_NETWORK = {"zmq", "asyncio", "uvloop"}  # never where something forks
UNPICKLES = {"pickle", "cloudpickle", "shelve"}  # never in a daemon
ONLY_PICKLES = "burla/wire/frames.py"  # writes pickles; a daemon may use it to cut frames
PICKLE_ON_ARRIVAL = {"recv_pyobj", "send_pyobj"}  # pyzmq's: whoever can send runs code here
TOP_FOLDERS = {"scheduler", "nodelet", "provisioning"}  # would load a second copy of each class

LINES_MAX = 400
LONG = {  # path -> why it is one file all the same
    "burla/wire/messages.py": "every message, declared once",
    "tests/burla/test_session.py": "one session: conversations, and anything that may happen",
    "tests/burla/test_local.py": "every way in which a private cluster begins and ends",
    "tests/end_to_end/test_calling.py": "every way to call the one function",
    "tests/end_to_end/test_crashes.py": "every way in which a worker dies",
    "tests/end_to_end/test_traps.py": "one trap a test, and there are many",
    "tests/scheduler/test_core.py": "one core: conversations, and any order of events",
    "tests/security/test_isolation_matrix.py": "one table of what a job can not do, a row a test",
    "tests/support/world.py": "one model of all that lies around the three cores",
    "tests/test_architecture.py": "the rules, and that each can be broken",
    "tests/wire/test_scripts.py": "what a script defines, kind by kind",
}


@dataclass(frozen=True)
class Import:
    """One imported module, under its full name."""

    module: str
    line: int
    level: int  # leading dots
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`, never carried out


def room_of(path: str) -> str | None:
    """Return the room that the file at `path` belongs to."""
    return next((room for room in ROOMS if path.startswith(f"{room}/")), None)


def module_of(path: str) -> str:
    """Return the name under which the file at `path` is imported."""
    room = room_of(path)
    assert room is not None, path
    rest = path.removeprefix(f"{room}/").removesuffix(".py").removesuffix("__init__").rstrip("/")
    return ".".join([ROOMS[room], *rest.split("/")]) if rest else ROOMS[room]


def room_of_module(module: str) -> str | None:
    """Return the room that `module` lies in; None: not ours."""
    for room, name in ROOMS.items():
        if name != "burla" and (module == name or module.startswith(f"{name}.")):
            return room
    return "burla" if module.split(".")[0] == "burla" else None


def imports(path: str, tree: ast.AST, modules: set[str]) -> Iterator[Import]:
    """Yield every import in `tree`; `modules` tells modules from names inside them."""
    package = (
        module_of(path) if path.endswith("/__init__.py") else module_of(path).rpartition(".")[0]
    )

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, 0, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found = inner if inner in modules else base
                yield Import(found, node.lineno, node.level, in_function, for_types)
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, in_function, for_types)

    return walk(tree, in_function=False, for_types=False)


def may_import(path: str, found: Import) -> bool:
    """Return whether the file at `path` may import one of our modules."""
    room, target = room_of(path), room_of_module(found.module)
    assert room is not None, path
    if path in COMMANDS and found.in_function and target in PRODUCT:
        return True
    if room == "scheduler" and found.module in OPENS_PAYLOADS:
        return False
    if found.module == "burla" and room in PRODUCT:
        return True  # the package itself, to ask where it lies: it loads nothing
    allowed = MAY_IMPORT[room]
    return found.module in allowed or (target is not None and ROOMS[target] in allowed)


def import_faults(path: str, found: Import) -> Iterator[str]:
    """Yield what is wrong with one import of the file at `path`."""
    room, top = room_of(path), found.module.split(".")[0]
    target = room_of_module(found.module)
    if found.level > 1:
        yield f"imports upwards, by {'.' * found.level}"
        return
    if top in TOP_FOLDERS:
        yield f"imports {found.module}: loads a second copy of burla.{found.module}"
    if room == "tests":
        return
    if target is not None:
        if not may_import(path, found):
            yield f"imports {found.module}, which its room may not"
        elif (found.level == 1) != (target == room):
            yield f"imports {found.module}: siblings relatively, other rooms absolutely"
    elif room in PRODUCT and top not in sys.stdlib_module_names | DEPENDENCIES | TOP_FOLDERS:
        yield f"imports {top}, which pyproject.toml does not name"
    if path in PURE:
        pure = {module_of(file) for file in PURE} | {"burla.errors"}
        if found.module not in pure and top not in PURE_NEEDS:
            yield f"imports {found.module}, but is pure"


def faults(path: str, source: str, modules: set[str]) -> list[str]:
    """Return every breach of the rules in one file, each with its line."""
    if room_of(path) is None:
        return [f"{path}: belongs to no room"]
    tree = ast.parse(source, path)
    seen: list[tuple[int, str]] = [
        (found.line, fault)
        for found in imports(path, tree, modules)
        for fault in import_faults(path, found)
    ]
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=None):
                seen.append((node.lineno, "catches everything with a bare except"))
            case ast.Attribute(attr=name) if name in PICKLE_ON_ARRIVAL:
                seen.append((node.lineno, f"uses {name}"))
            case ast.Call(func=ast.Name(id=name)) if path in PURE and name in IMPURE_CALLS:
                seen.append((node.lineno, f"calls {name}(), but is pure"))
    lines = source.count("\n")
    if lines > LINES_MAX and path not in LONG:
        seen.append((lines, f"is longer than {LINES_MAX} lines"))
    return list(dict.fromkeys(f"{path}:{line}: {text}" for line, text in sorted(seen)))


def sources() -> dict[str, str]:
    """Return path -> text of every first-party file; the links inside burla/ are left out."""
    files = list(ROOT.glob("*.py"))
    for top in ROOT.iterdir():
        if top.is_dir() and (top.name in ROOMS or (top / "__init__.py").exists()):
            files += top.rglob("*.py")
    links = tuple(f"burla/{folder}/" for folder in TOP_FOLDERS)
    paths = ((file.relative_to(ROOT).as_posix(), file) for file in files)
    return {path: file.read_text("utf-8") for path, file in paths if not path.startswith(links)}


def graph_of(files: dict[str, str]) -> dict[str, list[Import]]:
    """Return module -> what it imports when it runs, inside functions too."""
    modules = {module_of(path) for path in files}
    return {
        module_of(path): [
            found for found in imports(path, ast.parse(source), modules) if not found.for_types
        ]
        for path, source in files.items()
    }


def cycle(files: dict[str, str]) -> list[str]:
    """Return modules that import each other in a ring when loaded; []: there is none."""
    graph = graph_of(files)
    ours = {
        module: {found.module for found in its if found.module in graph and not found.in_function}
        for module, its in graph.items()
    }
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as ring:
        return list(ring.args[1])
    return []


def reaches(files: dict[str, str], start: str, never: set[str]) -> list[str]:
    """Return the imports of `never` in `start` and in whatever of ours it imports, however deep."""
    graph = graph_of(files)
    ahead, seen, found = [start], {start}, []
    while ahead:
        module = ahead.pop()
        for target in graph[module]:
            if target.module.split(".")[0] in never:
                found.append(f"{module}:{target.line}: {target.module}")
            if target.module in graph and target.module not in seen:
                seen.add(target.module)
                ahead.append(target.module)
    return found


def test_every_file_keeps_to_its_room() -> None:
    files = sources()
    modules = {module_of(path) for path in files if room_of(path)}
    assert [fault for path, text in files.items() for fault in faults(path, text, modules)] == []


def test_imports_never_run_in_a_ring() -> None:
    assert cycle({path: text for path, text in sources().items() if room_of(path)}) == []


@pytest.mark.parametrize("start", FORKING)
def test_what_forks_and_what_is_forked_never_reaches_the_network(start: str) -> None:
    assert (
        reaches({p: text for p, text in sources().items() if room_of(p)}, start, NO_NETWORK) == []
    )


@pytest.mark.parametrize("start", DAEMONS)
def test_a_daemon_never_reaches_what_unpickles(start: str) -> None:
    files = {path: text for path, text in sources().items() if room_of(path)}
    found = reaches(files, start, UNPICKLES)
    writer = module_of(ONLY_PICKLES)
    assert [place for place in found if not place.startswith(f"{writer}:")] == []


def test_what_only_pickles_never_reads_a_pickle() -> None:
    tree = ast.parse((ROOT / ONLY_PICKLES).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert names.isdisjoint({"load", "loads", "Unpickler"})
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "pickle"]


def test_every_pure_file_is_there() -> None:
    assert sorted(path for path in PURE if not (ROOT / path).exists()) == []


def test_every_file_listed_as_long_still_is() -> None:
    assert [path for path in LONG if (ROOT / path).read_text().count("\n") <= LINES_MAX] == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("scheduler/core.py", "import time", "is pure"),
        ("scheduler/core.py", "def f():\n    from zmq.utils import z85", "is pure"),
        ("scheduler/core.py", "from burla.wire.sockets import make", "is pure"),
        ("scheduler/core.py", "x = open('f')", "calls open()"),
        ("scheduler/server.py", "from burla.wire.values import loads", "may not"),
        ("scheduler/server.py", "from burla.wire import values", "may not"),
        ("scheduler/server.py", "from burla.nodelet.core import Nodelet", "may not"),
        ("scheduler/server.py", "from burla.errors import BurlaError", "may not"),
        ("scheduler/server.py", "from burla.scheduler.core import Scheduler", "relatively"),
        ("scheduler/server.py", "from ..wire import messages", "upwards"),
        ("scheduler/server.py", "import flask", "pyproject"),
        ("scheduler/server.py", "def f():\n    socket.recv_pyobj()", "recv_pyobj"),
        ("scheduler/server.py", "try:\n    f()\nexcept:\n    pass", "bare except"),
        ("scheduler/server.py", "x = 1\n" * 401, "longer"),
        ("nodelet/worker.py", "from burla.errors import BurlaError", "may not"),
        ("burla/wire/codec.py", "from burla.session import Session", "may not"),
        ("burla/client.py", "from .wire.codec import encode", "absolutely"),
        ("burla/client.py", "def f():\n    from burla.scheduler.core import x", "may not"),
        ("burla/cli.py", "from burla.scheduler.core import x", "may not"),
        ("burla/cli.py", "import perf", "may not"),
        ("provisioning/ssh.py", "from burla.errors import BurlaError", "may not"),
        ("perf/tiny.py", "from tests import support", "may not"),
        ("tests/test_x.py", "import scheduler.core", "second copy"),
        ("helpers/x.py", "", "no room"),
        ("x.py", "", "no room"),
    ],
)
def test_a_breach_is_found(path: str, source: str, fault: str) -> None:
    modules = {"burla.wire.values", "burla.wire.pickling", "burla.wire.messages"}
    found = faults(path, source, modules)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("scheduler/core.py", "from collections.abc import Iterable\nfrom .jobs import Job"),
        ("scheduler/server.py", "import zmq\nfrom burla.wire import codec\nfrom .core import S"),
        ("nodelet/worker.py", "import os\nfrom burla.wire.values import x\nfrom .slate import S"),
        ("nodelet/agent.py", "import asyncio\nfrom .slate import Slate"),
        ("burla/client.py", "import zmq\nfrom burla.wire.codec import e\nfrom .session import S"),
        ("burla/cli.py", "def f():\n    from burla.scheduler.server import serve"),
        ("perf/tiny.py", "import joblib\nfrom burla import f\nfrom .measure import pair"),
        ("tests/x/test_y.py", "import numpy, perf\nfrom burla.scheduler.core import Scheduler"),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, source: str) -> None:
    assert faults(path, source, {"burla.wire.codec"}) == []


def test_a_ring_is_found() -> None:
    ring = {"scheduler/a.py": "from .b import x", "scheduler/b.py": "from .a import y"}
    assert set(cycle(ring)) == {"burla.scheduler.a", "burla.scheduler.b"}
    ring["scheduler/b.py"] = "def f():\n    from .a import y"
    assert cycle(ring) == []


def test_what_is_reached_by_detours_is_found() -> None:
    files = {
        "nodelet/zygote.py": "from . import effects\ndef f():\n    from .forks import g",
        "nodelet/forks.py": "from burla.wire import sockets",
        "burla/wire/sockets.py": "import zmq.asyncio",
        "nodelet/agent.py": "import zmq",
        "nodelet/effects.py": "if TYPE_CHECKING:\n    from .agent import x",
    }
    assert reaches(files, "burla.nodelet.zygote", {"zmq"}) == ["burla.wire.sockets:1: zmq.asyncio"]
    assert reaches(files, "burla.nodelet.zygote", {"pickle"}) == []


def loaded(module: str) -> set[str]:
    """Return the modules that a fresh interpreter holds once it has imported `module`."""
    code = f"import {module}, json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def within(modules: Iterable[str], tops: set[str]) -> set[str]:
    return {module for module in modules if module in tops or module.split(".")[0] in tops}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("burla", {"zmq", "asyncio", "cloudpickle", "rich", "click", "numpy"}),
        ("burla.wire", {"zmq", "asyncio", "cloudpickle"}),
        ("burla.scheduler.server", OPENS_PAYLOADS | {"cloudpickle", "burla.client"}),
        ("burla.nodelet.agent", OPENS_PAYLOADS | {"cloudpickle", "burla.client"}),
        ("burla.nodelet.zygote", NO_NETWORK | {"burla.wire.sockets", "rich", "click", "numpy"}),
        ("burla.nodelet.worker", NO_NETWORK | {"burla.wire.sockets", "rich", "click", "numpy"}),
    ],
)
def test_a_fresh_interpreter_loads_only_what_the_room_needs(module: str, never: set[str]) -> None:
    modules = loaded(module)
    assert module in modules
    assert within(modules, never) == set()
