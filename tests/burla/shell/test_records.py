"""Log records and warnings of calls reach the caller's handlers as if they had arisen here."""

import logging
import warnings

import pytest

from burla.shell.records import hand_over

RECORD = {"name": "burla_test.app", "levelno": 30, "levelname": "WARNING", "msg": "at %d"}
RECORD |= {"args": [7], "pathname": "/x/y.py", "lineno": 3, "process": 1, "extra_one": [1]}


def test_the_original_record_comes_to_the_handlers(caplog: pytest.LogCaptureFixture) -> None:
    hand_over({**RECORD, "exc_text": "Traceback", "getMessage": "evil", "__class__": 5})
    (record,) = caplog.records
    assert record.getMessage() == "at 7"
    assert (record.msg, record.args) == ("at %d", (7,))
    assert (record.filename, record.module, record.lineno, record.process) == ("y.py", "y", 3, 1)
    assert vars(record)["extra_one"] == [1]
    assert logging.Formatter().format(record) == "at 7\nTraceback"


def test_a_disabled_logger_hears_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("burla_test.app")
    logger.disabled = True
    try:
        hand_over(dict(RECORD))
    finally:
        logger.disabled = False
    assert caplog.records == []


class Odd(UserWarning):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one, two)


def warning(text: str, *categories: type[Warning]) -> dict[str, object]:
    places = [(one.__module__, one.__qualname__) for one in categories]
    places += [("nowhere", "Unknown"), ("builtins", "Warning")]
    return {"warning": text, "categories": places, "filename": f"/{text}.py", "lineno": 5}


def test_a_warning_is_shown_once_and_by_the_closest_class_there_is() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for category in (FutureWarning, FutureWarning, Odd):
            hand_over(warning(f"w{category.__name__}", category))
    assert [(str(one.message), one.category) for one in seen] == [
        ("wFutureWarning", FutureWarning),
        ("wOdd", Warning),
    ]
    assert seen[0].filename == "/wFutureWarning.py"


def test_a_filter_that_came_later_does_not_raise() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("error")
        hand_over(warning("late", FutureWarning))
    assert [(str(one.message), one.filename) for one in seen] == [("late", "/late.py")]
