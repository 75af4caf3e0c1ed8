"""The public function: checks its arguments, starts a job, hands its results on."""

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import msgspec

from burla.core.batches import Window
from burla.core.read_ahead import GROW_AHEAD_S, InOrder, ReadAhead
from burla.core.session import Session
from burla.limits import GB
from burla.protocol import messages as m
from burla.protocol.digest import digest_of
from burla.shell.caller import Caller
from burla.shell.clients import client_for, close_idle
from burla.shell.io_thread import IoThread
from burla.shell.job import Job
from burla.system.hash_seed import own_seed
from burla.transport.addresses import take_apart
from burla.values.calls import Guarded
from burla.values.held_parts import HeldFunction
from burla.values.payloads import (
    cut_batches,
    hold_function,
    is_lazy,
    take_apart_function,
)
from burla.values.pickling import Sent
from burla.values.shared_memory import make_room
from burla.values.sharing import SharedInputs, directory_of, parts_in

from .arguments import Shape, check_arguments, decide_unpack, name_of
from .attachments import Attachments, attach
from .config import cluster_address, may_grow, reconnect_timeout_s
from .modules import new_sent, packed_environment, travelling_modules
from .monkey_patches import refuse_green_threads
from .nested import is_nested, list_here, put_here, run_here
from .options import Options, read_options
from .own_frames import hide_own_frames, warn_caller
from .private_cluster import LocalCluster, is_current, private_cluster
from .retry import Retry
from .shipped_files import Shipped, dump_files, find_files
from .surroundings import TOKEN, packed_surroundings
from .variables import Chosen, read_env

R = TypeVar("R")
Path = str | os.PathLike[str]
Files = Path | Iterable[Path] | Mapping[str, Path]

KINDS = {False: m.BlobKind.PART, True: m.BlobKind.BYTES_PART}  # of a part: was it a `bytes`?
ANSWER_S = 8.0  # how long a configured cluster may take to say its first word
ANSWER_PRIVATE_S = 60.0  # its daemons start on a busy machine; that they died is known at once


class Rest(TypedDict, total=False):
    """The arguments that say nothing of the kind of the results."""

    func_cpu: int
    func_ram: float | None
    max_parallelism: int | None
    spinner: bool
    unpack: bool | None
    grow: bool | None
    env: Mapping[str, str | None] | Iterable[str] | None
    files: Files | None
    ordered: bool
    timeout: float | None
    retries: int | Retry | None


