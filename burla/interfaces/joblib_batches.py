"""A batch of joblib's, called in a worker. Imports little: each worker does it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def run_batch(batch: Callable[[], Any]) -> Any:
    """Call a batch where the backend "burla" is known by its name, as it is where it came from."""
    parallel: Any = import_module("joblib.parallel")
    if "burla" not in parallel.BACKENDS:
        parallel.register_parallel_backend("burla", _make_backend)
    return batch()


def _make_backend(**options: Any) -> Any:
    from .joblib_backend import make_backend

    return make_backend(**options)
