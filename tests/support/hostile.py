"""Words that no honest peer says: any value of any message, and bytes that were one once."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from burla.protocol import messages as m

NUMBERS = (0, 1, 2, 3, 5, 8, 63, 1 << 20, (1 << 53) - 1, 1 << 53)
MANY = 4  # elements of a tuple
FRAMES = (b"", b"x", b"leaf", b"y" * 1000)


class Words:
    """Makes messages up; ids are taken from those that it has seen, so that some hit."""

    def __init__(self, random: Random, ids: Sequence[bytes]) -> None:
        self.random = random
        self.ids = list(ids)

    def any_of(self, direction: Any) -> m.Message:
        """Return a well-formed message of a direction that means nothing."""
        kinds = inspect.type_info(direction)
        types = kinds.types if isinstance(kinds, inspect.UnionType) else (kinds,)
        message: m.Message = self._value(self.random.choice(types))
        return message

    def payload_of(self, message: m.Message) -> list[bytes]:
        """Return frames that often are as many as the message says."""
        count = self.random.randrange(MANY)
        if isinstance(message, m.Inputs) and self.random.random() < 0.8:
            count = min(8, sum(leaf.frames for leaf in message.leaves))
        return [self.random.choice(FRAMES) for _ in range(count)]

    def _value(self, kind: Any) -> Any:
        random = self.random
        match kind:
            case inspect.Metadata():
                return self._value(kind.type)
            case inspect.StructType():
                return self._struct(kind)
            case inspect.VarTupleType():
                return tuple(self._value(kind.item_type) for _ in range(random.randrange(MANY)))
            case inspect.TupleType():
                return tuple(map(self._value, kind.item_types))
            case inspect.BytesType():
                if kind.min_length == kind.max_length == 16:
                    return random.choice(self.ids)
                return random.randbytes(kind.min_length or random.randrange(3))
            case inspect.IntType():
                low, high = kind.ge or 0, kind.le or 1 << 53
                return min(max(random.choice(NUMBERS), low), high)
            case inspect.FloatType():
                return random.choice((0.0, 1e-9, 1.0, 1e300, float("inf")))
            case inspect.StrType():
                return random.choice(("", "3.11", "x" * 256))
            case inspect.BoolType():
                return random.random() < 0.5
            case inspect.NoneType():
                return None
            case inspect.UnionType():
                return self._value(random.choice(kind.types))
            case inspect.EnumType():
                return random.choice(list(kind.cls))
            case _:
                raise AssertionError(kind)

    def _struct(self, kind: inspect.StructType) -> Any:
        values = {field.name: self._value(field.type) for field in kind.fields}
        if issubclass(kind.cls, m.ClientHello | m.NodeHello) and self.random.random() < 0.9:
            values["protocol"] = m.PROTOCOL
        if issubclass(kind.cls, m.Bulk):  # in one piece
            values |= {"piece": 0, "pieces": 1}
        if issubclass(kind.cls, m.Inputs) and self.random.random() < 0.8:
            at, leaves = values["start"], []
            for leaf in values["leaves"]:
                fields = {"batch": values["batch"], "start": at, "frames": min(leaf.frames, 2)}
                leaves.append(msgspec.structs.replace(leaf, **fields))
                at += leaf.count
            values["leaves"] = tuple(leaves)
        return kind.cls(**values)


def mutate(random: Random, frames: Sequence[bytes]) -> list[bytes]:
    """Return frames with something done to them: to a byte, a length, the order, the number."""
    changed = list(frames)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(changed))
        data = bytearray(changed[at])
        where = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0 | 1 if data:
                data[where - 1] ^= 1 << random.randrange(8)
            case 2:
                data[where:where] = random.randbytes(random.randint(1, 4))
            case 3:
                del data[where : where + random.randint(1, 9)]
            case 4:
                data[where:where] = random.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff")
                )
            case 5:
                changed.insert(at, random.choice(changed))
                continue
            case 6 if len(changed) > 1:
                changed.pop(at)
                continue
        changed[at] = bytes(data)
    return changed
