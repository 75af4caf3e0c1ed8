"""Every field of every message is bounded: what a peer says costs no more than was thought of."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect

from burla.protocol import admin_messages as am, messages as m

DIRECTIONS = (
    am.AdminToScheduler
    | am.SchedulerToAdmin
    | m.SchedulerToClient
    | m.SchedulerToAutoscaler
    | m.SchedulerToNodelet
    | m.NodeletToScheduler
    | m.JoiningToScheduler
    | m.SchedulerToJoining
)


def unbounded(kind: Any, where: str) -> Iterator[str]:
    """Yield the places inside a type that may hold any number of bytes, or any number."""
    match kind:
        case inspect.Metadata():
            yield from unbounded(kind.type, where)
        case inspect.UnionType():
            for each in kind.types:
                yield from unbounded(each, where)
        case inspect.StructType():
            for field in kind.fields:
                yield from unbounded(field.type, f"{kind.cls.__name__}.{field.name}")
        case inspect.StrType() if kind.pattern is None or "*" in kind.pattern:
            if kind.max_length is None:
                yield where
        case inspect.BytesType() if kind.max_length is None:
            yield where
        case inspect.IntType() | inspect.FloatType() if kind.ge is None or kind.le is None:
            yield where
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType():
            if kind.max_length is None:
                yield where
            yield from unbounded(kind.item_type, where)
        case inspect.TupleType():
            for each in kind.item_types:
                yield from unbounded(each, where)
        case inspect.DictType():
            if kind.max_length is None:
                yield where
            yield from unbounded(kind.key_type, where)
            yield from unbounded(kind.value_type, where)
        case inspect.AnyType() | inspect.RawType():
            yield where
        case _:
            pass


def test_every_field_is_bounded() -> None:
    assert sorted(set(unbounded(inspect.type_info(DIRECTIONS), ""))) == []


@pytest.mark.parametrize("kind", [str, bytes, int, float, tuple[int, ...], dict[str, int], Any])
def test_a_field_without_a_bound_is_found(kind: Any) -> None:
    assert list(unbounded(inspect.type_info(kind), "here"))
