"""The parts of cloudpickle that we build on, all of them in one place.

They are private by name, but stable since 2.0; pyproject.toml pins the minor versions that are
tested. The package itself shadows the submodule's attributes, hence the import by name.
"""

import importlib
from typing import Any

_module: Any = importlib.import_module("cloudpickle.cloudpickle")


class _Missing(ImportError):
    """This cloudpickle is not one that we know."""


def _part(name: str, of: Any = _module) -> Any:
    """Return a part by its name.

    Raises:
        ImportError: it is not there any more.
    """
    try:
        return getattr(of, name)
    except AttributeError:
        version = getattr(importlib.import_module("cloudpickle"), "__version__", "?")
        raise _Missing(
            f"cloudpickle {version} has no {name!r}, which burla needs;"
            ' install the version that burla asks for: pip install "cloudpickle>=3.1,<3.2"'
        ) from None


# The pickler that ours derives from. It calls the methods below, which ours overrides or calls.
Pickler = _part("Pickler")
_part("_function_getnewargs", Pickler)  # code and globals of a function that travels by value
_part("_dynamic_function_reduce", Pickler)  # how such a function is reduced
_part("dispatch_table", Pickler)  # reducers by type: cloudpickle's own and copyreg's

should_pickle_by_reference = _part("_should_pickle_by_reference")  # can the other side import it?
lookup_module_and_qualname = _part("_lookup_module_and_qualname")  # where it can be imported from
modules_by_value: Any = _part("_PICKLE_BY_VALUE_MODULES")  # those that a user has registered
extract_code_globals = _part("_extract_code_globals")  # names of the globals that code uses
code_reduce = _part("_code_reduce")  # a code object as a call of `types.CodeType`
builtin_type = _part("_builtin_type")  # gives that class, which has no name in `builtins`

# Classes by value: made empty, tracked by an id, then filled.
class_reduce = _part("_class_reduce")  # by reference if it can be imported, else as the next
dynamic_class_reduce = _part("_dynamic_class_reduce")
make_skeleton_class = _part("_make_skeleton_class")
make_skeleton_enum = _part("_make_skeleton_enum")
class_setstate = _part("_class_setstate")
get_or_create_tracker_id = _part("_get_or_create_tracker_id")
lookup_class_or_track = _part("_lookup_class_or_track")
class_tracker_by_id: Any = _part("_DYNAMIC_CLASS_TRACKER_BY_ID")  # weak, from id to class

# Functions by value: made with shared globals, then filled.
make_function = _part("_make_function")
function_setstate = _part("_function_setstate")
