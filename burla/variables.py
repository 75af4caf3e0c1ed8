"""Which environment variables a call takes along, and the argument `env`.

Calls of a private cluster have all that `os.environ` has. On other machines most of it would be
wrong or is nobody's business: what goes there is what this process has changed since it started,
and what the call names. No text of ours has a value in it, since many are secrets.
"""

import os
import re
from collections.abc import Iterable, Mapping

from burla.values.surroundings import Variables, environ_bytes

Chosen = dict[bytes, bytes | None]  # None: not to be set

# Each machine has its own, without which a worker or what it starts would not run.
_OF_THE_MACHINE = re.compile(rb"HOME|PATH|LD_.*|DYLD_.*|PYTHON.*|BURLA_.*")
# What was changed here says something of this machine, session, terminal or program alone.
_OF_THIS_PROCESS = re.compile(
    rb"USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|_|HOSTNAME|MAIL|TMPDIR|TEMP|TMP"
    rb"|(XDG|DBUS|SSH|GPG|SUDO|SYSTEMD|INVOCATION|JOURNAL|WINDOW|ITERM|VSCODE|JPY|PYTEST|COV)_?.*"
    rb"|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|TERM.*|COLORTERM|CLICOLOR.*|FORCE_COLOR|NO_COLOR"
    rb"|COLUMNS|LINES|PAGER|GIT_PAGER|LESS.*|EDITOR|VISUAL|BROWSER|PS1|MPLBACKEND"
    rb"|VIRTUAL_ENV.*|CONDA_.*|_CE_.*"
    rb"|CUDA_VISIBLE_DEVICES|NVIDIA_.*|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES"
    rb"|(OMP|OPENBLAS|MKL|NUMEXPR|NUMBA)_NUM_THREADS"
    rb"|(SLURM|PMI|PMIX|OMPI|PBS|SGE|LSB|KUBERNETES)_.*"
)


def read_env(env: object) -> Chosen:
    """Return what the argument `env` says, by name.

    Args:
        env: names and texts, or names of variables that are set here; None: nothing.

    Raises:
        TypeError: it is something else. The text has no value in it.
        ValueError: a name or value is impossible, or the variable may not be set or is not there.
    """
    if env is None:
        return {}
    if isinstance(env, Mapping):
        return {_name(name): _value(name, value) for name, value in env.items()}
    if isinstance(env, str):
        return _named([env])
    if isinstance(env, Iterable) and not isinstance(env, bytes | bytearray):
        return _named(env)
    raise TypeError(
        "env must be a mapping of names to texts, or names of variables of os.environ, not of type"
        f" {type(env).__name__}"
    )


def _named(names: Iterable[object]) -> Chosen:
    here = environ_bytes()
    chosen: Chosen = {}
    for name in names:
        key = _name(name)
        if key not in here:
            raise ValueError(f"env names {name!r}, but os.environ has no such variable")
        chosen[key] = here[key]
    return chosen


def _name(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"env: names of variables must be text, not {type(name).__name__}")
    shown = re.split("[=\0]", name)[0]  # what follows may be secret
    if not name or "=" in name or "\0" in name:
        why = "is empty" if not name else "has a '=' in it" if "=" in name else "has a NUL in it"
        hint = "; to set a variable, pass a mapping: env={name: value}" if "=" in name else ""
        raise ValueError(f"env: the name of a variable {why}: {shown!r}{hint}")
    try:
        key = os.fsencode(name)
    except UnicodeEncodeError:
        raise ValueError(f"env: {name!r} cannot be the name of a variable") from None
    if _OF_THE_MACHINE.fullmatch(key):
        raise ValueError(
            f"env cannot set {name}: workers and what they start need that of their machine (this"
            " holds for HOME, PATH, LD_*, DYLD_*, PYTHON* and BURLA_*);"
            " set it in the function, or for the subprocess"
        )
    return key


def _value(name: str, value: object) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"env[{name!r}] must be text or None, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"env[{name!r}] has a NUL in it, which no variable can hold")
    try:
        return os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"env[{name!r}] has characters that no variable can hold") from None


# --- what goes along ---


def variables(chosen: Chosen, *, private: bool) -> Variables:
    """Return the variables of a call as they stand now.

    Args:
        chosen: what the call says.
        private: its workers are on this machine, started by this process.
    """
    here = environ_bytes()
    if private:
        values = dict(here)
        unset: list[bytes] = []
    else:
        started = _started()
        changed = {name for name, value in here.items() if started.get(name) != value}
        gone = started.keys() - here.keys()
        values = {name: here[name] for name in sorted(changed) if _may_travel(name)}
        unset = [name for name in sorted(gone) if _may_travel(name)]
    for name, value in chosen.items():
        if value is None:
            values.pop(name, None)
            unset.append(name)
        else:
            values[name] = value
            unset = [one for one in unset if one != name]
    return Variables(private, values, unset)


def _may_travel(name: bytes) -> bool:
    return not _OF_THE_MACHINE.fullmatch(name) and not _OF_THIS_PROCESS.fullmatch(name)


_at_import = dict(environ_bytes())
_at_start: dict[bytes, bytes] | None = None


def _started() -> dict[bytes, bytes]:
    """Return the variables that this process was started with.

    What a script or notebook sets before it imports us counts as changed, too.
    """
    global _at_start
    if _at_start is None:
        _at_start = _read_started()
    return _at_start


def _read_started() -> dict[bytes, bytes]:
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")[:-1]
    except OSError:  # not Linux
        return _at_import
    if not all(b"=" in entry for entry in entries):
        return _at_import  # the program has written its title there
    pairs = (entry.partition(b"=") for entry in reversed(entries))  # of several the first counts
    return {name: value for name, _, value in pairs}
