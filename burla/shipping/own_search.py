"""Which modules of the caller's own a function may need: found by following imports.

Own is what is neither installed nor of the standard library: beside the script, in directories on
`sys.path`, editable installs. The search begins with what the code of the function imports and with
all that is loaded (inputs may be of any loaded class), and follows what each module imports, also
inside functions. Of a package with `__init__.py` all that lies below travels; in other directories
only what is imported, and what lies beside it: they may be anything, a home for example.
"""

import os
import sys
import time
import warnings
import zipimport
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import BYTECODE_SUFFIXES, SOURCE_SUFFIXES, SourceFileLoader
from types import CodeType
from typing import Any, NamedTuple

from burla.values.assertions import REWRITER
from burla.values.attributes import dict_of
from burla.values.imports import NO_IMPORTS, Imports, imports_of
from burla.values.own_modules import NEVER_OWN

from .carried_modules import found_by_worker, is_usual_loader
from .own_files import (
    DEPTH_MAX,
    FILES_MAX,
    Listing,
    State,
    is_passed_over,
    listing_of,
    module_file,
    read,
    state_of,
    stems,
)

# What goes along of files beside modules in a directory that is no package.
BESIDE_BYTES_MAX = 1 << 20
BESIDE_FILES_MAX = 256
BYTECODE_NS = 2_000_000_000  # Python's own bytecode knows the time of its source to the second


class Module(NamedTuple):
    """One module of the caller's own."""

    file: str | None  # None: it is a directory without `__init__.py`
    directories: tuple[str, ...] = ()  # of a package
    loader: zipimport.zipimporter | None = None  # of one in an archive