@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[False] = False,
    return_exceptions: Literal[False] | None = None,
    raise_errors: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> list[R]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[False] = False,
    return_exceptions: Literal[True],
    raise_errors: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> list[R | BaseException]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[False] = False,
    raise_errors: Literal[False],
    return_exceptions: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> list[R | BaseException]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[True],
    return_exceptions: Literal[False] | None = None,
    raise_errors: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> list[tuple[int, R]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[True],
    return_exceptions: Literal[True],
    raise_errors: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> list[tuple[int, R | BaseException]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[False] = False,
    with_index: Literal[True],
    raise_errors: Literal[False],
    return_exceptions: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> list[tuple[int, R | BaseException]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[False] = False,
    return_exceptions: Literal[False] | None = None,
    raise_errors: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[R]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[False] = False,
    return_exceptions: Literal[True],
    raise_errors: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[R | BaseException]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[False] = False,
    raise_errors: Literal[False],
    return_exceptions: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[R | BaseException]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[True],
    return_exceptions: Literal[False] | None = None,
    raise_errors: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[tuple[int, R]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[True],
    return_exceptions: Literal[True],
    raise_errors: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[tuple[int, R | BaseException]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    generator: Literal[True],
    with_index: Literal[True],
    raise_errors: Literal[False],
    return_exceptions: Literal[True] | None = None,
    **rest: Unpack[Rest],
) -> Iterator[tuple[int, R | BaseException]]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int,
    func_ram: float | None = None,
    max_parallelism: int | None = None,
    generator: Literal[False] = False,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
) -> list[R]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int,
    func_ram: float | None,
    max_parallelism: int | None,
    generator: Literal[True],
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
) -> Iterator[R]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int = 1,
    func_ram: float | None = None,
    max_parallelism: int | None = None,
    generator: bool = False,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
    *,
    ordered: bool = False,
    with_index: bool = False,
    return_exceptions: bool | None = None,
    raise_errors: bool | None = None,
    timeout: float | None = None,
    retries: int | Retry | None = None,
) -> list[Any] | Iterator[Any]: ...
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int = 1,
    func_ram: float | None = None,
    max_parallelism: int | None = None,
    generator: bool = False,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
    *,
    ordered: bool = False,
    with_index: bool = False,
    return_exceptions: bool | None = None,
    raise_errors: bool | None = None,
    timeout: float | None = None,
    retries: int | Retry | None = None,
) -> list[Any] | Iterator[Any]:
    """Call `function_` on every input at the same time on many computers, as if it ran here.

    What the calls print appears here, an error is raised here with the remote traceback, and it all
    stops with the first error (unless `return_exceptions`), with Ctrl-C, and with this process. The
    cluster is the one that `BURLA_CLUSTER` names (`burla://HOST:PORT?key=KEY` or `ipc://PATH`), or
    `burla login` stored; without one, a private cluster on this machine starts with the first call
    and ends with the process.

    Each input is called at least once and its result delivered exactly once, whatever dies on the
    way: a call is repeated only if the process or machine that ran it died before its outcome was
    safe. Results are what the function returned when it returned, as copies.

    Calls never share a process with those of another user, function or option. If the same function
    is mapped again within 3 seconds, its worker processes may go on: then the function, its
    globals, its closure, its caches and the caller's own modules are loaded anew; what stays of the
    call before are installed modules, what was done to them, and what the function left in its
    process, such as threads and open files.

    The calls find what stands around this one: the working directory, `sys.path`, `sys.argv`, what
    is configured of `logging` (records go to the handlers here), warning filters (warnings are
    shown here), the recursion limit, the context of `decimal`. With a private cluster `os.environ`
    is theirs; elsewhere they have what this process has changed of it since it started, and `env`.

    Args:
        function_: any callable, also a lambda or a bound method. It travels with its globals and
            closure as they are now; what this process can import, it can import.
        inputs: any iterable, one element per call, also a lazy one. `range` and NumPy arrays are
            sent without being unrolled. An endless one is for `generator=True`. What is no list,
            tuple, range or array is read only as far ahead as keeps the nodes busy: 3 inputs per
            slot, and what the slots run in 0.3 s (two minutes with `grow`); 8 before the first
            node serves the job. One that is a `burla.call(1, key=2)` becomes a call with these
            arguments.
        func_cpu: CPUs for each call, a whole number from 1.
        func_ram: GB (2**30 bytes) of memory for each call: so many run at once as fit, and a call
            whose processes use more of their own is ended (`OutOfMemory`). None: no limit; when a
            node's memory runs short, fewer calls run there, and one that was killed for it is
            called again with fewer beside it, at last alone, before it is an error.
        max_parallelism: how many calls run at the same time at most; None: as many as fit.
        generator: return an iterator that yields results as they complete, instead of a list. The
            calls start now, not at the first `next`; closing or dropping it cancels the rest. The
            inputs are advanced in this thread: for a moment now, then inside `next`.
        spinner: say on stderr why the job waits, if it does, which calls hang, and which were
            called again.
        unpack: True: an input holds the positional arguments of its call. False: it is the one
            argument. None: tuples are unpacked if the function takes more than one argument, also
            an optional one; what is no tuple is the one argument.
        grow: True: where the cluster may grow, machines are made for this job if the wait would be
            long, and deleted when they are idle. None: as `BURLA_GROW` or the settings say, else
            False.
        env: environment variables that the calls have beside those that go along anyway: a mapping
            of names to texts (None: not set), or names of variables of `os.environ`. They count
            before all others. Never HOME, PATH, LD_*, PYTHON* and BURLA_*, which are the machine's.
        files: paths of files and folders that the calls read, in or below the working directory:
            on each node they are in the folder of the job (`BURLA_JOB_DIR`) under the same relative
            names, and that folder is then the working directory of the calls. A mapping gives
            them other names: `{"model.bin": "/data/model.bin"}`. They go with the job; what is
            written there, too.
        ordered: with `generator=True`, yield in the order of the inputs. Calls are ahead of the
            result that is yielded next only as far as theirs take up little memory (64 MiB). A list
            is in this order anyway.
        with_index: give each result as `(index of its input, result)`.
        return_exceptions: the outcome of a call that fails is its exception, in the place of its
            result, with traceback and `burla_input_index`; so are `WorkerDied`, `NodeLost` and all
            other `CallFailed`. The job goes on with the other inputs. What concerns all of them is
            raised as ever: that the function cannot be loaded, or the cluster is lost.
        raise_errors: the reverse of `return_exceptions`, another name for it.
        timeout: seconds that each call may take. After that `CallTimeout` (a TimeoutError) is
            raised in it, whatever it does, and is its outcome, whatever it returns. If it has not
            ended a second later, as in C code that holds the interpreter's lock, its process is
            killed with all that it has started. No other call is run again for that.
        retries: how often a call that raises an exception, or takes too long, is called again
            before that is its outcome; or a `burla.Retry`, which says for which exceptions, after
            what wait, and where. Which calls it was is said on stderr at the end (if `spinner`). A
            process that dies is tried three times anyway, or as often as this says.

    Returns:
        The results in the order of the inputs; with `generator=True` in order of completion, unless
        `ordered`.

    Raises:
        TypeError: an argument is of a wrong kind, or cannot be pickled; the text names it.
        ValueError: an argument has an impossible value.
        BurlaError: the cluster cannot be reached, is lost, or cannot run this; this process was
            away for longer than it waits (`CallerAway`); or a call's process died again and again
            (`WorkerDied`), took its nodes down (`NodeLost`), needs too much memory
            (`OutOfMemory`) or got more bytes than may be sent (`InputTooLarge`). See
            `burla.errors`.
        KeyboardInterrupt: Ctrl-C; all calls are stopped.
        BaseException: what a call raised, as the same class, with `burla_input_index` on it. What
            `inputs` raises while it is advanced comes out unchanged.

        What is raised once the calls have begun, also KeyboardInterrupt, carries `burla_partial`: a
        mapping of indices of inputs to the results that were there and that the caller has not had.

    Examples:
        >>> remote_parallel_map(lambda x: x * 2, [1, 2, 3])
        [2, 4, 6]
        >>> remote_parallel_map(pow, [(2, 3), (3, 2)])
        [8, 9]
        >>> for result in remote_parallel_map(parse, paths, generator=True):
        ...     print(result)
    """
    try:
        options = read_options(
            generator=generator,
            ordered=ordered,
            with_index=with_index,
            return_exceptions=return_exceptions,
            raise_errors=raise_errors,
            timeout=timeout,
            retries=retries,
        )
        return _map(
            *(function_, inputs, func_cpu, func_ram, max_parallelism),
            *(spinner, unpack, grow),
            *(read_env(env), find_files(files), options),
        )
    except BaseException as error:
        hide_own_frames(error)
        raise


