"""How a job begins: function and first inputs are made ready, the cluster is found, all is sent."""

import functools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from burla.core.adopting import Adopting
from burla.core.batches import Window
from burla.core.commands import Reopen
from burla.core.effects import Lacking
from burla.core.read_ahead import GROW_AHEAD_S, InOrder, ReadAhead
from burla.core.session import Session
from burla.limits import GB
from burla.protocol import messages as m
from burla.protocol.detach_messages import TRIES_MAX, id_of
from burla.protocol.digest import digest_of
from burla.protocol.mac import has_blake3
from burla.shell.attached import Attached
from burla.shell.caller import Caller
from burla.shell.clients import client_for, close_idle
from burla.shell.io_thread import IoThread
from burla.shell.job import Job
from burla.shipping.attachments import NO_ATTACHMENTS, Attachments, attach
from burla.shipping.carried_packages import attach_packages, warning_of
from burla.shipping.modules import found_modules, new_sent, packed_environment
from burla.shipping.own_modules import Found
from burla.shipping.packages import (
    NOTHING,
    Needs,
    Wanted,
    as_lacking,
    packages_needed,
    packages_of_settings,
    remember_lacking,
)
from burla.shipping.shipped_files import Shipped, dump_files
from burla.system.hash_seed import own_seed
from burla.transport.addresses import take_apart
from burla.values.calls import Guarded
from burla.values.free_files import FreeFiles
from burla.values.held_parts import HeldFunction
from burla.values.parts import FunctionPieces
from burla.values.payloads import (
    Batch,
    cut_batches,
    hold_function,
    is_lazy,
    take_apart_function,
)
from burla.values.pickling import Sent
from burla.values.rooms import rooms
from burla.values.sharing import SharedInputs, directory_of, parts_in

from .arguments import Shape, name_of
from .config import cluster_address, may_grow, reconnect_timeout_s
from .errors import BurlaError, JobDetached, JobFailed
from .monkey_patches import refuse_green_threads
from .nested import is_nested
from .options import Options
from .original import warn_of_machines
from .own_frames import warn_caller
from .private_cluster import LocalCluster, is_current, private_cluster
from .surroundings import TOKEN, packed_surroundings
from .variables import Chosen

if TYPE_CHECKING:
    from burla.shell.handing_over import Stored

    from .detached import Job as DetachedJob

KINDS = {False: m.BlobKind.PART, True: m.BlobKind.BYTES_PART}  # of a part: was it a `bytes`?
NO_NODES = (
    "image={!r}: no cluster is set (BURLA_CLUSTER, `burla login`), and calls of a private cluster"
    " run in no image: `burla up --local` makes a cluster of this machine, whose nodes run images"
    " if podman or docker is here; or leave image out"
)
ANSWER_S = 8.0  # how long a configured cluster may take to say its first word
ANSWER_PRIVATE_S = 60.0  # its daemons start on a busy machine; that they died is known at once


class Request(Struct, frozen=True):
    """What a caller asks for, checked."""

    function: Callable[..., Any]
    inputs: Iterable[Any]
    shape: Shape
    func_cpu: int
    func_ram: float | None
    max_parallelism: int | None
    spinner: bool
    grow: bool | None
    chosen: Chosen  # environment variables
    shipped: Sequence[Shipped]
    options: Options
    packages: Wanted | None = None  # None: as the settings say
    names: frozenset[str] = frozenset()  # of modules that the calls refer to, beside the function
    machines: m.Machines | None = None  # what those that are made for it are to be like
    image: str = ""  # in which the calls run; empty: in none


