"""The calls that a worker was given."""

import numpy as np

from burla.nodelet.worker.pipes import Kind, Message
from burla.nodelet.worker.spans import Leaf, Span
from burla.values.payloads import cut_batches


def test_rows_of_arrays_in_several_leaves_are_inputs_one_behind_the_other() -> None:
    first, second = next(cut_batches(np.arange(4.0))), next(cut_batches(np.arange(4.0, 8.0)))
    leaves = [Leaf(0, 4, first.leaves[0].frames), Leaf(4, 8, second.leaves[0].frames)]
    span = Span(Message(Kind.SPAN, 0, 0, 0, 8, 0, 1), leaves)
    assert span.inputs(0, 8) == list(range(8))
    assert span.inputs(2, 4) == [2, 3]


def test_numbers_of_a_range_are_had_without_a_list_of_them() -> None:
    first, second = next(cut_batches(range(10, 14))), next(cut_batches([14, 15]))
    leaves = [Leaf(0, 4, first.leaves[0].frames), Leaf(4, 6, second.leaves[0].frames)]
    span = Span(Message(Kind.SPAN, 0, 0, 0, 6, 0, 1), leaves)
    numbers = span.numbers(1, 3)
    assert numbers is not None
    assert list(numbers) == [11, 12]
    assert span.numbers(2, 5) is None  # of two leaves
    assert span.numbers(4, 6) is None
    assert span.inputs(2, 5) == [12, 13, 14]
