"""What is kept of the output of jobs: the first part and the last one, once, and bounded."""

from collections.abc import Sequence

import pytest

from burla.protocol.messages import Output
from burla.scheduler.core import outputs as module
from burla.scheduler.core.outputs import (
    BYTES_MAX,
    FIRST_BYTES,
    LAST_BYTES,
    WRITE_S,
    Kept,
    Outputs,
    Part,
)

JOB, OTHER, LEASE = b"j" * 16, b"o" * 16, b"l" * 16


def said(outputs: Outputs, number: int, *chunks: bytes, job: bytes = JOB, at_s: float = 0.0) -> int:
    """Let a nodelet say chunks; return how many parts of it were news."""
    message = Output(
        LEASE, number, (1,) * len(chunks), inputs=((number, number + 1),) * len(chunks)
    )
    parts = outputs.take(job, "anna", "n", message, chunks, at_s)
    outputs.check()
    return len(parts)


def text(parts: Sequence[Part]) -> bytes:
    return b"".join(b"".join(part.chunks) for part in parts)


def test_what_was_printed_is_kept_in_order_with_where_it_came_from() -> None:
    outputs = Outputs()
    said(outputs, 1, b"a", b"b", at_s=5.0)
    said(outputs, 3, b"c", at_s=6.0)
    first, second = outputs.open[JOB].parts
    assert first == Part(0, LEASE, 2, "n", 5.0, (1, 1), ((1, 2), (1, 2)), (b"a", b"b"), 2)
    assert (second.place, second.stop, second.number, second.at_s) == (2, 3, 3, 6.0)


def test_what_comes_again_is_kept_once() -> None:
    outputs = Outputs()
    said(outputs, 1, b"a", b"b")
    assert said(outputs, 1, b"a", b"b") == 0
    assert said(outputs, 2, b"b", b"c") == 1
    assert text(outputs.open[JOB].parts) == b"abc"
    assert outputs.open[JOB].parts[-1].inputs == ((2, 3),)