class _Cluster(Struct, frozen=True):
    """The cluster that a job goes to, connected."""

    connect: Callable[[], IoThread]  # again
    thread: IoThread
    address: str | None  # None: it is the private one
    memory: str | None = None  # where files in memory are shared with it
    free_files: FreeFiles | None = None  # of what jobs leave each other there

    def secret(self, job: bytes, *, is_kept: bool) -> bytes:
        """Return one for a new job; empty where nobody else can listen.

        That of a detached job is known to whoever has its user's key, by the id of the job.
        """
        if self.address is not None and is_kept:
            from .detached import secret_of

            return secret_of(self.address, job)
        if self.address is None or take_apart(self.address).key is None:
            return b""
        return os.urandom(m.SECRET_BYTES_MAX)


def start(request: Request) -> Caller | None:
    """Return the job, open and with its first inputs; None, and nothing is started, without any."""
    inputs, options = request.inputs, request.options
    sent = new_sent()
    pieces = function_of(request, sent)
    is_kept = options.is_detached
    ahead = ReadAhead() if is_lazy(inputs) and not is_kept else None
    if is_lazy(inputs):  # what makes the inputs may change what the function refers to
        pieces.copy()
    window = Window(ahead, InOrder() if options.generator and options.is_ordered else None)
    is_windowed = ahead is not None or window.in_order is not None
    batches = cut_batches(
        inputs, sent, request.shape.check, room=window.room if is_windowed else None
    )
    first = next(batches, None)
    if first is None and not is_kept:
        return None
    begun = begin(request, sent, pieces, is_lazy=is_windowed)
    if ahead is not None and begun.may_grow:
        ahead.ahead_s = GROW_AHEAD_S
    parts = _then([] if first is None else [first], batches)
    delivery = options.delivery()
    if not is_kept:
        begun.job.detacher = begun.detacher
    return Caller(
        *(begun.job, begun.connect, inputs, parts, begun.limits),
        *(begun.shared, window, begun.held, delivery),
    )


def _then(first: list[Batch], rest: Iterator[Batch]) -> Iterator[Batch]:
    """Yield what is in `first`, and then the rest; hold nothing of what was yielded."""
    while first:
        yield first.pop()
    yield from rest


class Begun(Struct, frozen=True):
    """A job that is ready to be opened, without inputs."""

    job: Job
    connect: Callable[[], IoThread]
    limits: dict[str, object]  # arguments of the call by name, for errors
    shared: SharedInputs
    held: HeldFunction  # to be released with the job
    detacher: Callable[[Attached], BurlaError | None]
    may_grow: bool
    parts: str | None  # where parts of functions lie that its workers can map, too


def begin(request: Request, sent: Sent, pieces: FunctionPieces, *, is_lazy: bool) -> Begun:
    """Return the job of this function.

    Args:
        request: what is wanted.
        sent: what goes with the function.
        pieces: of the function as it is now.
        is_lazy: how many inputs are handed in depends on how many calls may run at once.
    """
    if request.image and cluster_address() is None:
        raise ValueError(NO_NODES.format(request.image))
    cluster = _cluster()
    spec = _specify(request, cluster, is_lazy=is_lazy)
    travels = cluster.address is not None
    found = found_modules(request.function, request.inputs, sent) if travels else None
    attached = _attachments(request, found)
    memory = cluster.memory
    place = None if memory is None else parts_in(memory)
    held = hold_function(request.function, pieces, place)
    try:
        needs = NOTHING if found is None else _needs_of(request, cluster, held, found)
        luggage = Luggage(request, cluster, spec, held, attached, needs)
        session = luggage.session()
        told = request.options.progress
        job = Job(session, cluster.thread, spec.name, request.spinner, TOKEN, told)
        directory = None if memory is None else directory_of(memory, spec.job.hex())
        shared = SharedInputs(directory, cluster.free_files, _cpus())
        job.remedy = luggage.add
        more = luggage.detach, spec.grow, place
        return Begun(job, cluster.connect, _limits(spec), shared, held, *more)
    except BaseException:
        held.release()
        raise


@functools.cache
def _cpus() -> int:
    """Return how many there are, which takes 14 us to find out."""
    return os.cpu_count() or 1