class Search:
    """One search, and what it has found."""

    def __init__(self, path: tuple[str, ...], by_value: frozenset[str]) -> None:
        """Begin with nothing.

        Args:
            path: absolute import path.
            by_value: names of modules that travel in another way.
        """
        self.files: dict[str, str] = {}  # that travel, by their path below the one of the node
        self.modules: dict[str, Module] = {}  # all that may be imported of what travels, by name
        self.found: dict[str, Module] = {}  # those of them that were come upon
        self.imported: dict[str, list[str]] = {}  # by each of them: names, also of others' modules
        self.archives: dict[str, None] = {}
        self.watched: dict[str, State] = {}  # all that was looked at
        self.is_cut = False  # there was too much
        self._asks = False  # code that travels by value looks where some file lies
        self._by_value = by_value
        self._own_entries = [one for one in path if not is_installed(one) and os.path.exists(one)]
        self._foreign: set[str] = set()  # names that are known to be of no own module
        self._ambiguous: set[str] = set()  # files beside modules that lie in several places
        self._inside: dict[str, tuple[str, str]] = {}  # directories in directories, not looked at

    def follow(self, imports: Imports) -> None:
        """Find all that code with these imports may need."""
        self._asks = self._asks or imports.asks_for_file
        todo = [*imports.names, *self._modules_in(imports.texts)]
        if todo or imports.is_dynamic:
            for entry in self._own_entries:
                self._watch(entry)
        if imports.is_dynamic:
            todo += [name for entry in self._own_entries for name in _importable_in(entry)]
        while todo:
            name = todo.pop()
            if name in self.found or name in self._foreign:
                continue
            module = self._locate(name)
            if module is None:
                self._foreign.add(name)
                continue
            self.found[name] = module
            if parent := name.rpartition(".")[0]:
                todo.append(parent)
            imports = _imports_in(name, module)
            named = [*imports.names, *self._modules_in(imports.texts)]
            if imports.is_dynamic:
                named += self._around(name, module)
            self.imported[name] = named
            todo += named
            asks = self._asks or imports.asks_for_file
            if asks and "." not in name and not module.directories:
                self._take_beside(module)

    def follow_loaded(self) -> None:
        """Find all that is loaded, and all that it may import."""
        names = frozenset(name for name, _ in loaded_own(self._by_value))
        self.follow(NO_IMPORTS._replace(names=names))

    def add_metadata(self, files: Mapping[str, str]) -> None:
        """Take files along that are no modules, by their path on the node."""
        for path, file in files.items():
            self._add(path, file)

    def top_names(self) -> list[str]:
        """Return under which names others must not be found."""
        return sorted({name.partition(".")[0] for name in (*self.modules, *self.found)})

    # --- names to files ---

    def _locate(self, name: str) -> Module | None:
        if name.partition(".")[0] in NEVER_OWN or name in self._by_value:
            return None
        if (known := self.modules.get(name)) is not None:
            return known
        parent = name.rpartition(".")[0]
        above = self._locate(parent) if parent and parent not in self._foreign else None
        if parent and above is None:
            return None
        if (known := self.modules.get(name)) is not None:  # it came with the package
            return known
        if name in self._inside:
            return self._take_directory(name, *self._inside[name])
        if name in sys.modules:
            module = _of_loaded(name)
            return None if module is None else self._take(name, module)
        if above is None:
            return self._take_spec(name, None)
        return self._take_spec(name, above.directories) if above.loader is not None else None

    def _take_spec(self, name: str, path: tuple[str, ...] | None) -> Module | None:
        if not name.isidentifier() and path is None:
            return None
        module = _of_spec(found_by_worker(name, None if path is None else list(path)))
        return None if module is None else self._take(name, module)

    def _take(self, name: str, module: Module) -> Module:
        """Take what an import of this name finds; of a package all that goes with it."""
        if module.loader is not None:
            self.archives[module.loader.archive] = None
            self._watch(module.loader.archive)
        elif module.file is None:
            for directory in module.directories:
                self._take_space(name, directory)
        elif module.directories:
            for directory in module.directories:
                if not is_installed(directory):
                    self._take_package(name, name.replace(".", "/"), directory)
        else:
            self._add(_path_of(name, module.file), module.file)
        self.modules[name] = module
        return module

    def _take_directory(self, name: str, directory: str, kind: str) -> Module:
        file = os.path.join(directory, kind) if kind else None
        return self._take(name, Module(file, (directory,)))

    def _take_package(self, name: str, where: str, directory: str, depth: int = 0) -> None:
        """Take all that lies below.

        Args:
            name: of the package; empty: nothing in here has a name.
            where: its path below the one of the node.
            directory: where that is here.
            depth: how far inside a package.
        """
        listing = self._list(directory)
        for file in listing.files:
            if not _is_idle_bytecode(file, listing):
                self._add(f"{where}/{file}", os.path.join(directory, file))
        self._note_modules(name, directory, listing)
        for inner in listing.directories:
            below = os.path.join(directory, inner)
            if is_passed_over(directory, inner) or depth >= DEPTH_MAX or _leads_up(below):
                continue
            inside = f"{name}.{inner}" if name and inner.isidentifier() else ""
            if inside:
                init = module_file("__init__", listing_of(below).files)
                initial = os.path.join(below, init) if init else None
                self.modules.setdefault(inside, Module(initial, (below,)))
            self._take_package(inside, f"{where}/{inner}", below, depth + 1)

    def _take_space(self, name: str, directory: str) -> None:
        """Take what lies in a directory that is no package by itself."""
        listing = self._list(directory)
        where = name.replace(".", "/")
        for file in (*filter(_is_module, listing.files), *_files_beside(listing)):
            self._add(f"{where}/{file}", os.path.join(directory, file))
        self._note_modules(name, directory, listing)
        for inner in listing.directories:
            if inner.isidentifier() and not is_passed_over(directory, inner):
                below = os.path.join(directory, inner)
                init = module_file("__init__", listing_of(below).files)
                self._inside.setdefault(f"{name}.{inner}", (below, init or ""))

    def _take_beside(self, module: Module) -> None:
        """Take small files that lie beside a module which is in no package."""
        if module.file is None or module.loader is not None:
            return
        directory = os.path.dirname(module.file)
        for name in _files_beside(self._list(directory)):
            file = os.path.join(directory, name)
            if self.files.get(name, file) != file:  # another module has one of this name beside it
                self._ambiguous.add(name)
            self._add(name, file)
        for name in self._ambiguous & self.files.keys():  # better none than another's
            self.files[name] = ""

    def _note_modules(self, name: str, directory: str, listing: Listing) -> None:
        for stem in stems(listing.files):
            file = module_file(stem, listing.files)
            if file is not None and stem != "__init__" and name:
                module = Module(os.path.join(directory, file))
                self.modules.setdefault(f"{name}.{stem}", module)

    def _add(self, path: str, file: str) -> None:
        if len(self.files) >= FILES_MAX:
            self.is_cut = True
        else:
            self.files.setdefault(path, file)
            self._watch(file)

    def _list(self, directory: str) -> Listing:
        self._watch(directory)
        return listing_of(directory)

    def _watch(self, path: str) -> None:
        if path not in self.watched and (state := state_of(path)) is not None:
            self.watched[path] = state

    # --- what only a run would tell ---

    def _modules_in(self, texts: Iterable[str]) -> list[str]:
        """Return the texts that may be names of modules; any directory has a name."""
        return [text for text in texts if "." in text or not self._is_space(text)]

    def _is_space(self, name: str) -> bool:
        if name in self.found or name in self._foreign or name in sys.modules:
            return False
        spec = found_by_worker(name, None)
        return spec is not None and spec.loader is None

    def _around(self, name: str, module: Module) -> Iterable[str]:
        """Return what a module could import without naming it: all in its package, or beside it."""
        top = name.partition(".")[0]
        if name != top or module.directories:
            inside = (*self.modules, *self._inside)
            return [other for other in inside if other.startswith(f"{top}.")]
        if module.file is None or module.loader is not None:
            return ()
        directory = os.path.dirname(module.file)
        self._watch(directory)
        return _importable_in(directory)


