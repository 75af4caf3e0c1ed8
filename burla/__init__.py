"""Run a Python function on every input, on many computers at once, as if it ran here.

    from burla import remote_parallel_map
    results = remote_parallel_map(my_function, my_inputs)

Names are loaded on first use: the daemons import parts of this package and need none of them.
"""

from typing import TYPE_CHECKING, Any

from burla.protocol import VERSION as __version__

if TYPE_CHECKING:
    from burla.core.progress import Progress
    from burla.interfaces.aio import amap
    from burla.interfaces.executor import Executor
    from burla.interfaces.joblib_backend import register_joblib
    from burla.interfaces.pool import Pool
    from burla.values.calls import call

    from .detached import Job, JobStatus, attach
    from .errors import (
        BadSetting,
        BurlaError,
        CallerAway,
        CallFailed,
        CallTimeout,
        ClusterError,
        ClusterLost,
        ClusterRestarted,
        ClusterShutdown,
        ClusterUnreachable,
        FunctionExited,
        InputNotLoadable,
        InputTooBig,
        InputTooLarge,
        JobDetached,
        JobFailed,
        JobNotFound,
        MainServiceTimeout,
        NoCompatibleNodes,
        NodeDisconnected,
        NodeLost,
        NoSharedFiles,
        NotAuthorised,
        OutOfMemory,
        Refused,
        RemoteError,
        ResultNotSendable,
        UnauthorizedError,
        Unsatisfiable,
        VersionMismatch,
        WorkerDied,
    )
    from .parallel_map import remote_parallel_map
    from .retry import Retry

    shared: str  # where all nodes of the cluster have one file system

__all__ = [
    "BadSetting",
    "BurlaError",
    "CallFailed",
    "CallTimeout",
    "CallerAway",
    "ClusterError",
    "ClusterLost",
    "ClusterRestarted",
    "ClusterShutdown",
    "ClusterUnreachable",
    "Executor",
    "FunctionExited",
    "InputNotLoadable",
    "InputTooBig",
    "InputTooLarge",
    "Job",
    "JobDetached",
    "JobFailed",
    "JobNotFound",
    "JobStatus",
    "MainServiceTimeout",
    "NoCompatibleNodes",
    "NoSharedFiles",
    "NodeDisconnected",
    "NodeLost",
    "NotAuthorised",
    "OutOfMemory",
    "Pool",
    "Progress",
    "Refused",
    "RemoteError",
    "ResultNotSendable",
    "Retry",
    "UnauthorizedError",
    "Unsatisfiable",
    "VersionMismatch",
    "WorkerDied",
    "__version__",
    "amap",
    "attach",
    "call",
    "register_joblib",
    "remote_parallel_map",
]


_MODULES = {
    "remote_parallel_map": "parallel_map",
    "call": "values.calls",
    "Retry": "retry",
    "Executor": "interfaces.executor",
    "register_joblib": "interfaces.joblib_backend",
    "amap": "interfaces.aio",
    "Pool": "interfaces.pool",
    "Progress": "core.progress",
    **dict.fromkeys(("Job", "JobStatus", "attach"), "detached"),
}


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "shared"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from burla.system.interrupts import HeldInterrupts

    if name == "shared":  # of the cluster in use now
        return import_module(".shared_files", __name__).shared_directory()
    module = _MODULES.get(name, "errors")
    with HeldInterrupts():
        value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