def detach(request: Request) -> "DetachedJob":
    """Return a job that is on the disk of the scheduler, with all of its inputs.

    Raises:
        RuntimeError: this is a worker, which has no key.
        BadSetting: no cluster is configured.
    """
    if is_nested():
        raise RuntimeError("detach=True cannot be used inside a call: a worker has no cluster")
    refuse_green_threads()
    from . import detached  # few calls need it

    address = detached.address_for_detached()
    caller = start(request)
    assert caller is not None
    caller.hand_over()
    return detached.Job(caller.job.id.hex(), address, name_of(request.function)[:256])


def function_of(request: Request, sent: Sent) -> FunctionPieces:
    """Return the function of a request as it is now, taken apart."""
    function, inputs, retry = request.function, request.inputs, request.options.retry
    sample = inputs if isinstance(inputs, list | tuple) else ()
    sent_as = function if retry is None else Guarded(function, retry.kinds)
    name = None if retry is None else name_of(function)
    return take_apart_function(sent_as, sample=sample, sent=sent, name=name)


def _specify(request: Request, cluster: _Cluster, *, is_lazy: bool) -> m.OpenJob:
    """Return the job as far as it is known before its function is."""
    ram, most = request.func_ram, request.max_parallelism
    job, is_kept = os.urandom(16), request.options.is_detached
    grow = cluster.address is not None and may_grow(request.grow)  # this machine cannot
    if not grow:
        warn_of_machines(request.machines)
    secret = cluster.secret(job, is_kept=is_kept)
    return m.OpenJob(
        job=job,
        topic=os.urandom(16),
        name=name_of(request.function)[:256],
        func_cpu=min(m.NUMBER_MAX, operator.index(request.func_cpu)),
        func_ram=None if ram is None else max(1, int(min(m.NUMBER_MAX, ram * GB))),
        max_parallelism=None if most is None else min(m.NUMBER_MAX, operator.index(most)),
        unpack=request.shape.unpack,
        environment=b"",
        secret=secret,
        grow=grow,
        lazy=is_lazy,
        hash_seed=own_seed(),
        fragments=True,
        blake3=bool(secret) and not is_kept and has_blake3(),  # any version may read what is kept
        policy=request.options.policy(),
        detached=TOKEN if is_kept else None,
        machines=request.machines if grow else None,
        image=request.image,
    )


def _limits(spec: m.OpenJob) -> dict[str, object]:
    """Return the limits of the job by the names of their arguments."""
    return {
        "func_cpu": spec.func_cpu,
        "func_ram": None if spec.func_ram is None else spec.func_ram / GB,
        "max_parallelism": spec.max_parallelism,
        "func_gpu": 0 if spec.policy is None else spec.policy.func_gpu,
    }


