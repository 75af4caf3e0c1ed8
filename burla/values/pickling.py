"""Objects <-> bytes: the pickler of all values, and what it leaves to its loading side.

Classes and functions of the caller's `__main__` (and of modules that must travel by value) are sent
by value, once, under the id that cloudpickle tracks a class by. On the way back a class is named by
that id only, so that what the caller gets is its own class, untouched: `isinstance`, `except` and
enum identity work, and no class attribute is ever overwritten by a remote copy.

Never imports zmq, asyncio or msgspec: the zygote and the workers load it. The scheduler never does.
"""

import copyreg
import functools
import importlib
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, EnumType
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import cloudpickle_parts as parts
from .attributes import LateDescriptor, answers_itself, take_apart
from .carried import Carrier, drop_carried
from .code import reduce_code
from .enums import fill_enum, make_enum, reduce_enum
from .frames import Frames, NotLoadableError, Pieces, load
from .imports import codes_in
from .named import (
    bare_objects,
    find_class,
    global_name,
    home_of,
    is_only_itself,
    parts_of,
    pickles_itself,
    set_state,
)
from .text_names import named_in_text

SENT_CLASSES_MAX = 4096  # classes kept alive here because a worker may name them; oldest go first


CarriedBy = Callable[[Iterable[CodeType]], dict[str, bytes]]


class ResultNotPicklableError(Exception):
    """What the function returned cannot be pickled; the text says which part and why."""


class Sent:
    """What of the caller's `__main__` travels with the function of one job.

    The classes in it need not be sent again with inputs.
    """

    def __init__(
        self,
        by_value: frozenset[str] = frozenset(),
        carried: CarriedBy | None = None,
        modules: object = None,
    ) -> None:
        self.modules = modules  # the same object as long as `sys.modules` is; None: not known
        self.by_value = by_value  # names of modules that the workers cannot import
        self.carried = carried  # gives modules for the workers to load; None: they need none
        self.classes: dict[type, str] = {}  # class -> its id
        self.codes: list[CodeType] = []  # of functions that travel by value

    def needed(self) -> tuple[Any, ...]:
        """Return what must be loaded before the rest, as some code may import it by its name."""
        if not self.by_value and self.carried is None:
            return ()
        carried = {} if self.carried is None else self.carried(self.codes)
        modules = []
        if self.by_value:
            named = {name for code in self.codes for one in codes_in(code) for name in one.co_names}
            found = sorted(name for name in self.by_value & named if name in sys.modules)
            modules = [sys.modules[name] for name in found]
        return (Carrier(carried), modules) if carried or modules else ()


def dumps(obj: object) -> list[bytes]:
    """Return the frames of any object; what they were made of may change afterwards."""
    return take_apart_any(obj).cut()


def take_apart_any(obj: object) -> Pieces:
    """Return the pickle of any object, as long as nothing that it was made of changes."""
    pieces = Pieces()
    Pickler(pieces, pieces.hold).dump(obj)
    return pieces


def loads(frames: Frames) -> Any:
    """Return the object that `dumps` was given; its buffers are writable if they were."""
    return load(frames)


# --- the pickler ---------------------------------------------------------------------------------


_dispatch_table: dict[type, Any] = {}  # what is in it stays: other threads pickle with it


def refresh_dispatch_table() -> None:
    """Take over what was registered with `copyreg` since; every pickler sees it."""
    global _registered
    registered = len(copyreg.dispatch_table)
    if registered != _registered:
        _dispatch_table.update({**parts.Pickler.dispatch_table, CodeType: reduce_code})
        _registered = registered  # last: who finds it so may rely on the table


_registered = -1


