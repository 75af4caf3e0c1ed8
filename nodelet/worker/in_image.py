"""The Python of a container image, as workers of a sandbox that shows the image become it.

It has to be one of the node's own version and kind: then it loads what the node's has compiled, and
pickles mean the same to both. Whether it is so is tried once per sandbox, without any privilege.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, BuiltinImporter, FrozenImporter
from importlib.util import find_spec

import cloudpickle
import msgpack

import burla
from burla.nodelet.isolation.images import FACTS, FILES, LIBRARY, Root
from burla.nodelet.isolation.sandbox import Confinement, share

from .fresh import Python

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as containers have it
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
KIND = EXTENSION_SUFFIXES[0]  # of modules that it loads: .cpython-312-x86_64-linux-gnu.so
SAID_BYTES_MAX = 64 << 10
# Of any version of Python: it says what it is, and then tries what workers import.
_TRIAL = (
    "import sys; sys.stdout.write('%d.%d ' % (sys.version_info[0], sys.version_info[1])); "
    "sys.stdout.write(__import__('_imp').extension_suffixes()[0] + '\\n'); sys.stdout.flush(); "
    "sys.version_info[:2] == {} and (sys.path.insert(0, {!r}) or "
    "__import__('burla.nodelet.worker.worker'))"
)


class UnusableError(Exception):
    """No worker can be had from this image; the text says why, and what would help."""


class InImage:
    """The root of the workers of one sandbox."""

    def __init__(self, image: str, shown: list[str]) -> None:
        """Be the init, before `sandbox.furnish`.

        Args:
            image: the directory with its files and facts.
            shown: what else workers see, under the same names as here.

        Raises:
            UnusableError: it cannot be shown.
        """
        try:
            with open(os.path.join(image, FACTS)) as file:
                variables: dict[str, str] = json.load(file)["variables"]
            files = os.path.join(image, FILES)
            self._root = Root(files, _library(), shown, {"PATH": PATH, **variables})
        except OSError as error:
            raise UnusableError(str(error)) from None

    def enter(self, confinement: Confinement, uid: int, gid: int, *, is_tried: bool) -> None:
        """Make it ready, after `sandbox.furnish`.

        Raises:
            UnusableError: it cannot be shown, or no worker can be had.
        """
        self.confine = lambda: self._root.confine(confinement, uid, gid)
        try:
            self._root.mount()
        except OSError as error:
            raise UnusableError(str(error)) from None
        # Where this process has its /tmp it would now find modules of the image, and has rights.
        sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
        if not is_tried:
            try_python(self.confine)

    def share(self, directory: str) -> None:
        """Let workers write to a directory that all nodes have; see `sandbox.share`."""
        share(directory)
        self._root.share(directory)


def _library() -> list[str]:
    """Return the packages that workers import, and that no image need have."""
    packages = [burla.__file__, msgpack.__file__, cloudpickle.__file__]
    spec = find_spec("xxhash")
    packages.append(None if spec is None else spec.origin)
    return [os.path.dirname(os.path.abspath(path)) for path in packages if path]


def find_python() -> Python:
    """Return the Python of the image whose root this process has.

    Raises:
        FileNotFoundError: it has none on its PATH.
    """
    for name in (f"python{MINOR}", "python3", "python"):
        if path := shutil.which(name):
            return Python(path, LIBRARY)
    raise FileNotFoundError("no Python is on its PATH")


def try_python(confine: Callable[[], None]) -> None:
    """Find out in a child whether workers can be had.

    Raises:
        UnusableError: they cannot.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(confine, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read(SAID_BYTES_MAX).decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if why := _objection(said, os.waitstatus_to_exitcode(status)):
        raise UnusableError(why)


def _try(confine: Callable[[], None], writer: int) -> None:
    try:
        confine()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (writer, 1), (writer, 2)):
            os.dup2(source, target)
        python = find_python()
        program = _TRIAL.format(tuple(sys.version_info[:2]), LIBRARY)
        os.execve(python.executable, [python.executable, "-P", "-B", "-c", program], os.environ)
    except OSError as error:
        os.write(writer, f"\n{error}".encode())
    finally:
        os._exit(1)


def _objection(said: str, code: int) -> str:
    """Return why its Python cannot be used, by what it said of itself; empty: it can."""
    told, _, rest = said.partition("\n")
    version, _, kind = told.partition(" ")
    wanted = f"take one with Python {MINOR}, as python:{MINOR}-slim"
    last = next((line.strip() for line in reversed(rest.splitlines()) if line.strip()), "")
    if not version.replace(".", "").isdigit():
        last = last or told.strip()
        return f"it has no Python that runs here ({last or f'exit code {code}'}): {wanted}"
    if version != MINOR:
        return f"its Python is {version}, and yours is {MINOR}: {wanted}"
    if "musl" in kind and "musl" not in KIND:
        return f"it is built on musl, as Alpine is, and the nodes are on glibc: {wanted}"
    if kind != KIND:
        built = f"its Python {version} is built for {_shown(kind)}, that of the nodes for"
        return f"{built} {_shown(KIND)}: {wanted}"
    if code:
        return f"its Python {version} cannot load what workers need ({last or f'exit code {code}'})"
    return ""


def _shown(kind: str) -> str:
    return kind.strip().removeprefix(".").removesuffix(".so") or "something else"
