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
