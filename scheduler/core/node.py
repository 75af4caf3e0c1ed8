"""A node: whether it is there, is silent, may be leased; and which leases are on it. Pure data."""

from msgspec import Struct, field

from burla.protocol.blob_messages import BLOBS
from burla.protocol.fields import FOLLOWS, POLICIES
from burla.protocol.image_messages import IMAGES
from burla.protocol.input_messages import INPUTS
from burla.protocol.key_messages import KEYS
from burla.protocol.messages import BLOBS_SHARE, BlobKind, NodeHello, NodeState, NodeStatus
from burla.protocol.package_messages import PACKAGES

from .job import Job
from .lease import Lease

SILENCE_S = 15.0  # a node not heard from for this long is lost; 15 beats
SANDBOXED = ("uid", "namespaces")  # tiers in which calls can have a file system of their own
UNREACHABLE_S = 0.75  # a broken connection is made again within 100 ms, unless the nodelet is gone


class Joined(Struct, frozen=True):
    """The first Hello of a life of a node."""

    version: str = ""  # of its burla
    at_s: float = 0.0


class Node(Struct):
    """What the scheduler believes about one life of one machine's nodelet."""

    id: bytes
    peer: bytes
    name: str
    python: str  # minor version, "3.11"
    cpus: int
    ram: int  # bytes
    heard_s: float
    isolation: str = "process"  # its tier, for people
    unreachable_s: float | None = None  # since when its connection is known to be broken
    leaving: bool = False  # it is to end: it gets no lease any more, and gives back the one it has
    retiring: bool = False  # its machine is about to be deleted if it is idle
    idle_since_s: float = 0.0  # when it became free, if it is
    lease: Lease | None = None  # the one that serves its job
    warm: Lease | None = None  # the node is free all the same
    stopping: dict[bytes, Lease] = field(default_factory=dict)
    orphans: dict[bytes, Lease] = field(default_factory=dict)
    untold: dict[bytes, Lease] = field(default_factory=dict)  # its nodelet may forget these
    user: str = ""  # public key of its nodelet; empty where there are no keys
    knows_keys: bool = False  # it can be told to get another one
    heir: str = ""  # that one, until it has said Hello under it
    back_by_s: float = 0.0  # until then it may be connecting anew for that
    asker: bytes = b""  # who is told when it has
    features: tuple[str, ...] = ()  # what of the protocol it knows besides
    gpus: tuple[str, ...] = ()  # the model of each
    joined: Joined = field(default_factory=Joined)

    @classmethod
    def from_hello(cls, peer: bytes, hello: NodeHello, now_s: float) -> "Node":
        """Return the node that said `hello`."""
        offer = (hello.name, hello.python, hello.cpus, hello.ram)
        node = cls(hello.node, peer, *offer, now_s, hello.isolation, idle_since_s=now_s)
        node.knows_keys = KEYS in hello.features
        node.features = hello.features
        node.gpus = hello.gpus
        node.joined = Joined(hello.version, now_s)
        return node

    @property
    def takes_blobs(self) -> bool:
        """Whether it asks for what is big in a function."""
        return BLOBS in self.features

    @property
    def asks_for_inputs(self) -> bool:
        """Whether it asks for inputs that are big."""
        return INPUTS in self.features

    @property
    def has_policies(self) -> bool:
        """Whether it knows what jobs want of calls that fail."""
        return POLICIES in self.features

    @property
    def takes_followers(self) -> bool:
        """Whether it lets a lease begin where that of the same session before it ended."""
        return FOLLOWS in self.features

    @property
    def has_packages(self) -> bool:
        """Whether it installs what a function needs."""
        return PACKAGES in self.features

    @property
    def runs_images(self) -> bool:
        """Whether it can run calls in the image of a container."""
        return IMAGES in self.features

    def is_free(self) -> bool:
        """Return whether it may be leased: every process of earlier leases is proven gone."""
        is_wanted = not self.leaving and not self.retiring
        return self.is_vacant() and self.unreachable_s is None and is_wanted

    def is_vacant(self) -> bool:
        """Return whether every process of earlier leases is proven gone."""
        return self.lease is None and not self.stopping and not self.orphans

    def status(self, job: str, now_s: float) -> NodeStatus:
        """Return how it is, for people; `job`: what it does, if the asker may know."""
        if self.unreachable_s is not None:
            state = NodeState.LOST
        elif self.leaving or self.retiring:
            state = NodeState.LEAVING
        else:
            state = NodeState.FREE if self.is_free() else NodeState.LEASED
        idle_s = max(0.0, now_s - self.idle_since_s) if self.is_vacant() else 0.0
        offer = (self.cpus, self.ram, self.python)
        return NodeStatus(*(self.name, self.isolation, *offer, state, job, idle_s), gpus=self.gpus)

    def is_lost(self, now_s: float) -> bool:
        """Return whether it must be given up."""
        if now_s < self.back_by_s:
            return False
        broken = self.unreachable_s is not None and now_s - self.unreachable_s >= UNREACHABLE_S
        return broken or now_s - self.heard_s >= SILENCE_S

    def has_workers_for(self, job: Job) -> bool:
        """Return whether workers of a job like this one are still there."""
        return self.warm is not None and self.warm.reuse_key == job.reuse_key()

    def slots(self, job: Job) -> int:
        """Return how many calls of `job` it can run at once; 0: the job does not fit."""
        if self.python != job.python or self._is_too_old(job) or self.id in job.work.unfit:
            return 0
        if job.spec.image and not self.runs_images:
            return 0
        if job.spec.blobs and (self._lacks_room(job) or (job.lacks and not self.takes_blobs)):
            return 0
        slots = self.cpus // job.spec.func_cpu
        if job.spec.func_ram is not None:
            slots = min(slots, self.ram // job.spec.func_ram)
        if job.func_gpu:
            slots = min(slots, len(self.gpus) // job.func_gpu)
        return slots

    def misfit(self, job: Job) -> tuple[str, str]:
        """Return the argument that keeps `job` off this node (empty: none) and why."""
        gigabyte = 1 << 30
        if self.python != job.python:
            return "python", f"{self.name} runs Python {self.python}, you run {job.python}"
        if self._is_too_old(job):
            return "policy", f"{self.name} runs an older burla"
        if self.cpus < job.spec.func_cpu:
            return "func_cpu", f"{self.name} has {self.cpus} CPUs"
        if job.spec.func_ram is not None and self.ram < job.spec.func_ram:
            return "func_ram", f"{self.name} has {self.ram / gigabyte:.4g} GB"
        if len(self.gpus) < job.func_gpu:
            return "func_gpu", f"{self.name} has {_gpus(len(self.gpus))}"
        if job.spec.image and not self.runs_images:
            return "image", f"{self.name} runs none: {self._why_no_image()}"
        if (why := job.work.unfit.get(self.id)) is not None:
            return "", f"{self.name} cannot serve it: {why}"
        return "", self._lacks_room(job) if job.spec.blobs else ""

    def _why_no_image(self) -> str:
        if self.isolation not in SANDBOXED:
            return f"its isolation is {self.isolation}, and images need {' or '.join(SANDBOXED)}"
        return "its nodelet found no podman or docker that works (its log says why)"

    def _lacks_room(self, job: Job) -> str:
        """Return why it cannot have what the function of a job refers to; empty: it can."""
        size, room = sum([blob.size for blob in job.spec.blobs]), self.ram // BLOBS_SHARE
        if self.takes_blobs and size > room:
            what = f"{size / 1e9:.2f} GB that the function refers to"
            return f"{self.name} has room for {room / 1e9:.2f} GB of the {what}"
        if not self.takes_blobs and any(blob.kind is BlobKind.NAMED for blob in job.spec.blobs):
            return f"{self.name} runs a burla that does not take files of a job"
        return ""

    def _is_too_old(self, job: Job) -> bool:
        return job.spec.policy is not None and not self.has_policies


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count or 'no'} GPUs"
