"""Every exception of burla that a caller can see. All of them can be pickled.

    BurlaError
    ├── BadSetting             a setting or environment variable says something impossible
    ├── ClusterError           the cluster, not the function
    │   ├── ClusterUnreachable     nothing answers at the address
    │   ├── ClusterLost            it answered, and fell silent or ended in the middle of a job
    │   ├── Refused                it answered no
    │   │   ├── VersionMismatch        another protocol or another Python
    │   │   └── NotAuthorised          this key may not do that
    │   └── NoSharedFiles          its nodes have no file system in common
    ├── Unsatisfiable          no node could ever satisfy an argument
    ├── JobFailed              the job as a whole: the function could not be loaded, and the like
    │   ├── CallerAway             this process was away for longer than the cluster waits
    │   └── JobNotFound            there is no such detached job of this user
    ├── JobDetached            the job goes on without this process, as it was asked to; has `job`
    └── CallFailed             the call of one input; has `burla_input_index`
        ├── WorkerDied             its process died, again and again
        ├── NodeLost               the nodes that ran it were lost, one after the other
        ├── InputTooLarge          the input has more bytes than the cluster takes
        ├── OutOfMemory            it used more memory than it may, or than its node has
        ├── CallTimeout            it took longer than `timeout`; a TimeoutError, too
        ├── FunctionExited         the function raised SystemExit, KeyboardInterrupt, GeneratorExit
        ├── InputNotLoadable       the input could not be unpickled by the worker
        ├── ResultNotSendable      what the function returned could not be pickled or unpickled
        └── RemoteError            what the function raised could not be pickled or unpickled

What the function raises is raised as it is whenever that can be done. Bad arguments are plain
TypeError and ValueError, Ctrl-C is KeyboardInterrupt. Each text says what, which, why, what to do.
"""

from typing import Any

from burla.limits import GB

from .ends import what_it_means

LAST_WORDS_CHARS_MAX = 2_000  # of a dead worker's output in an error's text


class BurlaError(Exception):
    """Base of all of burla's own exceptions."""

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.args, vars(self))


def _restore(
    cls: type[BurlaError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> BurlaError:
    error = cls.__new__(cls, *args)
    error.args = args  # an OSError's `__new__` leaves that to `__init__`
    vars(error).update(attributes)
    return error


class BadSetting(BurlaError):
    """A setting says something impossible."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        is_ = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{name} {is_}: it must be {expected}")
        self.name = name


class ClusterError(BurlaError):
    """Something is wrong with the cluster, not with the function."""


class ClusterUnreachable(ClusterError):
    """Nothing answers at the address of the cluster."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"no cluster answers at {address}: {why}. Check that burla-scheduler runs there"
            " (`burla up` on its machine starts it) and that the address (BURLA_CLUSTER, or"
            " `burla login`) is right; `burla doctor` looks at the whole way. Without an address,"
            " functions run on this machine"
        )
        self.address = address


class ClusterLost(ClusterError):
    """The cluster fell silent or ended while a job ran."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"the cluster at {address} was lost in the middle of the job: {why}."
            " Calls without a result may have run; start the job again"
        )
        self.address = address


class Refused(ClusterError):
    """The cluster does not take this client or its job; the text says why."""


class VersionMismatch(Refused):
    """Client and cluster speak different protocols or run different Pythons."""

    def __init__(self, what: str, ours: str, theirs: str) -> None:
        super().__init__(
            f"{what} is {ours} here and {theirs} in the cluster; they must be equal."
            f" Run the client with {theirs}, or the cluster with {ours}"
        )


class NotAuthorised(Refused):
    """The key of this client may not do what was asked."""


class NoSharedFiles(ClusterError):
    """The nodes of the cluster have no file system in common, as far as it was told."""


class Unsatisfiable(BurlaError):
    """No node of the cluster could ever satisfy an argument."""

    def __init__(self, argument: str, value: object, why: str, *, is_private: bool = False) -> None:
        nodes = (
            "set a cluster that has such nodes" if is_private else "add a node that is big enough"
        )
        super().__init__(
            f"{argument}={value!r} cannot be satisfied: {why}. Lower {argument}, or {nodes}"
        )
        self.argument = argument


class JobFailed(BurlaError):
    """The job as a whole failed, before or beside any single call."""


class CallerAway(JobFailed):
    """This process was away (stopped, asleep, cut off) for longer than the cluster keeps its jobs.

    Attributes:
        away_s: for how long the cluster heard nothing of it.
        limit_s: how long the cluster waits.
    """

    def __init__(self, text: str, away_s: float, limit_s: float) -> None:
        super().__init__(text)
        self.away_s = away_s
        self.limit_s = limit_s


class JobNotFound(JobFailed):
    """There is no such detached job of this user."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"there is no detached job {job_id} of yours on this cluster: it was deleted, its time"
            " there is over, or it belongs to another user or cluster"
        )
        self.job_id = job_id


class JobDetached(BurlaError):
    r"""The job goes on without this process: Ctrl-\ was pressed, or `burla jobs detach` called.

    Attributes:
        job: the `burla.Job`, which has all results, also those that were here.
    """

    def __init__(self, job: Any) -> None:
        self.job = job
        super().__init__(
            f"the job is detached and goes on without this process. All of its results:"
            f' burla.attach("{job.id}").results()'
        )


class CallFailed(BurlaError):
    """The call of one input failed for a reason that is not an exception of the function's own."""

    burla_input_index: int


