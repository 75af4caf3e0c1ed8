"""The line inside one process: the same messages, in order, each end in its own turns."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from burla.transport.direct import DirectEnd, Said, direct_line
from burla.transport.sockets import DRAIN_MESSAGES


def inside(talk: Callable[[DirectEnd, DirectEnd], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await talk(*direct_line())

    asyncio.run(main())


async def turns(count: int = 1) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_said_is_heard_in_order_and_as_the_same_objects() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        heard: list[Said] = []
        other.begin(heard.extend)
        said = [(object(), [b"a", memoryview(b"b")]), (object(), [])]
        for message, payload in said:
            one.say(message, payload)  # type: ignore[arg-type]
        assert heard == []  # never while somebody speaks
        await turns()
        assert heard == said
        assert heard[0][0] is said[0][0]
        assert heard[0][1][0] is said[0][1][0]
        assert heard[0][1] is not said[0][1]  # whoever hears it may change the list

    inside(talk)


def test_what_is_said_before_anybody_hears_waits() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        heard: list[Said] = []
        one.say("early", [])
        await turns(3)
        other.begin(heard.extend)
        one.say("later", [])
        await turns()
        assert heard == [("early", []), ("later", [])]

    inside(talk)


def test_an_answer_is_not_heard_amid_the_turn_that_it_answers() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        order: list[str] = []

        def hear_question(said: Iterable[Said]) -> None:
            for message, _ in said:
                order.append(f"begin {message}")
                other.say(f"answer to {message}", [])
                order.append(f"end {message}")

        one.begin(lambda said: order.extend(message for message, _ in said))
        other.begin(hear_question)
        one.say("a", [])
        one.say("b", [])
        await turns(2)
        assert order == ["begin a", "end a", "begin b", "end b", "answer to a", "answer to b"]

    inside(talk)


def test_a_turn_is_bounded_and_others_have_theirs() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        sizes: list[int] = []
        other.begin(lambda said: sizes.append(len(list(said))))
        for number in range(2 * DRAIN_MESSAGES + 1):
            one.say(number, [])
        await turns()
        assert len(sizes) == 1
        assert 1 <= sizes[0] <= DRAIN_MESSAGES
        while sum(sizes) < 2 * DRAIN_MESSAGES + 1:
            await turns()

    inside(talk)


def test_what_hearing_raises_is_told_and_nothing_more_is_heard() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        heard: list[Said] = []

        def hear(said: Iterable[Said]) -> None:
            heard.extend(said)
            raise AssertionError("a bug")

        other.begin(hear)
        one.say("a", [])
        with pytest.raises(AssertionError, match="a bug"):
            await other.wait_failed()
        one.say("b", [])
        await turns(3)
        assert heard == [("a", [])]

    inside(talk)
