"""The file system of a sandbox that runs in a container image.

Its init stays in the sandbox as it is (sandbox.py), with the Python of the node, and mounts the
image where its own /tmp is. Workers change their root to that, then lose all privileges, and then
become the image's Python: nothing of the image ever runs with a privilege, and whoever found a way
out of that root would be in a sandbox like any other.

Names are followed within the image only: what it has instead of a directory leads nowhere else.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from . import linux
from .sandbox import JOB_FOLDER, PRIVATE, Confinement, bind, confine

FILES, FACTS = "root", "image.json"  # of an image: the directory with its files; what it says
FOLDER = "/.burla"  # of the image: what is ours in it
LIBRARY = f"{FOLDER}/lib"  # where workers import burla from, and what it needs
ROOT = "/tmp"  # where the image is mounted, as the init sees it
_OF_THE_NODE = ("/sys", "/dev")  # as the sandbox shows them
_NAMES = ("/etc/resolv.conf", "/etc/hosts")  # of hosts, as the node has them
ERROR_BYTES_MAX = 4096


class ImageError(OSError):
    """The image cannot be shown, or its Python not be used; the text says why."""


class Root:
    """The files of an image, as the root of the workers of one sandbox."""

    def __init__(
        self,
        directory: str,
        library: Sequence[str],
        shown: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        """Be the init, before `sandbox.furnish`.

        Args:
            directory: with the files of the image, which nobody else can write to.
            library: packages of the node's Python that workers import.
            shown: directories of the node that workers see under the same names.
            variables: the environment that programs of the image have.

        Raises:
            ImageError: something of it cannot be shown.
        """
        self._variables = variables
        self._library = list(_in_library(library))
        self._shown = [path for path in shown if os.path.isdir(path)]
        names = [path for path in _NAMES if os.path.isfile(path)]
        self._files = [(os.path.realpath(path), path) for path in names]
        self._private = [os.path.realpath(path) for path in PRIVATE if os.path.isdir(path)]
        os.umask(0o022)
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _in_child(self._make_mount_points)

    def mount(self) -> None:
        """Show it, in the init, after `sandbox.furnish`: read-only, as all is that was there.

        Raises:
            ImageError: something of it cannot be shown.
        """
        flags = os.O_PATH | os.O_CLOEXEC
        node = [(path, os.open(path, flags)) for path in _OF_THE_NODE]
        private = [(path, os.open(path, flags)) for path in self._private if path != "/dev/shm"]
        wanted = [*((path, path) for path in self._shown), *self._library, *self._files]
        shown = [(target, os.open(path, flags)) for path, target in wanted]
        linux.mount(f"/proc/self/fd/{self._fd}", ROOT, "", linux.MS_BIND | linux.MS_REC)
        os.close(self._fd)

        def show() -> None:
            os.chroot(ROOT)
            os.chdir("/")
            # the first, since what is mounted by its descriptor has a name in it
            linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)
            for target, fd in node:
                bind(target, fd)
            for target, fd in private:  # without what is mounted there now: that is the image
                linux.mount(f"/proc/self/fd/{fd}", target, "", linux.MS_BIND)
            for target, fd in shown:  # perhaps in a private one
                bind(target, fd)

        _in_child(show)
        for _, fd in (*node, *private, *shown):
            os.close(fd)

    def confine(self, confinement: Confinement, uid: int, gid: int) -> None:
        """Take everything from this process, a worker to be, that is not the lease's."""
        os.chroot(ROOT)
        os.chdir(JOB_FOLDER)
        os.environ.clear()
        os.environ.update(self._variables)
        confine(confinement, uid, gid)

    def share(self, directory: str) -> None:
        """Let workers write to one of the directories that are shown, if the init may."""
        if directory in self._shown:
            with suppress(OSError):

                def show() -> None:
                    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
                    os.chroot(ROOT)
                    bind(directory, fd)

                _in_child(show)

    def _make_mount_points(self) -> None:
        """Make what is mounted on, in the image itself: nothing else can be reached from there."""
        os.fchdir(self._fd)
        os.chroot(".")
        _be_directory(FOLDER)
        _be_directory("/proc")
        paths = [*_OF_THE_NODE, *self._shown, *self._private, "/tmp"]
        for path in paths:
            os.makedirs(path, 0o755, exist_ok=True)
        for _, target in self._library:
            os.makedirs(target, 0o755, exist_ok=True)
        for _, target in self._files:
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            if os.path.islink(target) and not os.path.exists(target):
                os.unlink(target)  # it leads to what is made when a container starts
            if not os.path.exists(target):
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _be_directory(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o755)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise ImageError(f"it has a {path} that is no directory")


def _in_library(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield directories of the node, and where they are in the image."""
    for package in packages:
        target = os.path.join(LIBRARY, os.path.basename(package))
        yield os.path.realpath(package), target
        for name in os.listdir(package):  # a bare checkout of ours has links to what lies beside it
            path = os.path.join(package, name)
            if os.path.islink(path) and os.path.isdir(path):
                place = os.path.normpath(os.path.join(target, os.readlink(path)))
                if place.startswith(LIBRARY):
                    yield os.path.realpath(path), place


def _in_child(work: Callable[[], None]) -> None:
    """Do something in a child of this process.

    Raises:
        ImageError: it failed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except Exception as error:
            os.write(writer, str(error).encode()[:ERROR_BYTES_MAX] or b"?")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        why = file.read().decode()
    os.waitpid(pid, 0)
    if why:
        raise ImageError(f"its files cannot be shown: {why}")
