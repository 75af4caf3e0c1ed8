"""Messages between administrators and the scheduler, beyond those of every client. Pure.

An administrator is a client whose key has that role; over ipc, whoever gets there.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from . import (
    job_messages as jm,
    key_messages as km,
    output_messages as om,
    overview_messages as ov,
)
from .messages import (
    AskDemand,
    ClientToScheduler,
    Count,
    Heartbeat,
    HelloRequired,
    Message,
    Nodes,
    Refused,
    Seconds,
    Secret,
    Text,
    Welcome,
    Word,
)

JOBS_TOLD_MAX = 1000  # in one answer; their number is told, too
KEYS_TOLD_MAX = 1000
NAMES_MAX = 1000  # of nodes in one message


# --- administrator -> scheduler ---


class AskJobs(Message, frozen=True):
    """administrator -> scheduler: which jobs are open? Answered by Jobs."""


class EndJobs(Message, frozen=True):
    """administrator -> scheduler: the cluster is taken down: end all jobs. Answered by Jobs.

    Their callers hear ClusterEnded; what comes later is not affected.
    """

    by: Word  # who does it, and how, for the callers


class ForgetNodes(Message, frozen=True):
    """administrator -> scheduler: these were removed on purpose: list them as lost no longer.

    Answered by Nodes.
    """

    names: Annotated[tuple[Word, ...], Meta(max_length=NAMES_MAX)]


class KeyOperation(StrEnum):
    """What an administrator does to the table of keys."""

    LIST = "list"
    ADD = "add"  # `key` gets `role`, as `user`
    REVOKE = "revoke"  # `key`: a key, the first digits of one, or a user
    TOKEN = "token"  # makes a join token
    # These only to a scheduler that has said `key_messages.KEYS`.
    ROTATE_SERVER = "rotate-server"  # the scheduler gets another key in `overlap_s`
    ROTATE_NODE = "rotate-node"  # the node called `user` does, now


class ManageKeys(Message, frozen=True):
    """administrator -> scheduler: look at or change who may connect. Answered by KeysManaged."""

    operation: KeyOperation
    key: Word = ""
    user: Word = ""
    role: Word = ""
    overlap_s: Seconds = 0.0


AdminToScheduler = ClientToScheduler | AskDemand | AskJobs | EndJobs | ForgetNodes | ManageKeys

# --- scheduler -> administrator ---


class OpenedJob(Struct, frozen=True, array_like=True):
    """One job that is open, for administrators."""

    user: Word
    name: Word  # of its function
    open_s: Seconds  # for how long
    left: Count  # inputs without an outcome, as far as they were sent
    nodes: Count  # that serve it


class Jobs(Message, frozen=True):
    """scheduler -> administrator: answer to AskJobs and EndJobs: the oldest first."""

    jobs: Annotated[tuple[OpenedJob, ...], Meta(max_length=JOBS_TOLD_MAX)]
    total: Count  # of which the first are told


class KnownKey(Struct, frozen=True, array_like=True):
    """One public key in the scheduler's table; times are Unix time."""

    key: Word  # 64 hexadecimal digits
    user: Word
    role: Word
    added_s: Seconds
    revoked_s: Seconds | None
    expires_s: Seconds | None


class KeysManaged(Message, frozen=True):
    """scheduler -> client: answer to ManageKeys and ReplaceKey: the keys that it is about."""

    keys: Annotated[tuple[KnownKey, ...], Meta(max_length=KEYS_TOLD_MAX)] = ()
    total: Count = 0  # of which the first are told
    token: Secret = b""  # one that was made
    why: Text = ""  # nothing was done, and why
    server_key: Secret = b""  # the scheduler's next one, public; it counts
    from_s: Seconds = 0.0  # from this Unix time on


SchedulerToAdmin = (
    Welcome
    | Refused
    | HelloRequired
    | Jobs
    | Nodes
    | KeysManaged
    | jm.JobList
    | jm.JobShown
    | om.KeptOutput
    | ov.Overview
    | ov.NodeShown
    | km.ServerKey
    | Heartbeat
)