_MODULES = (*SOURCE_SUFFIXES, *BYTECODE_SUFFIXES, ".so", ".pyd")


def _leads_up(directory: str) -> bool:
    """Return whether this is a link to a directory that it lies in."""
    if not os.path.islink(directory):
        return False
    whole = os.path.join(os.path.realpath(directory), "")
    return os.path.realpath(os.path.dirname(directory)).startswith(whole.rstrip(os.sep))


def _is_module(file: str) -> bool:
    return file.endswith(_MODULES) and file.partition(".")[0].isidentifier()


def _files_beside(listing: Listing) -> list[str]:
    """Return what else goes along from a directory with modules; nothing if it is one of data."""
    if not any(map(_is_module, listing.files)):
        return []
    others = [
        file
        for file, size in listing.files.items()
        if size <= BESIDE_BYTES_MAX and not file.startswith(".") and not _is_module(file)
    ]
    return others if len(others) <= BESIDE_FILES_MAX else []


def _path_of(name: str, file: str) -> str:
    """Return where a module lies below the one directory of the node."""
    base = os.path.basename(file)
    _, dot, suffix = base.partition(".")
    return name.replace(".", "/") + (dot + suffix if base.endswith(_MODULES) else ".py")


def _is_idle_bytecode(file: str, listing: Listing) -> bool:
    stem, suffix = os.path.splitext(file)
    return suffix in BYTECODE_SUFFIXES and f"{stem}.py" in listing.files


def _importable_in(directory: str) -> list[str]:
    """Return the modules and packages that lie in a directory of an import path."""
    listing = listing_of(directory)
    packages = [
        name
        for name in listing.directories
        if name.isidentifier()
        and not is_passed_over(directory, name)
        and module_file("__init__", listing_of(os.path.join(directory, name)).files)
    ]
    return [*stems(listing.files), *packages]


# --- what is loaded ---


def loaded_own(by_value: frozenset[str]) -> Iterator[tuple[str, Module]]:
    """Yield the modules of the caller's own that are loaded, by name."""
    for name in list(sys.modules):
        if name.partition(".")[0] not in NEVER_OWN and name not in by_value:
            module = _of_loaded(name)
            if module is not None:
                yield name, module


def _of_loaded(name: str) -> Module | None:
    """Return what is loaded under this name, if it is the caller's own; if lazy, it stays so."""
    attributes = dict_of(sys.modules.get(name))
    spec: Any = attributes.get("__spec__")
    if attributes.get("__name__") != name:  # another name for it
        return None
    loader = attributes.get("__loader__") or getattr(spec, "loader", None)
    if isinstance(loader, zipimport.zipimporter):
        return _in_archive(loader, attributes.get("__file__"), attributes.get("__path__"))
    file, path = attributes.get("__file__"), attributes.get("__path__")
    if file is None and path is not None:
        return _space(path)
    is_usual = loader is None or is_usual_loader(loader) or _is_rewriter(loader)
    if not isinstance(file, str) or not is_usual or not os.path.isabs(file):
        return None
    if is_installed(file):
        return None
    return _in_file(file, path)


