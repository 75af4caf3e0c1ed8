"""The surroundings of a call as they are looked at: exact, and packed again only if they differ."""

import decimal
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from burla.surroundings import packed_surroundings
from burla.values.surroundings import LoggerState, Surroundings, unpack


def look(private: bool = True) -> Surroundings:
    return unpack(packed_surroundings({}, private=private))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    one = logging.getLogger("burla_test.looked_at")
    yield one
    one.handlers.clear()
    one.setLevel(logging.NOTSET)
    one.propagate = True


def test_what_has_not_changed_is_not_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed_surroundings({}, private=True)
    assert packed_surroundings({}, private=True) is first
    monkeypatch.setenv("TOKEN", "t")
    second = packed_surroundings({}, private=True)
    assert second != first
    assert unpack(second).variables.values[b"TOKEN"] == b"t"
    monkeypatch.delenv("TOKEN")
    assert packed_surroundings({}, private=True) == first


def test_each_change_of_a_logger_is_seen(logger: logging.Logger) -> None:
    def told() -> list[LoggerState]:
        return [one for one in look().logging.loggers if one.name == logger.name]

    assert told() == []
    logger.setLevel(logging.DEBUG)
    assert told() == [LoggerState(logger.name, 10, True, False, None)]
    logger.addHandler(logging.NullHandler())
    assert told()[0].handled is None
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    assert told()[0].handled == 0
    handler.setLevel(logging.ERROR)
    assert told()[0].handled == logging.ERROR
    logger.propagate = False
    assert told()[0].propagate is False
    logger.handlers.clear()
    assert told()[0].handled is None


def test_filters_limits_and_decimals() -> None:
    class Mine(UserWarning):
        pass

    with warnings.catch_warnings(), decimal.localcontext() as context:
        assert look().decimals is None
        context.flags[decimal.Rounded] = True  # what has happened is nobody's business
        assert look().decimals is None
        context.prec, context.traps[decimal.Inexact] = 50, True
        warnings.filterwarnings("ignore", "some text", Mine, lineno=3)
        told = look()
        assert told.decimals is not None
        assert told.decimals.precision == 50
        assert {"Inexact", "DivisionByZero"} <= set(told.decimals.traps)
        assert told.filters[0].message is not None
        assert told.filters[0].message.text == "some text"
        assert told.filters[0].category == (Mine.__module__, Mine.__qualname__)
        assert told.filters[0].line == 3
    assert look().recursion_limit == sys.getrecursionlimit()


def test_nothing_shows_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "my secret")
    told = look()
    assert told.variables.values[b"TOKEN"] == b"my secret"
    assert "secret" not in repr(told)
    assert "secret" not in str(told)


def test_the_authkey_goes_to_workers_of_this_process_only() -> None:
    import multiprocessing.connection

    assert look().authkey == bytes(multiprocessing.current_process().authkey)
    assert look(private=False).authkey == b""