def _hiding_frames(results: Iterator[R]) -> Iterator[R]:
    try:
        yield from results
    except BaseException as error:
        hide_own_frames(error)
        raise


def _map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int,
    func_ram: float | None,
    max_parallelism: int | None,
    spinner: bool,
    unpack: bool | None,
    grow: bool | None,
    chosen: Chosen,
    shipped: Sequence[Shipped],
    options: Options,
) -> list[Any] | Iterator[Any]:
    check_arguments(function_, inputs, func_cpu, func_ram, max_parallelism, spinner, unpack, grow)
    shape = decide_unpack(function_, unpack, inputs)
    if is_nested():
        put_here(shipped)
        here = run_here(function_, inputs, shape, chosen, options)
        return _hiding_frames(here) if options.generator else list_here(here, options)
    if type(inputs) in (list, tuple, range) and not inputs:
        return iter(()) if options.generator else []
    refuse_green_threads()
    spec = _specify(function_, shape, func_cpu, func_ram, max_parallelism, options)
    caller = _start(spec, function_, inputs, shape, spinner, options, grow, chosen, shipped)
    if not options.generator:
        return [] if caller is None else caller.collect()
    if caller is None:
        return iter(())
    results: Iterator[Any] = _hiding_frames(caller.stream())
    next(results)  # it is begun now, so that closing it ends the job
    return results


def _specify(
    function: Callable[..., Any],
    shape: Shape,
    func_cpu: int,
    func_ram: float | None,
    max_parallelism: int | None,
    options: Options,
) -> m.OpenJob:
    return m.OpenJob(
        job=os.urandom(16),
        topic=os.urandom(16),
        name=name_of(function)[:256],
        func_cpu=min(m.NUMBER_MAX, operator.index(func_cpu)),
        func_ram=None if func_ram is None else max(1, int(min(m.NUMBER_MAX, func_ram * GB))),
        max_parallelism=(
            None if max_parallelism is None else min(m.NUMBER_MAX, operator.index(max_parallelism))
        ),
        unpack=shape.unpack,
        environment=b"",  # comes when the cluster is known
        fragments=True,
        policy=options.policy(),
    )