def _of_spec(spec: Any) -> Module | None:
    if spec is None:
        return None
    if isinstance(spec.loader, zipimport.zipimporter):
        return _in_archive(spec.loader, spec.origin, spec.submodule_search_locations)
    if spec.origin is None or not spec.has_location:
        return _space(spec.submodule_search_locations or ())
    return None if is_installed(spec.origin) else _in_file(
        spec.origin, spec.submodule_search_locations
    )  # fmt: skip


def _in_file(file: str, path: Any) -> Module | None:
    directories = () if path is None else tuple(str(one) for one in path)
    place = os.path.dirname(directories[0] if directories else file)
    return None if holds_distributions(place) else Module(os.path.abspath(file), directories)


def _space(path: Any) -> Module | None:
    directories = [str(one) for one in path if not is_installed(str(one))]
    directories = [one for one in directories if os.path.isdir(one)]
    return Module(None, tuple(directories)) if directories else None


def _in_archive(loader: zipimport.zipimporter, file: Any, path: Any) -> Module | None:
    if is_installed(loader.archive):
        return None
    directories = () if path is None else tuple(str(one) for one in path)
    return Module(file if isinstance(file, str) else None, directories, loader)


def _is_rewriter(loader: Any) -> bool:
    return type(loader).__module__ == REWRITER


def holds_distributions(directory: str) -> bool:
    """Return whether packages are installed into a directory, as by `pip install --target`."""
    return any(name.endswith(".dist-info") for name in listing_of(directory).directories)


def is_installed(path: str) -> bool:
    """Return whether this lies in the standard library or among installed packages."""
    whole = os.path.join(path, "")
    return (
        whole.startswith(STANDARD_PLACES)
        or "/site-packages/" in whole
        or "/dist-packages/" in whole
    )


_LIBRARY = os.path.dirname(os.__file__)
STANDARD_PLACES = (  # of the standard library; the second: where it lies if it is zipped
    os.path.join(_LIBRARY, ""),
    os.path.join(
        os.path.dirname(_LIBRARY), f"python{sys.version_info[0]}{sys.version_info[1]}.zip", ""
    ),
)


# --- what a module imports ---

_imports: dict[str, tuple[str, object, Imports]] = {}  # by file, with its package and content
IMPORTS_MAX = 1 << 14


def _imports_in(name: str, module: Module) -> Imports:
    package = name if module.directories else name.rpartition(".")[0]
    if module.loader is not None:
        return _imports_in_archive(name, module.loader, package)
    file = module.file
    if file is None or not file.endswith((*SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)):
        return NO_IMPORTS
    try:
        content = read(file)
    except OSError:
        return NO_IMPORTS
    known = _imports.get(file)
    if known is not None and known[0] == package and known[1] is content.data:
        return known[2]
    code = _code_of(name, file, content.data, content.state)
    imports = NO_IMPORTS if code is None else imports_of(code, package)
    if len(_imports) >= IMPORTS_MAX:
        _imports.clear()
    _imports[file] = package, content.data, imports
    return imports


def _code_of(name: str, file: str, data: bytes, state: State) -> CodeType | None:
    """Return the code of a module; None: it has none, as its import will say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its import has something to say, or has said it
            if file.endswith(tuple(BYTECODE_SUFFIXES)):
                return found_code(name, file)
            if state[0] < time.time_ns() - BYTECODE_NS:
                return SourceFileLoader(name, file).get_code(name)
            code: CodeType = compile(data, file, "exec", dont_inherit=True)
            return code
    except Exception:  # a fault in it; or too deep
        return None


def found_code(name: str, file: str) -> CodeType | None:
    """Return the code in a file that has nothing but code."""
    from importlib.machinery import SourcelessFileLoader

    return SourcelessFileLoader(name, file).get_code(name)


def _imports_in_archive(name: str, loader: zipimport.zipimporter, package: str) -> Imports:
    try:
        return imports_of(loader.get_code(name), package)
    except Exception:  # a directory of it, or a fault in it
        return NO_IMPORTS
