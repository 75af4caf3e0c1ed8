"""The line inside one process: the same messages, in order, each end in its own turns."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from burla.transport.direct import ROUNDS_MAX, DirectEnd, Said, direct_line
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


def test_who_has_ended_hears_nothing_more_and_is_heard() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        heard: dict[str, list[Said]] = {"one": [], "other": []}
        one.begin(heard["one"].extend)
        other.begin(heard["other"].extend)
        other.say("too late", [])
        one.end()
        one.say("last word", [])
        await turns(3)
        assert heard == {"one": [], "other": [("last word", [])]}

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


def test_a_flush_goes_on_until_nobody_has_anything_to_say() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        order: list[int] = []

        def answerer(end: DirectEnd) -> Callable[[Iterable[Said]], None]:
            def hear(said: Iterable[Said]) -> None:
                for number, _ in said:
                    order.append(number)
                    if number < 5:
                        end.say(number + 1, [])
                    end.flush()  # in a turn already: whoever is at it goes on

            return hear

        one.begin(answerer(one))
        other.begin(answerer(other))
        one.say(0, [])
        one.flush()
        assert order == [0, 1, 2, 3, 4, 5]
        one.say(0, [])
        await turns()
        assert order == [0, 1, 2, 3, 4, 5] * 2

    inside(talk)


def test_two_who_never_stop_leave_others_their_turn() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        heard: list[Said] = []

        def echo(end: DirectEnd) -> Callable[[Iterable[Said]], None]:
            def hear(said: Iterable[Said]) -> None:
                for message, _ in said:
                    heard.append((message, []))
                    end.say(message, [])

            return hear

        one.begin(echo(one))
        other.begin(echo(other))
        one.say("again", [])
        one.flush()
        first = len(heard)
        assert 0 < first <= 2 * ROUNDS_MAX
        await turns()
        assert len(heard) > first

    inside(talk)


def test_a_turn_is_bounded_and_others_have_theirs() -> None:
    async def talk(one: DirectEnd, other: DirectEnd) -> None:
        sizes: list[int] = []
        other.begin(lambda said: sizes.append(len(list(said))))
        for number in range(20 * DRAIN_MESSAGES):
            one.say(number, [])
        await turns()
        assert max(sizes) <= DRAIN_MESSAGES
        assert sum(sizes) < 20 * DRAIN_MESSAGES
        while sum(sizes) < 20 * DRAIN_MESSAGES:
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
