"""What the public function does: checks its arguments, starts a job, hands its results on.

Apart from its signature, so that to import that costs little (parallel_map.py).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from burla.shell.caller import Driven
from burla.shipping.packages import read_packages
from burla.shipping.shipped_files import find_files

from .arguments import check_arguments, decide_unpack
from .monkey_patches import refuse_green_threads
from .nested import is_nested, list_here, put_here, refuse_image, run_here
from .options import read_image, read_machines, read_options
from .original import Dynamic, plain_limits, warn_of_machines
from .own_frames import hide_own_frames
from .starting import Request, detach as detach_job, start
from .variables import read_env

if TYPE_CHECKING:
    from .detached import Job
    from .parallel_map import Files, Packages

R = TypeVar("R")


def request_of(
    function_: Callable[..., Any],
    inputs: Iterable[Any],
    *,
    func_cpu: int | Dynamic = 1,
    func_ram: float | Dynamic | None = None,
    max_parallelism: int | None = None,
    spinner: bool = True,
    unpack: bool | None = None,
    grow: bool | None = None,
    env: Mapping[str, str | None] | Iterable[str] | None = None,
    files: "Files | None" = None,
    packages: "Packages | None" = None,
    image: str | None = None,
    region: str | None = None,
    disk_gb: int | None = None,
    **of_calls: Any,
) -> Request:
    """Return what is asked for by these arguments of `remote_parallel_map`.

    Raises:
        TypeError: one is of a wrong kind; the text names it.
        ValueError: one has an impossible value.
    """
    machines = read_machines(region, disk_gb)
    options = read_options(**of_calls)
    limits = (*plain_limits(func_cpu, func_ram), max_parallelism)
    chosen, shipped, needed = read_env(env), find_files(files), read_packages(packages)
    check_arguments(function_, inputs, *limits, spinner, unpack, grow)
    shape = decide_unpack(function_, unpack, inputs)
    return Request(
        *(function_, inputs, shape, *limits, spinner, grow, chosen, shipped, options, needed),
        machines=machines,
        image=read_image(image, options.func_gpu),
    )


def hiding_frames(results: Iterator[R]) -> Iterator[R]:
    """Yield results; what is raised shows no frames of ours."""
    try:
        yield from results
    except BaseException as error:
        hide_own_frames(error)
        raise


def _start_resumed(request: Request) -> Driven:
    from burla.resume.resumed import start_resumed  # few calls need it

    return start_resumed(request)


def map_(request: Request) -> "list[Any] | Iterator[Any] | Job":
    """Return the results, or what gives them."""
    inputs, options = request.inputs, request.options
    if options.is_detached:
        return detach_job(request)
    if is_nested():
        warn_of_machines(request.machines)
        refuse_image(request.image)
        put_here(request.shipped)
        here = run_here(request.function, inputs, request.shape, request.chosen, options)
        return hiding_frames(here) if options.generator else list_here(here, options)
    if type(inputs) in (list, tuple, range) and not inputs:
        return iter(()) if options.generator else []
    refuse_green_threads()
    caller = start(request) if options.resume is None else _start_resumed(request)
    if not options.generator:
        return [] if caller is None else caller.collect()
    if caller is None:
        return iter(())
    results: Iterator[Any] = hiding_frames(caller.stream())
    next(results)  # it is begun now, so that closing it ends the job
    return results
