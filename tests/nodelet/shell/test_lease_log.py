"""Leases in the log of a node."""

import logging

import pytest
from msgspec.structs import replace

from burla.nodelet.shell.lease_log import LINES_PER_S, LeaseLog
from burla.protocol import messages as m

START = m.StartLease(
    lease=b"l" * 16,
    job=b"j" * 16,
    slots=2,
    func_cpu=1,
    unpack=None,
    environment=b"",
    outcome_window=1,
    report_s=0.0,
)


def test_a_lease_begins_and_ends_for_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = LeaseLog()
    seen.began(START, 1.0)
    seen.told(m.EndLease(b"o" * 16, discard=False))  # of another one
    seen.told(m.EndLease(START.lease, discard=True))
    seen.ended(2.0)
    lease = START.lease.hex()
    assert caplog.messages == [
        f"serving job 6a6a6a6a, 2 slots: lease {lease}",
        f"ending lease {lease} of job 6a6a6a6a: its job is over",
    ]


@pytest.mark.parametrize("how", ["follows", "keep"])
def test_one_that_another_of_its_session_follows_ends_once_and_for_that(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seen = LeaseLog()
    seen.began(START, 1.0)
    following = replace(START, lease=b"n" * 16, job=b"k" * 16, **{how: START.lease})
    seen.told(following)
    seen.ended(2.0)
    seen.ended(3.0)  # what was kept for the other, which is gone meanwhile
    seen.began(following, 4.0)
    seen.ended(5.0)
    first, second = START.lease.hex(), following.lease.hex()
    assert caplog.messages == [
        f"serving job 6a6a6a6a, 2 slots: lease {first}",
        f"ending lease {first} of job 6a6a6a6a: its job is over, and 6b6b6b6b of the same caller"
        " follows",
        f"serving job 6b6b6b6b, 2 slots: lease {second}",
        f"ending lease {second} of job 6b6b6b6b: it is idle, or its scheduler is gone",
    ]


def test_many_are_counted_and_a_private_node_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = LeaseLog()
    with caplog.at_level(logging.WARNING):
        seen.began(START, 1.0)
    assert caplog.messages == []
    caplog.set_level(logging.INFO)
    for _ in range(LINES_PER_S + 3):
        seen.began(START, 1.0)
    seen.began(START, 2.0)
    assert caplog.messages[LINES_PER_S] == "3 lines about leases were left out"
    assert len(caplog.messages) == LINES_PER_S + 2
