"""The caller's own modules on another machine: files in a directory of the lease, found first.

They travel with the function of a job, by content, and are put where only the workers of the lease
can read them and nobody writes. What they are called there, and where they lie at the caller, is
said by an `OwnModules`: names are found there before anywhere else, and tracebacks name the
caller's files.
"""

import importlib
import linecache
import os
import sys
import zlib
from collections.abc import Sequence, Set as AbstractSet
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import msgpack

from .assertions import code_of_rewritten, is_rewritten
from .file_locks import LOCK_EX, OPEN_PRIVATELY, flock

NEVER_OWN = frozenset(("burla", "cloudpickle", "__main__", "__mp_main__"))  # all pickles name these


NAME_BYTES = 16


class OwnFile(NamedTuple):
    """One file; plain data."""

    path: bytes  # below the directory, with slashes
    origin: bytes  # where it lies at the caller
    part: int  # which has it,
    start: int  # from here
    size: int
    is_program: bool  # it may be executed


class OwnModules(NamedTuple):
    """What a caller says about its own modules; plain data, as all in it."""

    name: str  # hexadecimal; tells these files from all others
    platform: str  # for which its extension modules were built
    files: Sequence[OwnFile]
    packed: Sequence[bool]  # by part: it is deflated
    tops: Sequence[str]  # names of top-level modules
    archives: Sequence[bytes]  # import path entries among the files, or in one of them
    extensions: Sequence[str]  # names of modules that need this platform
    refused: dict[str, str]  # names of modules that cannot travel, with why


def pack_own_modules(own: OwnModules) -> bytes:
    """Return the bytes of one, which begin with its name."""
    packed: bytes = msgpack.packb(own)
    return bytes.fromhex(own.name) + packed


def unpack_own_modules(packed: bytes | memoryview) -> OwnModules:
    """Return what was packed."""
    name, built_for, files, *rest = msgpack.unpackb(packed[NAME_BYTES:])
    return OwnModules(name, built_for, [OwnFile(*file) for file in files], *rest)


def platform() -> str:
    """Return what machines have in common that can run each other's extension modules."""
    return EXTENSION_SUFFIXES[0].strip(".").partition(".")[0]


def serve_own_modules(
    own: OwnModules | None, parts: Sequence[bytes | memoryview], place: str
) -> None:
    """From now on import these under their names, and those of an earlier job no more.

    Args:
        own: None: there are none.
        parts: the content of the files.
        place: a directory of the lease's, in which one of their own is made.
    """
    for finder in [one for one in sys.meta_path if type(one) is _Finder]:
        finder.withdraw()
    if own is None:
        return
    directory = os.path.join(place, own.name)
    if not os.path.isdir(directory):
        _put_down_once(own, parts, directory)
    finder = _Finder(own, directory)
    finder.install()
    finder.begin_job()


def serve_own_modules_again(packed: bytes | memoryview) -> bool:
    """Serve those that were served for the last job, if these are they; return whether they are."""
    name = bytes(packed[:NAME_BYTES]).hex()
    for finder in sys.meta_path:
        if type(finder) is _Finder and finder.name == name and os.path.isdir(finder.directory):
            finder.begin_job()
            return True
    return False


def serves_one_of(tops: AbstractSet[str]) -> bool:
    """Return whether one of these top-level names is one of the caller's own modules."""
    return any(one.has_one_of(tops) for one in sys.meta_path if type(one) is _Finder)


# --- the files ---


def _put_down_once(own: OwnModules, parts: Sequence[bytes | memoryview], directory: str) -> None:
    """Have the files there: the first of the workers that begin together writes them for all."""
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    place = os.open(os.path.dirname(directory), os.O_RDONLY | OPEN_PRIVATELY)
    try:
        flock(place, LOCK_EX)
        if not os.path.isdir(directory):
            put_down(own, parts, directory)
    finally:
        os.close(place)


def put_down(own: OwnModules, parts: Sequence[bytes | memoryview], directory: str) -> None:
    """Write all files; several processes may do so at once."""
    made = f"{directory}.{os.getpid()}"
    ends = [0] * len(parts)
    for file in own.files:
        ends[file.part] = max(ends[file.part], file.start + file.size)
    whole = [
        _inflate(part, end) if packed else part
        for part, packed, end in zip(parts, own.packed, ends, strict=True)
    ]
    folders = {made}
    os.makedirs(made, 0o755, exist_ok=True)
    for file in own.files:
        path = os.path.join(made, _checked(os.fsdecode(file.path)))
        folder = os.path.dirname(path)
        while folder not in folders:
            os.makedirs(folder, 0o755, exist_ok=True)
            folders.add(folder)
            folder = os.path.dirname(folder)
        mode = 0o555 if file.is_program else 0o444
        content = memoryview(whole[file.part])[file.start : file.start + file.size]
        if len(content) != file.size:
            raise ValueError(f"{path!r} is not all there")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
            os.fchmod(opened.fileno(), mode)  # whatever the umask is
    for folder in folders - {made}:
        os.chmod(folder, 0o555)
    try:
        os.rename(made, directory)
        os.chmod(directory, 0o555)
    except OSError:
        if not os.path.isdir(directory):
            raise
        _remove(made, folders)  # another was quicker


