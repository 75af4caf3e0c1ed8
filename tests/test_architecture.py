"""What ARCHITECTURE.md says about rooms and purity, checked on every first-party file."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Where a room lies, and the name its modules have when imported. The longest prefix decides.
ROOMS = {
    "burla/protocol": "burla.protocol",
    "burla/transport": "burla.transport",
    "burla/values": "burla.values",
    "burla/system": "burla.system",
    "burla/core": "burla.core",
    "burla/shell": "burla.shell",
    "burla/private": "burla.private",
    "burla/interfaces": "burla.interfaces",
    "burla/shipping": "burla.shipping",
    "burla/resume": "burla.resume",
    "burla/commands": "burla.commands",
    "burla/dashboard/core": "burla.dashboard.core",
    "burla/dashboard": "burla.dashboard",
    "burla": "burla",
    "scheduler/core": "burla.scheduler.core",
    "scheduler/auth": "burla.scheduler.auth",
    "scheduler/store": "burla.scheduler.store",
    "scheduler/shell": "burla.scheduler.shell",
    "scheduler": "burla.scheduler",
    "nodelet/core": "burla.nodelet.core",
    "nodelet/shell": "burla.nodelet.shell",
    "nodelet/worker": "burla.nodelet.worker",
    "nodelet/isolation": "burla.nodelet.isolation",
    "nodelet": "burla.nodelet",
    "provisioning/core": "burla.provisioning.core",
    "provisioning/install": "burla.provisioning.install",
    "provisioning/ssh": "burla.provisioning.ssh",
    "provisioning/gce": "burla.provisioning.gce",
    "provisioning/slurm": "burla.provisioning.slurm",
    "provisioning/pbs": "burla.provisioning.pbs",
    "provisioning/kubernetes": "burla.provisioning.kubernetes",
    "provisioning": "burla.provisioning",
    "perf": "perf",
    "tests": "tests",
}

# Room -> what of ours it may import besides itself: whole rooms, or single modules.
MAY_IMPORT = {
    "burla/protocol": set(),
    "burla/transport": {"burla.protocol"},
    "burla/values": set(),
    "burla/system": set(),
    "burla/core": {"burla.protocol"},
    "burla/shell": {
        *("burla.core", "burla.protocol", "burla.transport", "burla.values"),
        *("burla.config", "burla.ends", "burla.errors"),
    },
    "burla/private": {
        *("burla.scheduler.shell", "burla.scheduler.config"),
        *("burla.nodelet.shell", "burla.nodelet.config"),
        *("burla.transport", "burla.system"),
    },
    "burla/interfaces": {
        *("burla.arguments", "burla.config", "burla.errors", "burla.nested", "burla.calling"),
        *("burla.monkey_patches", "burla.options", "burla.own_frames", "burla.parallel_map"),
        *("burla.retry", "burla.starting", "burla.variables", "burla.shipping", "burla.resume"),
        *("burla.core", "burla.shell", "burla.protocol", "burla.values", "burla.transport"),
    },
    "burla/shipping": {
        *("burla.config", "burla.errors", "burla.shell.streams"),
        *("burla.protocol", "burla.system", "burla.values"),
    },
    "burla/resume": {
        *("burla.arguments", "burla.errors", "burla.starting"),
        *("burla.shipping", "burla.core", "burla.shell"),
        *("burla.protocol", "burla.values", "burla.system"),
    },
    "burla/commands": {
        *("burla.config", "burla.detached", "burla.errors"),
        *("burla.parallel_map", "burla.private_cluster"),
        *("burla.resume", "burla.shipping", "burla.shell"),
        *("burla.protocol", "burla.transport", "burla.values", "burla.system"),
    },
    "burla/dashboard/core": {
        *("burla.protocol", "burla.commands.jobs_view"),
        *("burla.commands.job_reports", "burla.commands.report_types"),
    },
    "burla/dashboard": {
        *("burla.dashboard.core", "burla.protocol", "burla.transport", "burla.shell"),
        *("burla.errors", "burla.commands"),
    },
    "burla": {
        *("burla.core", "burla.shell", "burla.interfaces", "burla.shipping", "burla.resume"),
        *("burla.protocol", "burla.transport", "burla.values", "burla.system", "burla.commands"),
    },
    "scheduler/core": {"burla.protocol"},
    "scheduler/store": {"burla.protocol", "burla.scheduler.core.store_limits"},
    "scheduler/auth": {"burla.scheduler.core", "burla.protocol", "burla.transport"},
    "scheduler/shell": {
        *("burla.scheduler.core", "burla.scheduler.auth", "burla.scheduler.config"),
        "burla.scheduler.store",
        *("burla.protocol", "burla.transport", "burla.system.dump"),
    },
    "scheduler": {
        *("burla.scheduler.core", "burla.scheduler.auth", "burla.scheduler.shell"),
        "burla.scheduler.store",
        *("burla.protocol", "burla.transport", "burla.system"),
    },
    "nodelet/core": {"burla.protocol"},
    "nodelet/shell": {
        *("burla.nodelet.core", "burla.nodelet.worker", "burla.nodelet.isolation"),
        *("burla.nodelet.config", "burla.protocol", "burla.transport"),
        *("burla.system.dump", "burla.system.procfs"),
    },
    "nodelet/worker": {"burla.nodelet.isolation", "burla.values", "burla.errors"},
    "nodelet/isolation": {"burla.system.paths", "burla.transport.addresses"},
    "nodelet": {
        *("burla.nodelet.core", "burla.nodelet.shell", "burla.nodelet.isolation"),
        *("burla.protocol", "burla.transport", "burla.system"),
    },
    "provisioning/core": {"burla.protocol"},
    "provisioning/install": {"burla.provisioning.core", "burla.protocol", "burla.system"},
    "provisioning/ssh": {"burla.provisioning.core"},
    "provisioning/gce": {
        *("burla.provisioning.core", "burla.provisioning.install", "burla.provisioning.config"),
    },
    "provisioning/slurm": {
        *("burla.provisioning.core", "burla.provisioning.config"),
        *("burla.scheduler.core.admission", "burla.system"),
    },
    "provisioning/pbs": {"burla.provisioning.core", "burla.provisioning.slurm.batch"},
    "provisioning/kubernetes": {
        *("burla.provisioning.core", "burla.provisioning.install", "burla.provisioning.config"),
        *("burla.provisioning.provider_settings", "burla.scheduler.core.admission"),
        "burla.transport.addresses",
    },
    "provisioning": {
        *("burla.provisioning.core", "burla.provisioning.install", "burla.provisioning.ssh"),
        *("burla.provisioning.gce", "burla.provisioning.slurm"),
        *("burla.provisioning.kubernetes", "burla.provisioning.pbs"),
        *("burla.scheduler.auth", "burla.scheduler.core.admission", "burla.scheduler.config"),
        *("burla.protocol", "burla.transport", "burla.system", "burla.shipping.requirement_files"),
    },
    "perf": {name for room, name in ROOMS.items() if room != "tests"},
}
PRODUCT = set(MAY_IMPORT) - {"perf"}
COMMANDS = {
    "burla/cli.py",
    *(f"burla/commands/{name}.py" for name in ("auth", "cluster", "dashboard", "env", "jobs")),
    *(f"burla/commands/{name}.py" for name in ("logs", "options", "resume")),
}  # may import any room, inside a command

ANYWHERE = {
    "burla",  # the package itself, to ask where it lies: it loads nothing
    "burla.limits",
}

PURE = {
    "burla/protocol",
    "burla/core",
    "burla/dashboard/core",
    "scheduler/core",
    "scheduler/store",
    "nodelet/core",
    "provisioning/core",
}
PURE_NEEDS = {  # a list of what is allowed: what is not on it may read a clock or a socket
    *("__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib"),
    *("heapq", "hmac", "itertools", "math", "operator", "typing", "msgspec", "msgpack"),
    *("blake3", "re", "shlex", "struct", "types", "xxhash"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__"}

DEPENDENCIES = {  # as imported; pyproject.toml has them as installed
    *("zmq", "msgpack", "msgspec", "cloudpickle", "uvloop", "rich", "click"),
    *("blake3", "xxhash", "packaging", "uv"),
    *(
        "paramiko",
        "google",
        "requests",
        *("lightkube", "httpx2"),
    ),  # of the extras "ssh", "gce" and "kubernetes": loaded by what needs them only
    "prometheus_client",  # of the extra "metrics"
    *("jinja2", "starlette", "uvicorn"),  # of the extra "dashboard"
}
NETWORK = {"zmq", "asyncio", "uvloop"}  # never where something forks
NEVER_IN_WORKERS = NETWORK | {"burla.transport.sockets", "rich", "click", "numpy"}
# Room -> what must not be reached from it, by whatever detour.
NEVER_REACHES = {
    "nodelet/worker": NETWORK,
    "nodelet/isolation": NETWORK,
    "scheduler": {"cloudpickle", "shelve", "burla.values"},  # a scheduler opens no payload
    "scheduler/shell": {"cloudpickle", "shelve", "pickle", "burla.values"},
    "burla/private": {"cloudpickle", "shelve", "pickle", "burla.values"},
    "nodelet/shell": {"cloudpickle", "shelve", "pickle", "burla.values"},
}
PICKLE_ON_ARRIVAL = {"recv_pyobj", "send_pyobj"}  # pyzmq's: whoever can send runs code here
TOP_FOLDERS = {"scheduler", "nodelet", "provisioning"}  # would load a second copy of each class

LINES_MAX = 600  # .ci/run names those past 400: ask there whether a second thing wants out
MEMBERS_MAX = 25  # methods of a class, and attributes of its instances


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
    if found.module in ANYWHERE and room in PRODUCT:
        return True
    allowed = MAY_IMPORT[room] | {ROOMS[room]}
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
        elif (found.level == 1) != (target == room) and found.module not in ANYWHERE:
            yield f"imports {found.module}: siblings relatively, other rooms absolutely"
    elif room in PRODUCT and top not in sys.stdlib_module_names | DEPENDENCIES | TOP_FOLDERS:
        yield f"imports {top}, which pyproject.toml does not name"
    if room in PURE and target is None and top not in PURE_NEEDS:
        yield f"imports {found.module}, but is pure"


def faults(path: str, source: str, modules: set[str]) -> list[str]:
    """Return every breach of the rules in one file, each with its line."""
    if room_of(path) is None:
        return [f"{path}: belongs to no room"]
    tree = ast.parse(source, path)
    is_pure = room_of(path) in PURE
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
            case ast.Call(func=ast.Name(id=name)) if is_pure and name in IMPURE_CALLS:
                seen.append((node.lineno, f"calls {name}(), but is pure"))
            case ast.ClassDef() if room_of(path) in PRODUCT:
                seen += [(node.lineno, fault) for fault in size_faults(node)]
    lines = source.count("\n")
    if lines > LINES_MAX:
        seen.append((lines, f"is longer than {LINES_MAX} lines"))
    return list(dict.fromkeys(f"{path}:{line}: {text}" for line, text in sorted(seen)))


def size_faults(node: ast.ClassDef) -> Iterator[str]:
    """Yield whether a class has more methods, or its instances more attributes, than one thing."""
    methods = [e for e in node.body if isinstance(e, ast.FunctionDef | ast.AsyncFunctionDef)]
    declared = {
        e.target.id
        for e in node.body
        if isinstance(e, ast.AnnAssign) and isinstance(e.target, ast.Name)
    }
    assigned = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    if len(methods) > MEMBERS_MAX:
        yield f"{node.name} has {len(methods)} methods, more than {MEMBERS_MAX}"
    if len(declared | assigned) > MEMBERS_MAX:
        yield f"{node.name} has {len(declared | assigned)} attributes, more than {MEMBERS_MAX}"


@cache
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
    """Return module -> what it imports, inside functions and for types too."""
    modules = {module_of(path) for path in files}
    return {
        module_of(path): list(imports(path, ast.parse(source), modules))
        for path, source in files.items()
    }


@cache
def graph_of_all() -> dict[str, list[Import]]:
    """Return the graph of all that is in a room."""
    return graph_of({path: text for path, text in sources().items() if room_of(path)})


def cycle(graph: dict[str, list[Import]]) -> list[str]:
    """Return modules that import each other in a ring, for types too; []: there is none.

    An import inside a function is how a program is started or a rare part is loaded.
    """
    ours = {
        module: {found.module for found in its if found.module in graph and not found.in_function}
        for module, its in graph.items()
    }
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as ring:
        return list(ring.args[1])
    return []


def reaches(graph: dict[str, list[Import]], start: str, never: set[str]) -> list[str]:
    """Return the imports of `never` in `start` and in whatever of ours it imports, however deep."""
    ahead, seen, found = [start], {start}, []
    while ahead:
        module = ahead.pop()
        for target in graph[module]:
            if target.for_types:
                continue
            if any(target.module == name or target.module.startswith(f"{name}.") for name in never):
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
    assert cycle(graph_of_all()) == []


@pytest.mark.parametrize("room", NEVER_REACHES)
def test_no_detour_leads_where_a_room_must_not_go(room: str) -> None:
    starts = [module_of(path) for path in sources() if room_of(path) == room]
    assert len(starts) > 1
    graph = graph_of_all()
    assert [e for start in starts for e in reaches(graph, start, NEVER_REACHES[room])] == []


def test_every_room_is_there_and_installed() -> None:
    product = {name: room for room, name in ROOMS.items() if room in PRODUCT}
    assert {room for room in ROOMS if not (ROOT / room / "__init__.py").exists()} <= {"tests"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    installed = project["tool"]["setuptools"]
    assert sorted(installed["packages"]) == sorted(product)
    assert installed["package-dir"] == product


def class_of(methods: int = 0, declared: int = 0, assigned: int = 0) -> str:
    """Return the source of a class X with so many methods, declared and assigned attributes."""
    body = [f"    def m{i}(self): pass" for i in range(methods)]
    body += [f"    d{i}: int" for i in range(declared)]
    body += ["    async def m0(self):", "        self.a0, other.b = 0, 0"] if assigned else []
    body += [f"        self.a{i} = 0" for i in range(assigned)]
    return "\n".join(["class X:", *body])


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("scheduler/core/job.py", "import time", "is pure"),
        ("scheduler/core/job.py", "def f():\n    from zmq.utils import z85", "is pure"),
        ("scheduler/core/job.py", "from burla.transport.sockets import make", "may not"),
        ("scheduler/core/job.py", "from burla.scheduler.shell.server import run", "may not"),
        ("scheduler/core/job.py", "x = open('f')", "calls open()"),
        ("scheduler/shell/server.py", "from burla.values.payloads import loads", "may not"),
        ("scheduler/shell/server.py", "from burla.values import payloads", "may not"),
        ("scheduler/shell/server.py", "from burla.nodelet.core.nodelet import Nodelet", "may not"),
        ("scheduler/shell/server.py", "from burla.errors import BurlaError", "may not"),
        ("scheduler/shell/server.py", "from burla.scheduler.shell.channel import C", "relatively"),
        ("scheduler/shell/server.py", "from ..core import effects", "upwards"),
        ("scheduler/shell/server.py", "import flask", "pyproject"),
        ("scheduler/shell/server.py", "def f():\n    socket.recv_pyobj()", "recv_pyobj"),
        ("scheduler/shell/server.py", "try:\n    f()\nexcept:\n    pass", "bare except"),
        ("scheduler/shell/server.py", "x = 1\n" * 601, "longer"),
        ("scheduler/shell/server.py", class_of(methods=26), "X has 26 methods"),
        ("scheduler/shell/server.py", class_of(assigned=26), "X has 26 attributes"),
        ("scheduler/shell/server.py", class_of(declared=26), "X has 26 attributes"),
        ("scheduler/shell/server.py", class_of(declared=13, assigned=13), "X has 26 attributes"),
        ("nodelet/worker/worker.py", "from burla.config import read", "may not"),
        ("nodelet/worker/worker.py", "from burla.protocol.messages import Span", "may not"),
        ("nodelet/isolation/uids.py", "from burla.nodelet.worker.forks import x", "may not"),
        ("burla/protocol/codec.py", "from burla.core.session import Session", "may not"),
        ("burla/values/frames.py", "from burla.protocol.codec import split", "may not"),
        ("burla/nested.py", "from .protocol.codec import encode", "absolutely"),
        ("burla/nested.py", "def f():\n    from burla.scheduler.core.job import x", "may not"),
        ("burla/cli.py", "from burla.scheduler.core.job import x", "may not"),
        ("burla/cli.py", "import perf", "may not"),
        ("provisioning/ssh/transport.py", "from burla.errors import BurlaError", "may not"),
        ("provisioning/ssh/transport.py", "from burla.provisioning.gce import compute", "may not"),
        ("perf/tiny.py", "from tests import support", "may not"),
        ("tests/test_x.py", "import scheduler.core", "second copy"),
        ("helpers/x.py", "", "no room"),
        ("x.py", "", "no room"),
    ],
)
def test_a_breach_is_found(path: str, source: str, fault: str) -> None:
    modules = {"burla.values.payloads", "burla.core.effects", "burla.provisioning.gce.compute"}
    found = faults(path, source, modules)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("scheduler/core/state.py", "from collections.abc import Iterable\nfrom .job import Job"),
        (
            "scheduler/shell/server.py",
            "import zmq\nfrom burla.protocol import codec\nfrom burla.scheduler.core.job import J",
        ),
        (
            "nodelet/worker/worker.py",
            "import os\nfrom burla.values.payloads import x\nfrom .slate import S",
        ),
        ("nodelet/worker/pipes.py", "from burla.limits import FRAME_BYTES_MAX"),
        ("nodelet/shell/agent.py", "import asyncio\nfrom burla.nodelet.worker.slate import Slate"),
        ("burla/shell/io_thread.py", "import zmq\nfrom burla.core.session import Session"),
        ("burla/cli.py", "def f():\n    from burla.scheduler.shell.server import serve"),
        ("perf/tiny.py", "import joblib\nfrom burla import f\nfrom .measure import pair"),
        ("tests/x/test_y.py", "import numpy, perf\nfrom burla.scheduler.core.job import Job"),
        ("scheduler/shell/server.py", class_of(methods=24, declared=12, assigned=13)),
        ("tests/x/test_y.py", class_of(methods=26)),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, source: str) -> None:
    assert faults(path, source, {"burla.protocol.codec"}) == []


def test_a_ring_is_found() -> None:
    ring = {"scheduler/a.py": "from .b import x", "scheduler/b.py": "from .a import y"}
    assert set(cycle(graph_of(ring))) == {"burla.scheduler.a", "burla.scheduler.b"}
    ring["scheduler/b.py"] = "if TYPE_CHECKING:\n    from .a import y"
    assert set(cycle(graph_of(ring))) == {"burla.scheduler.a", "burla.scheduler.b"}
    ring["scheduler/b.py"] = "def f():\n    from .a import y"
    assert cycle(graph_of(ring)) == []


def test_what_is_reached_by_detours_is_found() -> None:
    files = {
        "nodelet/worker/zygote.py": "from . import types\ndef f():\n    from .forks import g",
        "nodelet/worker/forks.py": "from burla.transport import sockets",
        "burla/transport/sockets.py": "import zmq.asyncio\nimport zmq_other",
        "nodelet/shell/agent.py": "import zmq",
        "nodelet/worker/types.py": "if TYPE_CHECKING:\n    from burla.nodelet.shell.agent import x",
    }
    graph, start = graph_of(files), "burla.nodelet.worker.zygote"
    assert reaches(graph, start, {"zmq"}) == ["burla.transport.sockets:1: zmq.asyncio"]
    assert reaches(graph, start, {"pickle"}) == []
    found = reaches(graph, start, {"burla.transport"})
    assert found == ["burla.nodelet.worker.forks:1: burla.transport.sockets"]


def loaded(module: str) -> set[str]:
    """Return the modules that a fresh interpreter holds once it has imported `module`."""
    code = f"import {module}, json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def within(modules: Iterable[str], tops: set[str]) -> set[str]:
    return {m for m in modules if any(m == top or m.startswith(f"{top}.") for top in tops)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("burla", {"zmq", "asyncio", "cloudpickle", "rich", "click", "numpy"}),
        ("burla.protocol", {"zmq", "asyncio", "cloudpickle"}),
        ("burla.scheduler.shell.server", {"burla.values", "cloudpickle", "burla.shell"}),
        ("burla.nodelet.shell.agent", {"burla.values", "cloudpickle", "burla.shell"}),
        ("burla.private.cli", {"zmq", "asyncio", "uvloop", "msgspec", "tempfile", "argparse"}),
        ("burla.nodelet.worker.zygote", NEVER_IN_WORKERS),
        ("burla.nodelet.worker.worker", NEVER_IN_WORKERS),
    ],
)
def test_a_fresh_interpreter_loads_only_what_the_room_needs(module: str, never: set[str]) -> None:
    modules = loaded(module)
    assert module in modules
    assert within(modules, never) == set()