class Pickler(parts.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
    """Pickles anything; decides what goes by reference, by value, or by the id of a class."""

    dispatch_table = _dispatch_table  # a plain dict; cloudpickle's chain of two is slow
    by_value: frozenset[str] = frozenset()  # names of modules beside __main__
    _is_trial = False  # True: its pickles are thrown away
    of_job = False  # True: towards workers, functions share one set of globals per module and job

    def __init__(self, file: Any, buffer_callback: Any = None) -> None:
        refresh_dispatch_table()
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._bare_objects: dict[int, tuple[object, str, str]] | None = None
        # By id: types of which nothing is found by a name; at all, or if it has attributes.
        self._plain: dict[int, tuple[type, bool]] = {}
        self.left_behind: dict[str, frozenset[str]] = {}  # of modules that travel by value
        self._references = _OURS.copy()  # classes and functions found importable

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle a class, a function or a module; NotImplemented for all else."""
        kind = type(obj)
        if kind is type and obj in self._references:
            return NotImplemented
        if kind is FunctionType:
            return NotImplemented if obj in self._references else self._reduce_function(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is _CacheWrapper:
            return self._reduce_cached(obj)
        if kind in _WEAK:  # `functools.singledispatch` keeps one
            return kind, (dict(obj),)
        if kind is functools.cached_property:  # until 3.12 it has a lock, which cannot be pickled
            state = {name: value for name, value in vars(obj).items() if name != "lock"}
            return functools.cached_property, (obj.func,), state
        if kind is ModuleType and self._travels(obj.__name__):
            state = self._state_of_module(obj)
            return _job_module, (obj.__name__,), state, None, None, _fill_module
        if kind in _dispatch_table:
            return NotImplemented
        return self._reduce_named(obj, kind)

    def _state_of_module(self, module: ModuleType) -> dict[str, Any]:
        """Return what a module has and can be sent; the rest is refused when it is asked for."""
        name = module.__name__
        state = {k: v for k, v in vars(module).items() if k not in _NOT_SENT_OF_MODULES}
        left = self.left_behind.get(name)
        if left is None:
            self.left_behind[name] = frozenset()  # as long as it is found out
            left = self.left_behind[name] = frozenset(
                key
                for key, value in state.items()
                if not isinstance(value, FunctionType | type | ModuleType)
                and not self._can_send(value)
            )
        if left:
            state = {key: value for key, value in state.items() if key not in left}
            state.setdefault("__getattr__", functools.partial(refuse_attribute, name, left))
        return state

    def _reduce_named(self, obj: Any, kind: type) -> Any:
        """Return how to pickle what is found by a name, or is odd; NotImplemented for all else."""
        plain = self._plain.get(id(kind))  # the usual ones, in less time
        if plain is not None and not _named and (plain[1] or obj.__dict__):
            return NotImplemented
        if (known := _named.get(id(obj))) is not None:  # the caller's
            return _named_object, (*known[1:], None, ())
        how: Any = kind.__reduce_ex__
        if isinstance(kind, EnumType) and how is Enum.__reduce_ex__:
            is_member = kind.__members__.get(obj._name_) is obj  # else flags, combined
            return (getattr, (kind, obj._name_)) if is_member else NotImplemented
        if (reduced := pickles_itself(obj, kind)) is not None:
            if not isinstance(reduced, str):
                return reduced
            module, name = str(getattr(obj, "__module__", None)), reduced
        else:
            odd = answers_itself(kind)
            found = self._global_name(obj, kind) if is_only_itself(obj, kind, odd) else None
            if found is None and odd:
                return take_apart(obj, kind)
            if found is None:
                ways: Any = (how, kind.__reduce__)
                has_own = ways != (object.__reduce_ex__, object.__reduce__)
                if has_own or kind.__dictoffset__:
                    self._plain[id(kind)] = kind, has_own
                return NotImplemented
            module, name = found
        if not self._travels(module):
            return name if kind is not object else (_bare_object, (module, name))
        make, of, state = parts_of(obj, kind)
        return _named_object, (module, name, make, of), state, None, None, _fill_named

    def _global_name(self, obj: Any, kind: type) -> tuple[str, str] | None:
        if kind is not object:
            return global_name(obj, kind, ("__main__", *sorted(self.by_value)))
        if self._bare_objects is None:
            self._bare_objects = bare_objects()
        found = self._bare_objects.get(id(obj))
        return None if found is None else found[1:]

    def _travels(self, module: object) -> bool:
        return module == "__main__" or module in self.by_value

    def _reduce_function(self, function: FunctionType) -> Any:
        if function.__module__ not in self.by_value and parts.should_pickle_by_reference(function):
            self._references.add(function)
            return NotImplemented
        reduced = self._dynamic_function_reduce(function)
        if not self.of_job:
            return reduced
        self._note(function.__code__)
        for name in self.left_behind.get(function.__module__, ()):
            reduced[2][1]["__globals__"].pop(name, None)
        if self._travels(function.__globals__.get("__name__")):
            self._add_named_in_text(function, reduced[2][1]["__globals__"])
        state = (*reduced[2], self._public_name(function))
        return (*reduced[:2], state, None, None, _fill_function)

    def _note(self, code: CodeType) -> None:
        """Take note that a function with this code travels."""

    def _add_named_in_text(self, function: FunctionType, globals_: dict[str, Any]) -> None:
        """Add the globals that a function may look up by text, as far as they can be sent."""
        if self._is_trial:
            return
        for name in named_in_text(function):
            value = function.__globals__[name]
            if name not in globals_ and self._can_send(value):
                globals_[name] = value

    def _can_send(self, value: object) -> bool:
        trial = FunctionPickler(io.BytesIO(), None, Sent(self.by_value))
        trial._is_trial, trial.left_behind = True, self.left_behind
        try:
            trial.dump(value)
        except Exception:
            return False
        return True

    def _reduce_cached(self, cached: Any) -> Any:
        """Return how to pickle a function with `functools.lru_cache`; its cache stays here."""
        function = getattr(cached, "__wrapped__", None)
        if type(function) is not FunctionType:
            return NotImplemented
        if function.__module__ not in self.by_value and parts.lookup_module_and_qualname(cached):
            return NotImplemented
        limits = cached.cache_parameters()
        name = self._public_name(cached) if self.of_job else None
        return _make_cached, (function, limits["maxsize"], limits["typed"], name)

    def _function_getnewargs(self, function: FunctionType) -> Any:
        args = super()._function_getnewargs(function)
        name: Any = function.__globals__.get("__name__")
        if not self.of_job or not self._travels(name) or not _is_module_dict(name, function):
            return args
        ref = self.globals_ref[id(function.__globals__)]
        if not isinstance(ref, _Globals):
            ref = self.globals_ref[id(function.__globals__)] = _Globals(name, ref)
        return (args[0], ref, *args[2:])

    def _public_name(self, obj: Any) -> str | None:
        """Return the name by which `obj` is found in a module that travels, if it is."""
        module = sys.modules.get(obj.__module__) if self._travels(obj.__module__) else None
        name: str = obj.__qualname__
        return name if module is not None and vars(module).get(name) is obj else None

    def _reduce_class(self, cls: type) -> Any:
        try:
            if cls in self._references:
                return NotImplemented
            if (class_id := _callers.get(cls)) is not None:
                return _known_class, (class_id, cls.__qualname__)
        except TypeError:  # a metaclass without a hash
            return parts.class_reduce(cls)
        forced = cls.__module__ in self.by_value
        if not forced and (home := home_of(cls)) is not None and not self._travels(home):
            return find_class, (home, cls.__qualname__)
        reduced = parts.dynamic_class_reduce(cls) if forced else parts.class_reduce(cls)
        if reduced is NotImplemented:
            self._references.add(cls)
        if reduced is NotImplemented or len(reduced) == 2:
            return reduced
        return self._reduce_dynamic_class(cls, reduced)

    def _reduce_dynamic_class(self, cls: type, reduced: Any) -> Any:
        """Return how to pickle a class by value."""
        class_id = keep_class(cls)
        public_name = self._public_name(cls) if self.of_job else None
        if reduced[0] is parts.make_skeleton_enum:
            how, state = reduce_enum(cls, reduced)
            return _make_class, (class_id, True, public_name, how), state, None, None, _fill_enum
        if vars(cls).get("__slots__"):  # else instances would have a __dict__ there and none here
            reduced[1][3]["__slots__"] = cls.__dict__["__slots__"]
        if "__class__" in vars(cls):  # can be had by a class only from its beginning
            reduced[1][3]["__class__"] = LateDescriptor()
        how = (class_id, False, public_name, reduced[1])
        return _make_class, how, reduced[2], None, None, _fill_class


_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_CacheWrapper: Any = functools._lru_cache_wrapper
_NOT_SENT_OF_MODULES = ("__builtins__", "__loader__", "__spec__", "__cached__")


class FunctionPickler(Pickler):
    """Pickles the function of a job, and notes in `sent` which classes go with it."""

    of_job = True

    def __init__(self, file: Any, buffer_callback: Any, sent: Sent) -> None:
        super().__init__(file, buffer_callback)
        self.by_value = sent.by_value
        self._sent = sent

    def _note(self, code: CodeType) -> None:
        self._sent.codes.append(code)

    def _reduce_dynamic_class(self, cls: type, reduced: Any) -> Any:
        reduced = super()._reduce_dynamic_class(cls, reduced)
        self._sent.classes[cls] = reduced[1][0]
        return reduced


class InputPickler(Pickler):
    """Pickles inputs; classes that go by value are named by id and put beside, in `definitions`."""

    of_job = True

    def __init__(self, file: Any, buffer_callback: Any, sent: Sent) -> None:
        super().__init__(file, buffer_callback)
        self.by_value = sent.by_value
        self._sent = sent
        self._known: dict[type, tuple[str, bytes]] = {}
        self.definitions: dict[str, bytes] = {}  # those that the inputs since `clear` need

    def _reduce_class(self, cls: type) -> Any:
        try:
            if (class_id := self._sent.classes.get(cls)) is not None:
                return _known_class, (class_id, cls.__qualname__)
            if (known := self._known.get(cls)) is not None:
                self.definitions[known[0]] = known[1]
                return _known_class, (known[0], cls.__qualname__)
        except TypeError:  # a metaclass without a hash
            pass
        return super()._reduce_class(cls)

    def _reduce_dynamic_class(self, cls: type, reduced: Any) -> Any:
        file = io.BytesIO()
        apart = Sent(self.by_value)
        FunctionPickler(file, None, apart).dump(cls)
        self._known[cls] = known = (apart.classes[cls], file.getvalue())
        self.definitions[known[0]] = known[1]
        return _known_class, (known[0], cls.__qualname__)


def keep_class(cls: type) -> str:
    """Return the id of a class, which stays findable here although only weakly tracked."""
    class_id: str = parts.get_or_create_tracker_id(cls)
    with _keeping:
        _kept[class_id] = cls
        if len(_kept) > SENT_CLASSES_MAX:
            del _kept[next(iter(_kept))]
    return class_id


def _is_module_dict(name: Any, function: FunctionType) -> bool:
    module = sys.modules.get(name)
    return module is not None and vars(module) is function.__globals__


class _Globals:
    """Stands for the globals of a module in a pickle."""

    def __init__(self, name: str, base: dict[str, Any]) -> None:
        self.name = name
        self.base = base

    def __reduce__(self) -> Any:
        return _job_globals, (self.name, self.base)


# --- what a pickle calls when it is loaded -------------------------------------------------------

_kept: dict[str, type] = {}  # classes sent from here, by id
_keeping = threading.Lock()  # callers pickle in threads of their own
_callers: dict[type, str] = {}  # in a worker: the caller's classes, which go back by their id
_unfilled: set[type] = set()  # classes made, but not yet given their attributes
_named: dict[int, tuple[Any, str, str]] = {}  # in a worker: the caller's globals, by id
_unfilled_named: dict[int, Any] = {}  # made, but not yet given their state
_job_modules: dict[str, ModuleType] = {}  # modules of the job that came by value
_main_attributes: dict[str, Any] | None = None  # of __main__ in a worker; None: not a worker
_receiving = False  # True while something of the caller is loaded in a worker


def serve(main_attributes: dict[str, Any]) -> None:
    """Make this process a worker, whose `__main__` stands for the caller's from the next job on."""
    global _main_attributes
    _main_attributes = main_attributes


def begin_job() -> None:
    """Forget the last job's classes, functions and modules; called before a function is loaded."""
    drop_carried()
    leave_job()
    make_main()


def leave_job() -> None:
    """Have nothing loaded of the caller's, but for modules of import hooks."""
    for name, module in _job_modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _job_modules.clear()
    for class_id in _callers.values():
        parts.class_tracker_by_id.pop(class_id, None)
    _callers.clear()
    _named.clear()
    _unfilled.clear()
    _unfilled_named.clear()


def make_main() -> None:
    """Make the module that stands for the caller's `__main__`, if this is a worker."""
    if _main_attributes is not None:
        sys.modules["__main__"] = main = ModuleType("__main__")
        vars(main).update(_main_attributes, __builtins__=__builtins__)
        _job_modules["__main__"] = main


def load_from_caller(data: Any, buffers: Sequence[Any]) -> Any:
    """Load what the caller sent; its classes are remembered as the caller's."""
    return _receive(lambda: pickle.loads(data, buffers=buffers))


def load_definitions(definitions: dict[str, bytes]) -> None:
    """Load those classes that are not known yet."""
    for class_id, data in definitions.items():
        if class_id not in parts.class_tracker_by_id:
            _receive(functools.partial(pickle.loads, data))


def _receive(load: Callable[[], Any]) -> Any:
    global _receiving
    before, _receiving = _receiving, True
    try:
        return load()
    finally:
        _receiving = before


def _make_cached(function: Any, maxsize: int | None, typed: bool, public_name: str | None) -> Any:
    """Return a function with an empty cache of its own."""
    cached = functools.lru_cache(maxsize, typed)(function)
    if public_name and _receiving:
        vars(_job_module(function.__module__))[public_name] = cached
    return cached


def _known_class(class_id: str, name: str) -> type:
    cls: type | None = parts.class_tracker_by_id.get(class_id)
    return _class_of_main(name) if cls is None else cls


def _class_of_main(name: str) -> type:
    """Return the class that another process has sent from its `__main__`, by its name in ours."""
    found: Any = sys.modules.get("__main__")
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise NotLoadableError(
            f"the class {name!r} of the script that sent it is not here: read it in that script, or"
            " in one whose __main__ has the class, too"
        )
    return found


def _make_class(class_id: str, is_enum: bool, public_name: str | None, args: Any) -> type:
    known: type | None = parts.class_tracker_by_id.get(class_id)
    if known is not None:
        return known
    made: type = make_enum(class_id, args) if is_enum else parts.make_skeleton_class(*args)
    _unfilled.add(made)
    if _receiving:
        _callers[made] = class_id
        if public_name:
            vars(_job_module(made.__module__)).setdefault(public_name, made)
    return made


def _fill_class(cls: type, state: Any) -> None:
    if cls in _unfilled:  # else it is whole already, and maybe changed since by its owner
        _unfilled.discard(cls)
        if (answer := state[0].pop("__class__", None)) is not None:
            vars(cls)["__class__"].means(answer)
        parts.class_setstate(cls, state)


def _fill_enum(cls: type, state: Any) -> None:
    if cls in _unfilled:
        _unfilled.discard(cls)
        fill_enum(cls, state)


def _job_module(name: str) -> ModuleType:
    module = _job_modules.get(name)
    if module is None:
        module = _job_modules[name] = ModuleType(name)
        if _main_attributes is not None:
            sys.modules[name] = module
    return module


def _named_object(module: str, name: str, make: Any, of: tuple[Any, ...]) -> Any:
    """Return the global `name` of a module that travels; made if it is not there yet."""
    found: Any = sys.modules.get(module)
    if found is None or (make is not None and _main_attributes is not None):
        found = _job_module(module) if make is not None else importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None and make is not None:
        found = make(*of)
        _unfilled_named[id(found)] = found
        if _receiving:
            _named[id(found)] = (found, module, name)
            vars(_job_module(module)).setdefault(name, found)
    if found is None:
        raise NotLoadableError(f"{module} has no {name!r} here any more")
    return found


def _bare_object(module: str, name: str) -> object:
    """Return the `object()` that an installed module has as a global; another, if it has not."""
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    return found if type(found) is object else object()


def _fill_named(obj: Any, state: Any) -> None:
    if _unfilled_named.pop(id(obj), None) is not None:
        set_state(obj, state)


def _fill_module(module: ModuleType, state: dict[str, Any]) -> None:
    for name, value in state.items():
        if name not in vars(module) or vars(module)[name] is None:
            vars(module)[name] = value


def refuse_attribute(module: str, left: frozenset[str], name: str) -> Any:
    """Be the `__getattr__` of a module that came without some of its attributes."""
    if name in left:
        raise AttributeError(f"{module}.{name} of the caller is not here: it cannot be pickled")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _job_globals(name: str, base: dict[str, Any]) -> dict[str, Any]:
    globals_ = vars(_job_module(name))
    for key, value in base.items():
        if globals_.get(key) is None:
            globals_[key] = value
    return globals_


def _fill_function(function: FunctionType, state: Any) -> None:
    attributes, slots, public_name = state
    globals_ = function.__globals__
    # What a running call has changed since stays changed; only what is missing is added.
    slots["__globals__"] = {k: v for k, v in slots["__globals__"].items() if k not in globals_}
    parts.function_setstate(function, (attributes, slots))
    if public_name and _receiving:
        globals_.setdefault(public_name, function)


# Named in every pickle of a function, and importable wherever burla is.
_OURS: set[object] = {
    *(parts.make_function, parts.function_setstate, _Globals),
    *(_job_globals, _fill_function, _make_class, _fill_class, _known_class),
    parts.builtin_type,  # with the code of each function
    *(int, float, complex, bool, str, bytes, list, tuple, dict, set),  # what inputs are, mostly
}