def _inflate(part: bytes | memoryview, size: int) -> bytes:
    """Return the first bytes of what was deflated: no more than the files need."""
    return zlib.decompressobj().decompress(part, size) if size else b""


def _remove(directory: str, folders: set[str]) -> None:
    import shutil  # with all that compresses, which callers do without

    for folder in folders:
        os.chmod(folder, 0o755)
    shutil.rmtree(directory, ignore_errors=True)


def _checked(path: str) -> str:
    if os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError(f"{path!r} would lie elsewhere")
    return path


# --- finding them ---


class _Finder:
    """A finder that is asked first: for names of the caller's top-level modules, and for refusals.

    What lies in packages is found by their paths, with the loaders below.
    """

    def __init__(self, own: OwnModules, directory: str) -> None:
        self.name = own.name
        self._tops = frozenset(own.tops) - NEVER_OWN
        self._refused = dict(own.refused)
        if own.platform != platform():
            why = f"it was built for {own.platform}, and this node is {platform()}"
            self._refused |= dict.fromkeys(own.extensions, why)
        self.directory = directory
        self._origins = {
            os.path.join(directory, os.fsdecode(file.path)): os.fsdecode(file.origin)
            for file in own.files
        }
        archives = [os.path.join(directory, os.fsdecode(one)) for one in own.archives]
        self._path = [directory, *archives]

    def is_own(self, name: str) -> bool:
        """Return whether the caller has a module of its own by this name."""
        return name.partition(".")[0] in self._tops

    def has_one_of(self, tops: AbstractSet[str]) -> bool:
        """Return whether the caller has an own module by one of these names."""
        refused = {name.partition(".")[0] for name in self._refused}
        return not tops.isdisjoint(self._tops | refused)

    def install(self) -> None:
        """Be asked first from now on."""
        sys.meta_path.insert(0, self)
        sys.path_hooks.insert(0, self._finder_of)
        importlib.invalidate_caches()

    def begin_job(self) -> None:
        """Let imports find the caller's modules; who has another of these names keeps it."""
        for name in [one for one in sys.modules if self.is_own(one)]:
            sys.modules.pop(name, None)
        sys.path[:] = [*self._path, *(entry for entry in sys.path if entry not in self._path)]

    def withdraw(self) -> None:
        """Be asked no more."""
        sys.meta_path.remove(self)
        sys.path_hooks[:] = [hook for hook in sys.path_hooks if hook != self._finder_of]
        sys.path[:] = [entry for entry in sys.path if entry not in self._path]
        for path in [one for one in sys.path_importer_cache if self._is_below(one)]:
            del sys.path_importer_cache[path]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """Return the caller's module; None: it is not the caller's own, or lies in a package.

        Raises:
            ModuleNotFoundError: it is the caller's own, and could not come along.
        """
        if (why := self._refused.get(name)) is not None:
            text = f"the caller's own module {name!r} is not on this node: {why}"
            raise ModuleNotFoundError(text, name=name)
        if path is not None or name not in self._tops:
            return None
        spec = PathFinder.find_spec(name, self._path)
        if spec is not None and spec.loader is None:  # others may have parts of this namespace
            wide = PathFinder.find_spec(name)
            return wide if wide is not None and wide.loader is None else spec
        return spec

    def invalidate_caches(self) -> None:
        """Forget nothing: files of the caller's do not change."""

    def _finder_of(self, path: str) -> FileFinder:
        if not self._is_below(path) or not os.path.isdir(path):
            raise ImportError("not the caller's own", path=path)
        source: Any = self._loader  # called as a class would be
        return FileFinder(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (source, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )

    def _is_below(self, path: str) -> bool:
        return os.path.join(path, "").startswith(os.path.join(self.directory, ""))

    def _loader(self, name: str, path: str) -> SourceFileLoader:
        return _Loader(name, path, self._origins.get(path, path))


class _Loader(SourceFileLoader):
    """Loads a module of the caller's; its code says that it is from the caller's file."""

    def __init__(self, name: str, path: str, origin: str) -> None:
        super().__init__(name, path)
        self._origin = origin

    def get_code(self, fullname: str) -> CodeType | None:
        source = self.get_data(self.path)
        if is_rewritten(self._origin):
            return code_of_rewritten(source, self._origin)
        return self.source_to_code(source, self._origin)

    def exec_module(self, module: ModuleType) -> None:
        if os.path.exists(self._origin):  # another file, which is not to be shown in tracebacks
            text = self.get_source(module.__name__) or ""
            lines = text.splitlines(keepends=True)
            linecache.cache[self._origin] = len(text), None, lines, self._origin
        super().exec_module(module)
