"""What a caller wants of calls that fail and of the order of results: checked, in one place.

Pure: everything here is decided before anything is started or sent.
"""

import operator
import re
from collections.abc import Callable
from numbers import Real
from typing import Any

from msgspec import Struct

from burla.core.progress import Progress
from burla.protocol.image_messages import checked_image
from burla.protocol.messages import NUMBER_MAX, CallPolicy, Machines
from burla.shell.delivery import Delivery
from burla.values.payloads import short_repr

from .errors import CallTimeout, WorkerDied
from .retry import Retry, read_retries

DISK_GB_MAX = 65_536  # of one machine: the largest disk of a cloud
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_CHARS_MAX = 256  # of what results are kept under
SECONDS_MAX = 10 * 366 * 24 * 3600  # ten years: what is longer is a mistake


class Options(Struct, frozen=True):
    """What is wanted of the outcomes of one job."""

    generator: bool = False
    is_ordered: bool = False
    with_index: bool = False
    goes_on: bool = False  # an error is the outcome of its input
    timeout_s: float = 0.0  # that a call may take; 0: as long as it wants
    retry: Retry | None = None
    func_gpu: int = 0  # devices for each call
    progress: Callable[[Progress], object] | None = None  # is told how far the job is
    is_detached: bool = False  # it outlives its caller
    resume: str | None = None  # results are kept under this name, and taken over

    def policy(self) -> CallPolicy | None:
        """Return what the cluster must know of it; None: nothing."""
        policy = CallPolicy(self.goes_on, self.timeout_s, func_gpu=self.func_gpu)
        if (retry := self.retry) is not None:
            policy = CallPolicy(
                self.goes_on,
                self.timeout_s,
                operator.index(retry.times),
                float(retry.backoff_s),
                float(retry.jitter),
                retry.other_node,
                retry.covers(CallTimeout),
                retry.covers(WorkerDied),
                self.func_gpu,
            )
        return None if policy == CallPolicy() else policy

    def delivery(self) -> Delivery:
        """Return how outcomes are handed over."""
        return Delivery(
            self.generator, self.goes_on, self.is_ordered, self.with_index, self.timeout_s
        )


def read_options(
    *,
    generator: object = False,
    ordered: object = False,
    with_index: object = False,
    return_exceptions: object = None,
    raise_errors: object = None,
    timeout: object = None,
    retries: object = None,
    func_gpu: object = 0,
    progress: object = None,
    detach: object = False,
    resume: object = None,
) -> Options:
    """Return what was asked for.

    Raises:
        TypeError: an argument is of a wrong kind; the text names it.
        ValueError: one has an impossible value, or contradicts another.
    """
    if (
        generator is ordered is with_index is detach is False
        and return_exceptions is raise_errors is timeout is retries is progress is resume is None
        and type(func_gpu) is int
        and func_gpu == 0
    ):
        return _USUAL
    for name, value in (
        *(("generator", generator), ("ordered", ordered), ("with_index", with_index)),
        ("detach", detach),
    ):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {short_repr(value)}")
    goes_on = _goes_on(return_exceptions, raise_errors)
    timeout_s = 0.0 if timeout is None else _seconds("timeout", timeout)
    retry = read_retries(retries)
    gpus = _gpus(func_gpu)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, or None, not {short_repr(progress)}")
    if detach and (generator or ordered or with_index or progress is not None):
        raise ValueError(
            "detach=True returns a burla.Job: give generator, ordered and with_index to its"
            " results() instead, and ask its status() how far it is"
        )
    kept_as = None if resume is None else _resume(resume, detach=bool(detach))
    flags = (bool(generator), bool(ordered), bool(with_index))
    return Options(*flags, goes_on, timeout_s, retry, gpus, progress, bool(detach), kept_as)


_USUAL = Options()  # nothing is said