def _start(
    spec: m.OpenJob,
    function: Callable[..., Any],
    inputs: Iterable[Any],
    shape: Shape,
    spinner: bool,
    options: Options,
    grow: bool | None,
    chosen: Chosen,
    shipped: Sequence[Shipped],
) -> Caller | None:
    """Return the job, open and with its first inputs; None, and nothing is started, without any."""
    sent = new_sent()
    sample = inputs if isinstance(inputs, list | tuple) else ()
    retry = options.retry
    sent_as = function if retry is None else Guarded(function, retry.kinds)
    name = None if retry is None else name_of(function)
    pieces = take_apart_function(sent_as, sample=sample, sent=sent, name=name)
    ahead = ReadAhead() if is_lazy(inputs) else None
    if ahead is not None:  # what makes the inputs may change what the function refers to
        pieces.copy()
    in_order = InOrder() if options.generator and options.is_ordered else None
    window = Window(ahead, in_order)
    room = window.room if ahead is not None or in_order is not None else None
    batches = cut_batches(inputs, sent, shape.check, room=room)
    first = next(batches, None)
    if first is None:
        return None
    limits = {
        "func_cpu": spec.func_cpu,
        "func_ram": None if spec.func_ram is None else spec.func_ram / GB,
        "max_parallelism": spec.max_parallelism,
    }
    address = cluster_address()
    memory = directory = free = None
    if address is not None:
        connect: Callable[[], IoThread] = partial(
            client_for, address, None, ANSWER_S, reconnect_timeout_s()
        )
        thread = connect()
        secret = b"" if take_apart(address).key is None else os.urandom(m.SECRET_BYTES_MAX)
        spec = msgspec.structs.replace(spec, secret=secret, grow=may_grow(grow))
        if ahead is not None and spec.grow:
            ahead.ahead_s = GROW_AHEAD_S
    else:  # this machine: nothing else can listen, and it cannot grow
        cluster = private_cluster()
        connect, thread = _connect_private, _connect_to(cluster)
        if (memory := cluster.memory) is not None:
            directory, free = directory_of(memory, spec.job.hex()), cluster.free_files
    around = packed_surroundings(chosen, private=address is None)
    attached = _attachments(function, inputs, sent, shipped, travels=address is not None)
    held = hold_function(function, pieces, None if memory is None else parts_in(memory))
    try:
        spec = msgspec.structs.replace(
            spec,
            environment=packed_environment(
                memory,
                travels=address is not None,
                attached=attached.inline,
                surroundings=around,
            ),
            lazy=room is not None,
            digest=b"" if shipped else _digest_of(held, attached),  # each has its own files
            hash_seed=own_seed(),
            blobs=(*_blobs_of(held), *attached.blobs),
        )
        contents = {part.digest: memoryview(part.content) for part, _ in held.parts}
        for blob, data in zip(attached.blobs, attached.contents, strict=True):
            contents[blob.digest] = memoryview(data)
        # those that wait for earlier ones are bounded by the window of inputs, not by their own
        prompt = not options.generator or options.is_ordered
        session = Session(spec, held.frames, prompt, make_room, contents)
        job = Job(session, thread, spec.name, spinner, TOKEN)
        shared = SharedInputs(directory, free, os.cpu_count() or 1)
        parts = chain([first], batches)
        delivery = options.delivery()
        return Caller(job, connect, inputs, parts, limits, shared, window, held, delivery)
    except BaseException:
        held.release()
        raise


def _attachments(
    function: object, inputs: object, sent: Sent, shipped: Sequence[Shipped], *, travels: bool
) -> Attachments:
    own = travelling_modules(function, inputs, sent) if travels else None
    if own is not None and own.warning:
        warn_caller(own.warning)
    attached = Attachments() if own is None else own.attached
    return attached.joined_with(attach(dump_files(shipped))) if shipped else attached


def _blobs_of(held: HeldFunction) -> list[m.Blob]:
    return [m.Blob(part.digest, part.size, KINDS[is_bytes]) for part, is_bytes in held.parts]


def _digest_of(held: HeldFunction, attached: Attachments) -> bytes:
    digests = [part.digest for part, _ in held.parts]
    return digest_of([*held.frames, *digests, *(blob.digest for blob in attached.blobs)])


def _connect_private() -> IoThread:
    return _connect_to(private_cluster())


def _connect_to(cluster: LocalCluster) -> IoThread:
    """Return the I/O thread of a private cluster, or of the next if another thread replaced it."""
    while True:
        cluster.wait_listening(ANSWER_PRIVATE_S)
        thread = client_for(cluster.address, cluster.failed, ANSWER_PRIVATE_S)
        if is_current(cluster):
            return thread
        close_idle(cluster.address)
        cluster = private_cluster()