def test_of_much_the_first_and_the_last_part_are_kept() -> None:
    outputs = Outputs()
    lines = [b"%07d\n" % number for number in range(400_000)]
    for at in range(0, len(lines), 10_000):
        said(outputs, 1 + at // 10_000, b"".join(lines[at : at + 10_000]))
    kept = outputs.open[JOB]
    begin, end = kept.gap
    whole = b"".join(lines)
    first = text([part for part in kept.parts if part.stop <= begin])
    last = text([part for part in kept.parts if part.place >= end])
    assert whole.startswith(first)
    assert whole.endswith(last)
    assert FIRST_BYTES // 2 < len(first) <= FIRST_BYTES
    assert len(last) > LAST_BYTES // 2
    assert len(first) + len(last) <= FIRST_BYTES + LAST_BYTES
    assert kept.lost_bytes == len(whole) - len(first) - len(last)


def test_a_chunk_that_is_bigger_than_all_is_cut() -> None:
    outputs = Outputs()
    assert said(outputs, 1, bytes(1 << 20), b"end") > 10
    kept = outputs.open[JOB]
    assert kept.cost <= FIRST_BYTES + LAST_BYTES
    assert kept.parts[-1].chunks[-1] == b"end"
    assert said(outputs, 1, bytes(1 << 20), b"end") == 0


def test_all_jobs_together_are_bounded_and_those_that_are_over_go_first() -> None:
    outputs = Outputs()
    jobs = [number.to_bytes(16, "big") for number in range(200)]
    for job in jobs:
        for number in range(1, 30):
            said(outputs, number, bytes(30_000), job=job)
        if job < jobs[20]:
            outputs.ended(job, job)
    assert outputs.cost <= BYTES_MAX + (1 << 20)
    assert not outputs.over
    assert set(outputs.open) == set(jobs[20:])
    assert all(kept.parts for kept in outputs.open.values())


def test_what_equal_jobs_print_is_that_of_one() -> None:
    outputs = Outputs()
    said(outputs, 1, b"a")
    outputs.ended(JOB, JOB)
    said(outputs, 1, b"b", job=OTHER)
    outputs.ended(OTHER, JOB)
    outputs.check()
    assert text(outputs.over[JOB].parts) == b"ab"
    assert [part.place for part in outputs.over[JOB].parts] == [0, 1]


def test_the_job_of_another_tenant_with_the_same_id_is_another_one() -> None:
    outputs = Outputs()
    said(outputs, 1, b"secret")
    outputs.ended(JOB, JOB)
    outputs.opened(JOB, "bert")
    message = Output(LEASE, 1, (1,))
    outputs.take(JOB, "bert", "n", message, [b"mine"], 0.0)
    assert text(outputs.open[JOB].parts) == b"mine"
    outputs.ended(JOB, None)
    assert text(outputs.over[JOB].parts) == b"secret"


# --- the file ---


def test_nothing_is_filed_where_nobody_wants_it() -> None:
    outputs = Outputs()
    said(outputs, 1, b"a")
    assert list(outputs.take_unfiled(10.0)) == []


def test_what_is_new_is_filed_once_and_now_and_then() -> None:
    outputs = Outputs(is_filed=True)
    said(outputs, 1, b"a")
    (filed,) = outputs.take_unfiled(10.0)
    assert (filed.job, filed.tenant, filed.is_new, text(filed.parts)) == (JOB, "anna", True, b"a")
    said(outputs, 2, b"b")
    assert list(outputs.take_unfiled(10.0 + WRITE_S / 2)) == []
    (filed,) = outputs.take_unfiled(11.0)
    assert (filed.is_new, text(filed.parts)) == (False, b"b")
    assert list(outputs.take_unfiled(12.0)) == []


def test_what_is_left_out_before_it_is_filed_is_not_filed() -> None:
    outputs = Outputs(is_filed=True)
    for number in range(1, 400):
        said(outputs, number, bytes(30_000))
    kept = outputs.open[JOB]
    assert sum(part.cost for part in kept.unfiled) <= module.UNFILED_MAX + (1 << 20)
    (filed,) = outputs.take_unfiled(10.0)
    assert text(filed.parts) == text(kept.parts)
    assert filed.gap == kept.gap
    assert filed.lost_bytes == kept.lost_bytes > 0


def test_what_a_job_had_printed_goes_on_in_another_life_of_the_scheduler() -> None:
    before = Outputs(is_filed=True)
    for number in range(1, 60):
        said(before, number, bytes(30_000))
    kept = before.open[JOB]
    after = Outputs(is_filed=True)
    after.restore(JOB, "anna", kept.parts, kept.lost_bytes)
    after.check()
    after.opened(JOB, "anna")
    assert after.open[JOB].gap == kept.gap
    assert said(after, 59, bytes(30_000), b"more") == 1, "the last one is sent again"
    assert after.open[JOB].parts[-1].chunks == (b"more",)
    assert after.open[JOB].parts[-1].place >= kept.stop + 1000, "who follows may be further"
    (filed,) = after.take_unfiled(10.0)
    assert not filed.is_new
    assert text(filed.parts) == b"more"


@pytest.mark.parametrize("size", [1, 100, 30_000, 300_000])
def test_trimming_leaves_the_ends_whatever_the_size_of_parts(size: int) -> None:
    outputs = Outputs()
    for number in range(1, 2 + 2_000_000 // size if size > 1 else 3000):
        outputs.take(JOB, "anna", "n", Output(LEASE, number, (1,)), [bytes(size)], 0.0)
    outputs.check()
    kept: Kept = outputs.open[JOB]
    assert kept.parts[0].place == 0
    assert kept.parts[-1].stop == kept.stop
    assert kept.cost <= FIRST_BYTES + LAST_BYTES
