"""The public function. To import it costs little: what it does is loaded with the first call.

A private cluster is started before that, and starts while it is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

from burla.system.garbage import NoCollections
from burla.system.interrupts import HeldInterrupts

from .own_frames import hide_own_frames

if TYPE_CHECKING:
    from burla.core.progress import Progress

    from .detached import Job
    from .original import Dynamic
    from .retry import Retry

R = TypeVar("R")
Path = str | os.PathLike[str]
Files = Path | Iterable[Path] | Mapping[str, Path]
Packages = Path | list[str] | tuple[str, ...]


class Rest(TypedDict, total=False):
    """The arguments that say nothing of the kind of the results."""

    func_cpu: int | Dynamic
    func_ram: float | Dynamic | None
    max_parallelism: int | None
    spinner: bool
    unpack: bool | None
    grow: bool | None
    env: Mapping[str, str | None] | Iterable[str] | None
    files: Files | None
    packages: Packages | None
    ordered: bool
    timeout: float | None
    retries: int | Retry | None
    func_gpu: int
    progress: Callable[[Progress], object] | None
    resume: str | None
    image: str | None
    region: str | None
    disk_gb: int | None


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
    func_cpu: int | Dynamic,
    func_ram: float | Dynamic | None = None,
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
    func_cpu: int | Dynamic,
    func_ram: float | Dynamic | None,
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
    func_cpu: int | Dynamic = 1,
    func_ram: float | Dynamic | None = None,
    max_parallelism: int | None = None,
    generator: bool = False,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
    *,
    packages: Packages | None = None,
    ordered: bool = False,
    with_index: bool = False,
    return_exceptions: bool | None = None,
    raise_errors: bool | None = None,
    timeout: float | None = None,
    retries: int | Retry | None = None,
    func_gpu: int = 0,
    progress: Callable[[Progress], object] | None = None,
    resume: str | None = None,
) -> list[Any] | Iterator[Any]: ...
@overload
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    *,
    detach: Literal[True],
    return_exceptions: bool | None = None,
    raise_errors: bool | None = None,
    **rest: Unpack[Rest],
) -> Job: ...
def remote_parallel_map(
    function_: Callable[..., R],
    inputs: Iterable[Any],
    func_cpu: int | Dynamic = 1,
    func_ram: float | Dynamic | None = None,
    max_parallelism: int | None = None,
    generator: bool = False,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: Files | None = None,
    *,
    packages: Packages | None = None,
    ordered: bool = False,
    with_index: bool = False,
    return_exceptions: bool | None = None,
    raise_errors: bool | None = None,
    timeout: float | None = None,
    retries: int | Retry | None = None,
    func_gpu: int = 0,
    progress: Callable[[Progress], object] | None = None,
    detach: bool = False,
    resume: str | None = None,
    image: str | None = None,
    region: str | None = None,
    disk_gb: int | None = None,
) -> list[Any] | Iterator[Any] | Job:
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
        func_cpu: CPUs for each call, a whole number from 1. "dynamic" is 1.
        func_ram: GB (2**30 bytes) of memory for each call: so many run at once as fit, and a call
            whose processes use more of their own is ended (`OutOfMemory`). None: no limit; when a
            node's memory runs short, fewer calls run there, and one that was killed for it is
            called again with fewer beside it, at last alone, before it is an error. "dynamic" is
            None.
        max_parallelism: how many calls run at the same time at most; None: as many as fit.
        generator: return an iterator that yields results as they complete, instead of a list. The
            calls start now, not at the first `next`; closing or dropping it cancels the rest. The
            inputs are advanced in this thread: for a moment now, then inside `next`.
        spinner: show how far a job is that takes more than half a second, why it waits, which calls
            hang, and which were called again: on a terminal in one line under the prints, in a
            notebook in a display, elsewhere in a line on stderr every 10 s. What took over 5 s has
            a summary at its end. `BURLA_PROGRESS` (live, lines, off) says how; False: none of it.
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
        packages: which installed packages the calls need. "auto": what the function and own modules
            import of them, with all that these require, in the versions that are installed here;
            nodes that have others, or none, install them from their index before the first call,
            and what no index has goes along as it is installed here. "off": the calls have what
            their nodes have. Or a list of requirements, or the path of a requirements file, a
            pyproject.toml or a uv.lock. None: as `BURLA_PACKAGES` or the settings say, else "auto".
            A private cluster runs on this Python and installs nothing.
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
        func_gpu: GPUs for each call, which no other call uses at the same time: they are the ones
            that CUDA shows it (`CUDA_VISIBLE_DEVICES`). 0: none of its own; it sees what its node
            has.
        progress: called with a `burla.Progress` about twice a second once the job has taken half a
            second, and at its end, in a thread of its own; what it raises ends the job.
        detach: return a `burla.Job` as soon as the function and all inputs are on the disk of the
            cluster's scheduler. The job goes on without this process; its results can be had from
            anywhere with the same key (`burla.attach`), for 7 days after it has ended. Not with a
            private cluster, which ends with this process.
        resume: a name under which results are kept on this computer, by the function and the
            content of each input. A script that is run again calls only what has no result there,
            and says how many it took over. Errors are not kept. If the function has changed, which
            a line on stderr says, everything is called. See `burla resume`.
        image: a container image, as "python:3.12-slim", whose files and Python the calls have, with
            your modules and what packages the image lacks. Its Python must be of your version, and
            built on glibc. Not with a private cluster; the nodes need podman or docker, and run
            nothing of the image with more rights than a call has.
        region: where machines are made for this job (see `grow`): a region of their cloud, or a
            zone. Nodes that are there serve it wherever they are. If nobody makes machines for it,
            or who does cannot choose, that is said on stderr.
        disk_gb: GB of disk that those machines have at least, likewise.

    Returns:
        The results in the order of the inputs; with `generator=True` in order of completion, unless
        `ordered`; with `detach=True` the job.

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
        if "burla.calling" not in sys.modules:
            _start_ahead(function_, inputs, detach=detach)
            with HeldInterrupts(), NoCollections():
                from . import calling  # noqa: F401
        from .calling import map_, request_of

        return map_(
            request_of(
                function_,
                inputs,
                func_cpu=func_cpu,
                func_ram=func_ram,
                max_parallelism=max_parallelism,
                generator=generator,
                spinner=spinner,
                unpack=unpack,
                grow=grow,
                env=env,
                files=files,
                ordered=ordered,
                with_index=with_index,
                return_exceptions=return_exceptions,
                raise_errors=raise_errors,
                timeout=timeout,
                retries=retries,
                func_gpu=func_gpu,
                progress=progress,
                packages=packages,
                detach=detach,
                resume=resume,
                image=image,
                region=region,
                disk_gb=disk_gb,
            )
        )
    except BaseException as error:
        hide_own_frames(error)
        raise


def _start_ahead(function: object, inputs: object, *, detach: object) -> None:
    """Start the private cluster of the first call, if it needs one; errors come with the call."""
    is_empty = isinstance(inputs, list | tuple | range) and not inputs
    if detach or is_empty or not callable(function) or not hasattr(type(inputs), "__iter__"):
        return
    with suppress(Exception):
        with HeldInterrupts(), NoCollections():
            from .config import cluster_address
            from .monkey_patches import refuse_green_threads

        refuse_green_threads()
        is_nested = os.environ.get("BURLA_WORKER_PID") == str(os.getpid())
        if not is_nested and cluster_address() is None:
            with HeldInterrupts(), NoCollections():
                from .private_cluster import private_cluster

            private_cluster()