def read_machines(region: object = None, disk_gb: object = None) -> Machines | None:
    """Return what machines that are made for a call are to be like; None: as they are.

    Raises:
        TypeError: an argument is of a wrong kind; the text names it.
        ValueError: one has an impossible value.
    """
    if region is None and disk_gb is None:
        return None
    if region is not None and not isinstance(region, str):
        raise TypeError(f"region must be a name, or None, not {short_repr(region)}")
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError(
            f"region must be the name of a region or zone, as 'us-central1', not"
            f" {short_repr(region)}"
        )
    if disk_gb is not None:
        if isinstance(disk_gb, bool) or not hasattr(type(disk_gb), "__index__"):
            what = "a whole number of GB for each machine, or None"
            raise TypeError(f"disk_gb must be {what}, not {short_repr(disk_gb)}")
        if not 1 <= operator.index(disk_gb) <= DISK_GB_MAX:  # type: ignore[arg-type]  # it has one
            raise ValueError(f"disk_gb must be 1 to {DISK_GB_MAX}, not {short_repr(disk_gb)}")
    size = 0 if disk_gb is None else operator.index(disk_gb)  # type: ignore[arg-type]  # likewise
    return Machines(region or "", size)


def read_image(image: object = None, gpus: int = 0) -> str:
    """Return the image in which calls are to run; empty: in none.

    Raises:
        TypeError: it is of a wrong kind.
        ValueError: it is no name of one, or cannot be had with the other arguments.
    """
    if image is None:
        return ""
    if not isinstance(image, str):
        what = "the name of a container image, as 'python:3.12-slim', or None"
        raise TypeError(f"image must be {what}, not {short_repr(image)}")
    try:
        checked_image(image)
    except ValueError as error:
        raise ValueError(f"image={short_repr(image)}: {error}") from None
    if gpus:
        raise ValueError(
            f"image={image!r} and func_gpu={gpus}: images do not have the driver of a node's GPUs,"
            " so calls in them get none: leave one of the two out"
        )
    return image


def _resume(value: object, *, detach: bool) -> str:
    if not isinstance(value, str):
        raise TypeError(
            f"resume must be a name for the results that are kept, or None, not {short_repr(value)}"
        )
    if not 0 < len(value) <= NAME_CHARS_MAX or not value.isprintable():
        raise ValueError(
            f"resume must be a name of 1 to {NAME_CHARS_MAX} printable characters, not"
            f" {short_repr(value)}"
        )
    if detach:
        raise ValueError(
            "resume= is for a job whose script waits for it: that of detach=True has its results"
            " kept by the cluster, and burla.attach(job.id) finds them again"
        )
    return value


def _gpus(value: Any) -> int:
    is_number = not isinstance(value, bool) and hasattr(value, "__index__")
    count = operator.index(value) if is_number else -1
    if count < 0:
        text = (
            f"func_gpu must be a number of GPUs for each call, 0 or more, not {short_repr(value)}"
        )
        raise ValueError(text) if is_number else TypeError(text)
    return min(count, NUMBER_MAX)


def _seconds(name: str, value: Any) -> float:
    """Return a time that is not 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number:
        raise TypeError(f"{name} must be a number of seconds, or None, not {short_repr(value)}")
    if not 0 < value <= SECONDS_MAX:  # exact for whole numbers of any size
        raise ValueError(
            f"{name} must be more than 0 and at most {SECONDS_MAX:,} seconds, not"
            f" {short_repr(value)}; None: no limit"
        )
    return float(value)


def _goes_on(return_exceptions: object, raise_errors: object) -> bool:
    """Return whether errors are outcomes; the two names say the same, one of them in reverse."""
    for name, value in (("return_exceptions", return_exceptions), ("raise_errors", raise_errors)):
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {short_repr(value)}")
    if raise_errors is None:
        return bool(return_exceptions)
    if return_exceptions is not None and return_exceptions == raise_errors:
        raise ValueError(
            f"return_exceptions={return_exceptions} contradicts raise_errors={raise_errors}: one"
            " is the reverse of the other; give return_exceptions alone"
        )
    return not raise_errors
