"""Big inputs: announced with their batch, and asked for by the node that is to run them. Pure.

A leaf of more than 1 MiB need not come with its `Inputs`: it may say its `size` instead. Then the
client keeps it, the scheduler never has it, and the node asks for it piece by piece, for so many
bytes ahead; so who asks sets the pace, and what is lost with anybody is asked for again.
"""

from burla.limits import VALUE_BYTES_MAX

from .fields import Count, Id, Message

INPUTS = "inputs"  # feature of a Hello or a Welcome: to who has not said it inputs go whole
LEAF_BYTES_MAX = VALUE_BYTES_MAX + (64 << 20)  # the largest value, and how it is laid out
INPUT_WINDOW = 8 << 20  # bytes that one lease has asked for and has not got


class InputWanted(Message, frozen=True):
    """nodelet -> scheduler -> client: send bytes [start, stop) of a leaf; answered by InputPieces.

    The scheduler passes it on when there is little enough under way. With `start` and `stop` alike
    it only tells how much has arrived, and is not passed on.
    """

    lease: Id
    job: Id
    batch: Count
    leaf: Count  # index of its first input
    have: Count  # bytes from its beginning that have arrived: nobody need count on them
    start: Count
    stop: Count


class InputPiece(Message, frozen=True):
    """client -> scheduler -> nodelet: bytes of a leaf from `start` on. Payload: these, in frames.

    Nobody takes one that was not asked for.
    """

    lease: Id
    job: Id
    leaf: Count
    start: Count


class BatchWanted(Message, frozen=True):
    """scheduler -> client: a node that knows nothing of all this needs a batch; send it whole."""

    job: Id
    batch: Count
