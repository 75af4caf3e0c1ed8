"""Enums by value.

cloudpickle makes an enum anew from the values of its members alone; what a member got from the
enum's own `__new__` or `__init__`, and its aliases, would be lost. Here a member is made from its
data and its value, neither of the two methods runs again, and its attributes are set afterwards.
"""

from enum import Enum
from typing import Any

from . import cloudpickle_parts

_DATA_TYPES = (object, int, str, bytes, float, complex, tuple)  # those whose data can be read back


class MemberParts:
    """What a member is made of, in place of its value while the enum is made."""

    __slots__ = ("data", "value")

    def __init__(self, data: tuple[Any, ...], value: Any) -> None:
        self.data = data
        self.value = value

    def __reduce__(self) -> Any:
        return MemberParts, (self.data, self.value)


def reduce_enum(cls: Any, reduced: Any) -> tuple[Any, Any]:
    """Return the arguments for `make_enum` and the state for `fill_enum`.

    Args:
        cls: an enum.
        reduced: how cloudpickle would reduce it.
    """
    bases, name, qualname, _, module, *_ = reduced[1]
    members = {}
    attributes = {}
    data_type = cls._member_type_
    if data_type not in _DATA_TYPES:
        return reduced[1], (reduced[2], {})
    for member_name, member in cls.__members__.items():
        data = () if data_type is object else (_data_of(member, data_type),)
        members[member_name] = MemberParts(data, member._value_)
        own = {k: v for k, v in vars(member).items() if not (k.startswith("_") and k.endswith("_"))}
        if own:
            attributes[member_name] = own
    class_dict, slots = reduced[2]
    class_dict = {k: v for k, v in class_dict.items() if k not in cls.__members__}
    return (bases, name, qualname, members, module), ((class_dict, slots), attributes)


def _data_of(member: Any, data_type: Any) -> Any:
    """Return the member as its data type alone, past its own `__str__`, `__int__` or `__iter__`."""
    if data_type is str:
        return "".join(str.__getitem__(member, slice(None)))
    if data_type is tuple:
        return tuple(tuple.__iter__(member))
    if data_type is bytes:
        return bytes.__getitem__(member, slice(None))
    return data_type.__pos__(member)


def make_enum(tracker_id: str, args: Any) -> Any:
    """Return an enum with all members, but without methods; to be completed by `fill_enum`."""
    if len(args) == 7:  # as cloudpickle does it
        return cloudpickle_parts.make_skeleton_enum(*args)
    bases, name, qualname, members, module = args
    metaclass: Any = type(bases[-1])
    class_dict = metaclass.__prepare__(name, bases)
    class_dict["__new__"] = _new_member
    class_dict["__init__"] = _init_member
    for member_name, parts in members.items():
        class_dict[member_name] = parts
    made: Any = metaclass.__new__(metaclass, name, bases, class_dict)
    made.__module__ = module
    made.__qualname__ = qualname
    for helper in ("__init__", "__new_member__"):
        if helper in vars(made):
            delattr(made, helper)
    return cloudpickle_parts.lookup_class_or_track(tracker_id, made)


def _new_member(cls: Any, parts: Any) -> Any:
    if type(parts) is tuple:  # as an enum of tuples has it
        (parts,) = parts
    member = cls._member_type_.__new__(cls, *parts.data)
    member._value_ = parts.value
    return member


def _init_member(self: Enum, *args: Any) -> None:
    """Do nothing: whatever the enum's own `__init__` set comes with the attributes."""


def fill_enum(cls: Any, state: Any) -> None:
    """Give the enum its methods, and the members what they had."""
    class_state, attributes = state
    cloudpickle_parts.class_setstate(cls, class_state)
    for name, own in attributes.items():
        vars(cls.__members__[name]).update(own)