class Luggage(Struct):
    """All that goes with the inputs of a job."""

    request: Request
    cluster: _Cluster
    plain: m.OpenJob  # without any of it
    held: HeldFunction
    attached: Attachments  # own modules and files
    needs: Needs  # packages
    tried: int = 0  # how often it was to be detached

    def session(self) -> Session:
        """Return the job, which is not open yet."""
        options = self.request.options
        # those that wait for earlier ones are bounded by the window of inputs, not by their own
        prompt = not options.generator or options.is_ordered
        spec, contents = self._packed()
        return Session(spec, self.held.frames, prompt, rooms.make, contents)

    def add(self, lacking: Lacking) -> Reopen | None:
        """Pack files of what a node lacks; None: there are none."""
        needs = self.needs.without(lacking.packages)
        if needs is None:
            return None
        if warning := warning_of(needs.carried):
            warn_caller(warning)
        self.needs = needs
        spec, contents = self._packed()
        names = frozenset(one.name for one in needs.carried)
        remember_lacking(self.cluster.address or "", lacking.packages)
        return Reopen(spec.job, spec, contents, names)

    def detach(self, attached: Attached) -> BurlaError | None:
        """Detach the job while it runs: see `hand_over`."""
        from burla.shell.handing_over import hand_over  # few calls need it

        return hand_over(attached, self._stored)

    def _stored(self) -> "Stored":
        """Return the stored job that this one becomes.

        Raises:
            BurlaError: it cannot.
        """
        from burla.shell.handing_over import Stored

        from . import detached

        address = self.cluster.address
        if address is None:
            raise JobFailed("a private cluster ends with this process")
        tried, self.tried = self.tried, self.tried + 1
        job = id_of(self.plain.job, tried) if tried < TRIES_MAX else os.urandom(16)
        secret = self.cluster.secret(job, is_kept=True)
        plain, contents = self._packed()
        spec = msgspec.structs.replace(
            plain,
            job=job,
            topic=os.urandom(16),
            lazy=False,
            secret=secret,
            detached=TOKEN,
            adopted=True,
            blake3=False,
        )
        session = Adopting(spec, self.held.frames, contents, rooms.make)
        made = Job(session, self.cluster.thread, spec.name, spinner=False, token=TOKEN)
        return Stored(
            made, secret, lambda: JobDetached(detached.Job(job.hex(), address, spec.name))
        )

    def _packed(self) -> tuple[m.OpenJob, dict[bytes, memoryview]]:
        """Return the job, and the content of its blobs by digest."""
        is_private = self.cluster.address is None
        attached, carried = self.attached, self.needs.carried
        if carried:
            attached = attached.joined_with(attach_packages(carried))
        environment = packed_environment(
            self.cluster.memory,
            travels=not is_private,
            attached=attached.inline,
            surroundings=packed_surroundings(self.request.chosen, private=is_private),
        )
        own_files = bool(self.request.shipped)  # each job has its own
        spec = msgspec.structs.replace(
            self.plain,
            environment=environment,
            digest=b"" if own_files else _digest_of(self.held, attached),
            blobs=(*_blobs_of(self.held), *attached.blobs),
            packages=self.needs.packed,
        )
        contents = {part.digest: memoryview(part.content) for part, _ in self.held.parts}
        for blob, data in zip(attached.blobs, attached.contents, strict=True):
            contents[blob.digest] = memoryview(data)
        return spec, contents


def _needs_of(request: Request, cluster: _Cluster, held: HeldFunction, found: Found) -> Needs:
    wanted = packages_of_settings() if request.packages is None else request.packages
    pickles = [*held.frames, *(part.content for part, is_bytes in held.parts if not is_bytes)]
    roots = found.roots | request.names
    needs = packages_needed(wanted, roots, found.imported, pickles, request.inputs)
    if request.image and not wanted.mode:  # not what is in the image, if that differs
        needs = needs.as_named()
    return as_lacking(cluster.address or "", needs)


def _attachments(request: Request, found: Found | None) -> Attachments:
    own = None if found is None else found.travels
    if own is not None and own.warning:
        warn_caller(own.warning)
    attached = NO_ATTACHMENTS if own is None else own.attached
    return (
        attached.joined_with(attach(dump_files(request.shipped))) if request.shipped else attached
    )


def _blobs_of(held: HeldFunction) -> list[m.Blob]:
    return [m.Blob(part.digest, part.size, KINDS[is_bytes]) for part, is_bytes in held.parts]


def _digest_of(held: HeldFunction, attached: Attachments) -> bytes:
    if not held.parts and not attached.blobs:  # as nearly always
        return digest_of(held.frames)
    digests = [part.digest for part, _ in held.parts]
    return digest_of([*held.frames, *digests, *(blob.digest for blob in attached.blobs)])


# --- the cluster ---


def _cluster() -> _Cluster:
    """Return the configured cluster, else the private one, which is started with the first call."""
    address = cluster_address()
    if address is None:
        private = private_cluster()
        thread = _connect_to(private)
        return _Cluster(_connect_private, thread, None, private.memory, private.free_files)
    connect = functools.partial(client_for, address, None, ANSWER_S, reconnect_timeout_s())
    return _Cluster(connect, connect(), address)


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
