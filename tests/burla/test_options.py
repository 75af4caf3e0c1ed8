"""What may be asked of calls that fail and of the order of results."""

import os
from fractions import Fraction
from typing import Any

import pytest
from msgspec.structs import replace

from burla import Retry, remote_parallel_map as rpm, starting
from burla.options import DISK_GB_MAX, Options, read_image, read_machines, read_options
from burla.protocol.messages import NUMBER_MAX, CallPolicy, Machines


def test_usually_nothing_is_asked_of_the_cluster() -> None:
    assert read_options() == Options()
    assert Options().policy() is None
    assert read_options(generator=True, ordered=True, with_index=True).policy() is None


@pytest.mark.parametrize(
    "names",
    [
        {"return_exceptions": True},
        {"raise_errors": False},
        {"return_exceptions": True, "raise_errors": False},
    ],
)
def test_errors_are_results_by_either_name(names: dict[str, bool]) -> None:
    assert read_options(**names).policy() == CallPolicy(goes_on=True)


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ({"times": -1}, ValueError, "retries must be 0 or more, not -1"),
        ({"times": True}, TypeError, "retries must be a whole number of times, not True"),
        ({"on": "KeyError"}, TypeError, "on must be exception classes, not 'KeyError'"),
        ({"on": ()}, TypeError, "on must be exception classes"),
        ({"on": (KeyError, 3)}, TypeError, "on must be exception classes"),
        ({"on": KeyError(3)}, TypeError, "on must be exception classes"),
        ({"backoff_s": -1}, ValueError, "backoff_s must be 0 to 3600, not -1"),
        ({"backoff_s": float("nan")}, ValueError, "backoff_s must be 0 to 3600, not nan"),
        ({"backoff_s": True}, TypeError, "backoff_s must be a number, not True"),
        ({"jitter": 1.5}, ValueError, "jitter must be 0 to 1, not 1.5"),
        ({"other_node": 1}, TypeError, "other_node must be True or False, not 1"),
    ],
)
def test_a_retry_that_cannot_be_meant_is_refused(
    names: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Retry(**({"times": 1} | names))


def test_what_is_called_again_is_told_to_the_cluster() -> None:
    assert read_options(retries=0).policy() is None
    usual = CallPolicy(retries=3, retries_timeouts=True, retries_deaths=True)
    assert read_options(retries=3).policy() == read_options(retries=Retry(3)).policy() == usual
    retry = Retry(2, on=(KeyError, TimeoutError), backoff_s=1, jitter=0.5, other_node=True)
    told = CallPolicy(retries=2, backoff_s=1.0, jitter=0.5, other_node=True, retries_timeouts=True)
    assert read_options(retries=retry).policy() == told
    assert read_options(func_gpu=2).policy() == CallPolicy(func_gpu=2)
    assert read_options(func_gpu=2, retries=3).policy() == replace(usual, func_gpu=2)
    assert read_options(func_gpu=10**30).policy() == CallPolicy(func_gpu=NUMBER_MAX)


def test_waits_double_up_to_an_hour() -> None:
    policy = CallPolicy(backoff_s=1.5, jitter=0.5)
    assert [policy.wait_s(tries, 0) for tries in (1, 2, 3)] == [1.5, 3, 6]
    assert policy.wait_s(2, 0.5) == 3 * 0.75
    assert policy.wait_s(10**6, 0) == 3600


def test_a_time_limit_is_any_number_of_seconds() -> None:
    assert read_options(timeout=1).policy() == CallPolicy(timeout_s=1.0)
    assert read_options(timeout=Fraction(1, 2)).timeout_s == 0.5
    assert read_options(timeout=None).policy() is None


@pytest.mark.parametrize(
    "names",
    [
        {"return_exceptions": False},
        {"raise_errors": True},
        {"return_exceptions": False, "raise_errors": True},
    ],
)
def test_errors_are_raised_by_either_name(names: dict[str, bool]) -> None:
    assert not read_options(**names).goes_on


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ({"generator": 1}, TypeError, "generator must be True or False, not 1"),
        ({"ordered": None}, TypeError, "ordered must be True or False, not None"),
        ({"with_index": "yes"}, TypeError, "with_index must be True or False, not 'yes'"),
        ({"return_exceptions": 1}, TypeError, "return_exceptions must be True or False, not 1"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0 .* not 0; None: no limit"),
        ({"timeout": -1.5}, ValueError, "timeout must be more than 0 .* not -1.5"),
        ({"timeout": float("nan")}, ValueError, "timeout must be more than 0 .* not nan"),
        ({"timeout": float("inf")}, ValueError, "timeout must be more than 0 .* not inf"),
        ({"timeout": True}, TypeError, "timeout must be a number of seconds, or None, not True"),
        ({"timeout": 10**400}, ValueError, "timeout must be more than 0 and at most"),
        ({"timeout": "3"}, TypeError, "timeout must be a number of seconds, or None, not '3'"),
        ({"retries": -1}, ValueError, "retries must be 0 or more, not -1"),
        (
            {"retries": True},
            TypeError,
            "a whole number of times or a burla.Retry, not True",
        ),
        ({"retries": 1.5}, TypeError, "retries must be a whole number of times or a burla.Retry"),
        ({"retries": "3"}, TypeError, "retries must be a whole number of times or a burla.Retry"),
        ({"func_gpu": -1}, ValueError, "func_gpu must be a number of GPUs .* 0 or more, not -1"),
        ({"func_gpu": 0.5}, TypeError, "func_gpu must be a number of GPUs .* not 0.5"),
        ({"func_gpu": True}, TypeError, "func_gpu must be a number of GPUs .* not True"),
        ({"detach": 1}, TypeError, "detach must be True or False, not 1"),
        (
            {"detach": True, "generator": True},
            ValueError,
            "give generator, ordered and with_index to its",
        ),
        ({"raise_errors": "no"}, TypeError, "raise_errors must be True or False, not 'no'"),
        (
            {"return_exceptions": True, "raise_errors": True},
            ValueError,
            "return_exceptions=True contradicts raise_errors=True",
        ),
        (
            {"return_exceptions": False, "raise_errors": False},
            ValueError,
            "return_exceptions=False contradicts raise_errors=False",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    names: dict[str, Any], error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere")
    with pytest.raises(error, match=text):
        rpm(len, ["a"], **names)


def test_machines_are_wanted_as_they_are_said_to_be() -> None:
    assert read_machines() is None
    assert read_machines("us-east1-b") == Machines("us-east1-b")
    assert read_machines(None, DISK_GB_MAX) == Machines(disk_gb=DISK_GB_MAX)
    assert read_machines("eu", 5) == Machines("eu", 5)


@pytest.mark.parametrize(
    ("region", "disk_gb", "kind", "words"),
    [
        (7, None, TypeError, "region must be a name, or None, not 7"),
        ("", None, ValueError, "region must be the name of a region or zone"),
        ("us east", None, ValueError, "not 'us east'"),
        ("eu\n", None, ValueError, "region must be"),
        ("x" * 64, None, ValueError, "region must be"),
        (None, True, TypeError, "disk_gb must be a whole number of GB .* not True"),
        (None, 1.5, TypeError, "disk_gb must be a whole number"),
        (None, "50", TypeError, "disk_gb must be a whole number"),
        (None, 0, ValueError, "disk_gb must be 1 to 65536, not 0"),
        (None, 10**30, ValueError, "disk_gb must be 1 to 65536"),
    ],
)
def test_machines_that_cannot_be_are_refused(
    region: object, disk_gb: object, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        read_machines(region, disk_gb)


def test_an_image_has_a_name() -> None:
    assert read_image() == ""
    assert read_image("python:3.12-slim") == "python:3.12-slim"


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ({"image": 3}, TypeError, "image must be the name of a container image, .* not 3"),
        ({"image": b"python"}, TypeError, "image must be the name of a container image"),
        ({"image": ""}, ValueError, "image='': no name of an image, as python:3.12-slim"),
        ({"image": "-v /:/x"}, ValueError, "no name of an image"),
        ({"image": "python:3.12", "func_gpu": 1}, ValueError, "image='python:3.12' and func_gpu=1"),
    ],
)
def test_an_image_that_cannot_be_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, Any], error: type[Exception], text: str
) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere")
    with pytest.raises(error, match=text):
        rpm(len, ["a"], **names)


def test_a_private_cluster_has_no_images_and_is_not_started_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(starting, "cluster_address", lambda: None)
    monkeypatch.setattr(starting, "_cluster", lambda: pytest.fail("it was started"))
    with pytest.raises(
        ValueError, match=r"image='python:3.12': no cluster is set.*burla up --local"
    ):
        rpm(len, ["a"], image="python:3.12")


def test_an_image_is_not_for_a_map_within_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_WORKER_PID", str(os.getpid()))
    with pytest.raises(ValueError, match=r"cannot be used inside a call.*leave image out"):
        rpm(len, ["a"], image="python:3.12")
