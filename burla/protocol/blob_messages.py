"""Blobs: bytes that are known by their content, asked for by who lacks them. Pure.

`OpenJob` and `StartLease` name the blobs of a job by SHA-256 and size. Whoever lacks one asks where
the name came from, for BLOB_WINDOW bytes ahead at most; what comes is looked at when all is there.
So nothing of it is sent twice, what gets lost is asked for again, and who asks sets the pace.
"""

from .fields import BlobDigest, Count, Id, Message, Positive, Text
from .package_messages import Lacking

BLOBS = "blobs"  # feature of a Hello or a Welcome: to who has not said it functions go whole


class BlobWanted(Message, frozen=True):
    """nodelet -> scheduler -> client: send these bytes of a blob; answered by BlobPieces.

    The scheduler asks by itself, and keeps what comes: it asks for a blob once, however many nodes
    ask for it. A new one about the same blob takes the place of the one before.
    """

    about: Id  # the lease that needs it; to a client, the job
    digest: BlobDigest
    start: Count
    stop: Positive


class BlobPiece(Message, frozen=True):
    """client -> scheduler -> nodelet: bytes of a blob from `start` on. Payload: these, in frames.

    Nobody takes one that was not asked for.
    """

    about: Id  # as in BlobWanted
    digest: BlobDigest
    start: Count


class LeaseRefused(Message, frozen=True):
    """nodelet -> scheduler: this node cannot serve the lease. Its job fails."""

    lease: Id
    why: Text
    packages: Lacking = ()  # that the node cannot have, if that is why
