"""No control character of a peer gets past the decoding of its message, in any field of any."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct, inspect, structs

from burla.protocol import admin_messages as am, messages as m
from burla.protocol.codec import WireError, decode, encode
from burla.protocol.deaths import Death, decode_death
from burla.protocol.printable import printable
from burla.protocol.words import cleaner

DIRECTIONS = (
    am.AdminToScheduler,
    am.SchedulerToAdmin,
    m.SchedulerToClient,
    m.SchedulerToAutoscaler,
    m.SchedulerToNodelet,
    m.NodeletToScheduler,
    m.SchedulerToJoining,
)
# A title, a line of its own, C1's CSI, an override and an isolate, a separator of lines.
EVIL = "a\x1b]0;title\x07\nb\r\x9b2J\u202ec\u2066d\u2028e\x7f\0"
CONTROL = set(EVIL) - set("a]0;title b2Jcde")
NAMES = ("Zoë's Rechner", "名前-1", "क\u200dष", "👩\u200d🔬", "a_b.c<locals>")  # as people have
SEVERAL_LINES = ("reason", "waiting", "text", "why", "last_words", "dump")


def made(kind: Any, text: str) -> Any:
    """Return a value of a type with `text` wherever there may be one."""
    match kind:
        case inspect.Metadata():
            return made(kind.type, text)
        case inspect.StructType():
            return kind.cls(**{field.name: made(field.type, text) for field in kind.fields})
        case inspect.VarTupleType():
            return (made(kind.item_type, text),) * 2
        case inspect.TupleType():
            return tuple(made(item, text) for item in kind.item_types)
        case inspect.UnionType():
            return made(next(t for t in kind.types if not isinstance(t, inspect.NoneType)), text)
        case inspect.BytesType():
            return bytes(kind.min_length or 0)
        case inspect.IntType():
            return kind.ge or 0
        case inspect.FloatType():
            return 0.0
        case inspect.StrType():
            short = text if kind.max_length is None else text[: kind.max_length]
            return "3.11" if kind.pattern is not None else short
        case inspect.BoolType():
            return False
        case inspect.EnumType():
            return next(iter(kind.cls))
        case _:
            raise AssertionError(kind)


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a value and the field that it is in."""
    if isinstance(value, Struct):
        for field in structs.fields(value):
            yield from texts(getattr(value, field.name), field.name)
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item, where)
    elif type(value) is str:
        yield where, value


def messages() -> list[Any]:
    found = []
    for direction in DIRECTIONS:
        union = inspect.type_info(direction)
        kinds = union.types if isinstance(union, inspect.UnionType) else (union,)
        found += [pytest.param(kind, direction, id=kind.cls.__name__) for kind in kinds]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(("kind", "direction"), messages())
def test_each_text_of_each_message_is_printable(kind: Any, direction: Any) -> None:
    said = made(kind, EVIL)
    heard, _ = decode(encode(said), direction)
    for (where, before), (_, after) in zip(texts(said), texts(heard), strict=True):
        lines = {"\n", "\t"} if where in SEVERAL_LINES else set()
        assert not set(after) & (CONTROL - lines), (where, after)
        assert len(after) == len(before)
    for name in NAMES:
        said = made(kind, name)
        assert decode(encode(said), direction)[0] == said


def test_the_walk_has_met_texts_of_every_depth() -> None:
    met = {where for p in messages() for where, _ in texts(made(p.values[0], EVIL))}
    assert {"user", "host", "version", "name", "doing", "retire", "names", "key", "role"} <= met
    assert {"reason", "text", "node", "isolation", "waiting", "argument", "by", "job"} <= met


def test_what_has_no_words_costs_nothing() -> None:
    for kind in (m.Inputs, m.Assign, m.Outcomes, m.Heartbeat, m.AckOutcomes):
        assert cleaner(kind) is None


def test_the_version_of_a_python_has_digits_and_nothing_behind_them() -> None:
    for version in ("3.11\n", "\u0663.11", "3.11\x1b"):
        hello = m.ClientHello(m.PROTOCOL, "0", version, bytes(16), "u", "h")
        with pytest.raises(WireError):
            decode(encode(hello), m.ClientToScheduler)


def test_what_is_no_message_is_told_of_in_printable_words() -> None:
    said = made(inspect.type_info(am.ManageKeys), "")
    frames = encode(said)
    frames[0] = frames[0].replace(b"list", b"\x1b[2J")
    with pytest.raises(WireError) as found:
        decode(frames, am.AdminToScheduler)
    assert str(found.value).isprintable()


def test_the_death_of_a_worker_is_told_in_printable_words() -> None:
    death = Death(EVIL[:16], 1, 1, last_words=EVIL, killed_for=EVIL[:16], dump=EVIL)
    told = decode_death(death.encode())
    assert not set(told.how + told.killed_for) & CONTROL
    assert not set(told.last_words + told.dump) & (CONTROL - {"\n"})
    assert "\n" in told.last_words


def test_the_error_of_a_command_is_printed_without_others_control_characters() -> None:
    assert printable("two\nlines\tand \x1b[31mred", lines=True) == "two\nlines\tand ?[31mred"
    assert printable("\ud800") == "?"
