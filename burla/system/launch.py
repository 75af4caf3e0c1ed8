"""How one of our programs starts another one of ours in a fresh Python.

`command` gives the command line; what it runs is this very file, as a script. So the new process
has the same burla as this one, wherever that was found, and nothing that lies beside a user's
script or in the working directory (`random.py`, `msgpack.py`) is taken for a library.
"""

import gc
import os
import signal
import sys

# Where this Python finds modules, and burla, without being told by another.
own_path: list[str] = []


class LaunchError(Exception):
    """There is no Python to start."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that calls `main(arguments)` of `module` in a fresh Python.

    Raises:
        LaunchError: this process does not know which Python it is.
    """
    paths = os.pathsep.join(_search_paths())
    return [_python(), *_options(), os.path.abspath(__file__), module, paths, *arguments]


def _python() -> str:
    """Return the path of this process's Python.

    `sys.executable` is empty if it was started by an empty environment. It is another program where
    Python is embedded, and the program itself where that is frozen: started again, it would run
    from its beginning, call us again, and so on.
    """
    if getattr(sys, "frozen", False):
        raise LaunchError(
            f"this program is frozen ({sys.executable}): there is no Python to start workers with"
        )
    beside = os.path.join(sys.prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    for path in (sys.executable, _running(), beside):
        if path and _is_python(path):
            return path
    raise LaunchError(
        f"this process does not know which Python it is: sys.executable is {sys.executable!r}"
        f" and there is no {beside}"
    )


def _running() -> str:
    try:
        return os.readlink("/proc/self/exe")
    except OSError:
        return ""


def _is_python(path: str) -> bool:
    name = os.path.basename(path).lower()
    return name.startswith(("python", "pypy")) and os.access(path, os.X_OK)


def _options() -> list[str]:
    """Return the options of this Python that change what an import finds or compiles."""
    flags = sys.flags
    options = ["-P"]  # neither the script's directory nor the working directory is searched
    options += ["-E"] * flags.ignore_environment
    options += ["-s"] * flags.no_user_site
    options += ["-S"] * flags.no_site
    options += ["-B"] * sys.dont_write_bytecode
    options += ["-" + "O" * flags.optimize] if flags.optimize else []
    return options


def _search_paths() -> list[str]:
    """Return where this process finds modules, except what every Python of ours searches anyway."""
    common = tuple(os.path.join(prefix, "") for prefix in {sys.prefix, sys.base_prefix})
    return [
        os.path.abspath(path)
        for path in sys.path
        if isinstance(path, str) and path and not os.path.join(path, "").startswith(common)
    ]


def _accept_signals() -> None:
    """Undo what the starting process blocked or ignored; SIGHUP may be ignored on purpose."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    keep = {signal.SIGHUP, signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)}
    for number in signal.valid_signals() - keep:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _run(module: str, paths: str, arguments: list[str]) -> None:
    """Load burla from where this file lies, then call `main` of `module`."""
    import importlib.util  # not for those who only start others

    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    own_path[:] = [*sys.path, os.path.dirname(home)]
    sys.path += [path for path in paths.split(os.pathsep) if path and path not in sys.path]
    spec = importlib.util.spec_from_file_location(
        "burla", os.path.join(home, "__init__.py"), submodule_search_locations=[home]
    )
    assert spec is not None, home
    assert spec.loader is not None, home
    sys.modules["burla"] = package = importlib.util.module_from_spec(spec)
    gc.disable()  # nothing of what is imported is ever garbage
    spec.loader.exec_module(package)
    main = importlib.import_module(module).main
    gc.freeze()
    gc.enable()
    sys.argv[0] = module
    sys.exit(main(arguments))


if __name__ == "__main__":
    _accept_signals()
    _run(sys.argv[1], sys.argv[2], sys.argv[3:])