class WorkerDied(CallFailed):
    """The process that ran one input died each time it was tried.

    Attributes:
        burla_input_index: which input.
        how: `signal SIGSEGV`, `exit status 3`, ...
        deaths: how many times it died.
        last_words: the end of what it printed before.
        dump: where native code crashed, as `faulthandler` has it; empty: it did not.
    """

    def __init__(
        self,
        index: int,
        how: str,
        deaths: int,
        *,
        call: str = "",
        last_words: str = "",
        why: str = "",
        dump: str = "",
        was_loading: bool = False,
    ) -> None:
        """Say what is known.

        Args:
            index: of the input.
            how: its process ended.
            deaths: how many times.
            call: which call it was, in words.
            last_words: the end of what it printed.
            why: it ended, if more is known than `how` says.
            dump: as faulthandler wrote it.
            was_loading: it was loading the function: no call had begun.
        """
        words = last_words.strip()[-LAST_WORDS_CHARS_MAX:]
        times = "died" if deaths == 1 else f"died {deaths} times, the last time"
        doing = " while it loaded the function" if was_loading else ""
        text = (
            f"{call or f'input {index}'}: its worker process {times} by {how}{doing}."
            f" {why or what_it_means(how)}"
        )
        text += f". Its last words:\n{words}" if words else ""
        if dump:
            text += f"{'' if words else '.'}\nIt crashed here:\n{dump}"
        super().__init__(text)
        self.burla_input_index = index
        self.how = how
        self.deaths = deaths
        self.last_words = last_words
        self.dump = dump


class OutOfMemory(CallFailed):
    """The call of one input was ended because it used more than `func_ram`, or than its node has.

    What the node ran out of is told only after the call was tried alone there.

    Attributes:
        burla_input_index: which input.
        used: bytes, when its process was last looked at; 0: it was too quick for that.
        limit: func_ram in bytes; None: the node ran out.
        total: bytes of memory of the node.
        available: bytes of it that were left.
    """

    def __init__(
        self,
        index: int,
        *,
        used: int,
        limit: int | None,
        total: int,
        available: int,
        call: str = "",
    ) -> None:
        text = f"{call or f'input {index}'}: its call was ended because "
        if limit:
            text += (
                f"it used {_gb(used)}, more than func_ram={limit / GB:.4g} allows;"
                f" its node has {_gb(total)}. Raise func_ram, or use smaller inputs"
            )
        else:
            seen = f"it used {_gb(used)} or more" if used else "it was too quick to be measured"
            text += (
                f"its node ran out of memory, though no other call ran there: {seen}, the node has"
                f" {_gb(total)}, of which {_gb(available)} were free when last measured. Use"
                " smaller inputs, or set func_ram (GB) to what a call needs, so that it runs on a"
                " node that has it"
            )
        super().__init__(text)
        self.burla_input_index = index
        self.used = used
        self.limit = limit or None
        self.total = total
        self.available = available


def _gb(size: int) -> str:
    return f"{size / GB:.3g} GB"


class CallTimeout(CallFailed, TimeoutError):
    """The call of one input took longer than `timeout`.

    It is raised in the call first, which has a second to clean up; then its process is killed.

    Attributes:
        burla_input_index: which input.
        timeout: seconds that it had.
        killed: whether its process was killed.
    """

    def __init__(self, index: int, timeout: float, *, call: str = "", killed: bool = False) -> None:
        end = (
            "it did not end when it was interrupted, so its process was killed"
            if killed
            else "it was interrupted"
        )
        super().__init__(
            f"{call or f'input {index}'}: the call took longer than timeout={timeout:g} s; {end}"
        )
        self.burla_input_index = index
        self.timeout = timeout
        self.killed = killed


class NodeLost(CallFailed):
    """The nodes that ran one input were lost each time, the last one while it ran nothing else.

    A node is lost when its machine, or the nodelet on it, ends without a word, or is silent.

    Attributes:
        burla_input_index: which input.
        nodes: names of those nodes, in the order in which they were lost.
    """

    def __init__(self, index: int, nodes: tuple[str, ...], *, call: str = "") -> None:
        super().__init__(
            f"{call or f'input {index}'}: {len(nodes)} nodes were lost while they ran it"
            f" ({', '.join(nodes)}), the last one while it ran nothing else. It seems to take its"
            " machine down, e.g. by using up all memory or by ending processes that are not its"
            " own: call the function on this input by itself, with a look at the machine's log, or"
            " set func_ram"
        )
        self.burla_input_index = index
        self.nodes = nodes


class InputTooLarge(CallFailed):
    """One input has more bytes than the cluster takes; it was not sent, or not taken.

    Attributes:
        burla_input_index: which input; of several small ones the first.
    """

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.burla_input_index = index


class FunctionExited(CallFailed):
    """The function raised SystemExit, KeyboardInterrupt or GeneratorExit.

    These mean "end this process" where they are raised, so they don't come out here as they are.
    """


class InputNotLoadable(CallFailed):
    """An input was sent but could not be unpickled by the worker."""


class ResultNotSendable(CallFailed):
    """What the function returned could not be pickled there, or not unpickled here."""


class RemoteError(CallFailed):
    """The function raised an exception that could not be brought here.

    Attributes:
        burla_input_index: which input.
        type_name: of the original exception.
        text: of the original exception.
        remote_traceback: as formatted where it was raised.
    """

    type_name: str = ""
    text: str = ""
    remote_traceback: str = ""


# What the original calls them, for scripts that catch them by name: only where ours means the same.

InputTooBig = InputTooLarge
NoCompatibleNodes = Unsatisfiable
NodeDisconnected = NodeLost
ClusterShutdown = ClusterRestarted = ClusterLost
MainServiceTimeout = ClusterUnreachable
UnauthorizedError = NotAuthorised
