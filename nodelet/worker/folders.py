"""Where a worker works: in the caller's directory if that is here, else in a folder of the job.

What a job writes into its folder goes with it. Who writes there by a relative path may not know, so
the caller is told, once, the name of the first file that would be lost.
"""

import errno
import functools
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress

from burla.nodelet.isolation.sandbox import JOB_FOLDER

VARIABLE = "BURLA_JOB_DIR"
SHARED_VARIABLE = "BURLA_SHARED"  # where all nodes have one file system, if they have
OWN_MODULES = "own-modules"  # the directory of the caller's, beside that folder
SETTLED_NS = 20_000_000  # a change of a folder this long ago has another time than the next one
LISTED_MAX = 1000  # names that are looked at: more were told of long ago


class JobFolder:
    """The folder of a job, in which this worker works."""

    def __init__(self, path: str) -> None:
        """Take what is there already as known."""
        self._path = path
        self._changed_ns: int | None = None  # as of the last look; None: look again in any case
        self._known = frozenset(self._names())

    def first_file(self) -> str | None:
        """Return the name of a file that was written since the beginning and is still there.

        Costs a microsecond when nothing has changed.
        """
        try:
            changed_ns = os.stat(self._path).st_mtime_ns
        except OSError:  # the function has removed it
            return None
        if changed_ns == self._changed_ns:
            return None
        names = [name for name in self._names() if name not in self._known]
        is_settled = 0 <= changed_ns < time.time_ns() - SETTLED_NS
        self._changed_ns = changed_ns if is_settled else None
        return min(names, default=None)

    def _names(self) -> list[str]:
        """Return what is in it, but for what tools keep for themselves."""
        with suppress(OSError), os.scandir(self._path) as entries:
            some = (entry.name for _, entry in zip(range(LISTED_MAX), entries, strict=False))
            return [name for name in some if not name.startswith((".", "__pycache__"))]
        return []


def remove(directory: str) -> None:
    """Remove a directory of ours with all that jobs have left in it, whatever its modes say."""
    with suppress(OSError):
        os.chmod(directory, 0o700)
    for parent, names, _ in os.walk(directory):  # which looks into those below afterwards
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


def enter(wanted: bytes | None, folder: str | None) -> JobFolder | None:
    """Go to the caller's directory, or to the job's folder; return the latter if we are there.

    Args:
        wanted: the caller's working directory; None: it has none.
        folder: the job's; None: it has none.
    """
    if wanted is not None and not _is_private(wanted, folder):
        try:
            os.chdir(wanted)
            if not _is_shut(wanted):
                return None
        except OSError:  # not on this machine, or not for us
            pass
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)
            return JobFolder(folder)
    return None


def own_modules_place(variables: Mapping[str, str]) -> str:
    """Return the directory of the lease in which the caller's own modules are put."""
    return os.path.join(os.path.dirname(variables.get(VARIABLE, "")), OWN_MODULES)


def _is_private(wanted: bytes, folder: str | None) -> bool:
    """Return whether a directory of this name is the sandbox's own, and not the caller's."""
    if folder != JOB_FOLDER:
        return False
    try:
        return os.stat(wanted).st_dev == os.stat(folder).st_dev
    except OSError:
        return False


@functools.lru_cache(maxsize=8)  # a loop of maps asks again and again; Landlock is for ever
def _is_shut(directory: bytes) -> bool:
    """Return whether nothing in it can be read though its mode says so: Landlock hides it."""
    try:
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError:
        return os.access(directory, os.R_OK)
    return False


def _is_in_folder() -> bool:
    """Return whether calls work in the folder of their job, as the caller's is not here."""
    try:
        return os.path.samefile(".", os.environ[VARIABLE])
    except (KeyError, OSError):
        return False


def _is_writable() -> bool:
    """Return whether a file could be made here; no such question leaves one."""
    try:
        os.close(os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EACCES)
    return True


def notice(name: str, node: str) -> bytes:
    """Return the line that tells of a file which goes with the job."""
    return (
        f"burla: {name!r} was written on node {node}, where your working directory is not, to a "
        f"folder that is removed with the job (${VARIABLE}): return what you want to keep, or "
        "write it to storage that stays\n"
    ).encode(errors="backslashreplace")


def explain(error: BaseException, node: str) -> None:
    """Add to an error what the user may not know: which files are here, and where to write."""
    name = getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError) and isinstance(name, str):
        if f"/{OWN_MODULES}/" in name:
            error.add_note(
                "burla: with your own modules go what lies in their packages, and small files "
                "beside modules; hand others over by files=, or let the function read them where "
                "they are"
            )
        elif _is_in_folder():
            error.add_note(
                f"burla: there is no {name!r} on node {node}, which has no files of yours but those"
                " that files= names: they lie in the folder that calls work in"
            )
    if not isinstance(error, OSError) or error.errno not in (errno.EROFS, errno.EACCES):
        return
    if isinstance(name, str) and not os.path.isabs(name) and not _is_writable():
        error.add_note(
            f"burla: a job cannot write to your working directory on node {node}: write to the "
            f"folder ${VARIABLE}, which is removed with the job, and return what you want to keep"
        )
