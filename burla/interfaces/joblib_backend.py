"""`burla.register_joblib()`: what `joblib.Parallel` calls, as scikit-learn does, on the cluster.

It is for `joblib.parallel_config(backend="burla")`; estimators and searches need no change.
"""

from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any

from .engine import CallOptions, slots_there
from .executor import CLOSED, Executor
from .joblib_batches import run_batch


def register_joblib() -> None:
    """Let joblib know the backend "burla".

    Then `joblib.parallel_config(backend="burla")`, or `Parallel(backend="burla")`, has its calls
    made on the cluster. More keywords are options of calls, as `func_cpu=2` or `timeout=60`.

    Raises:
        ImportError: joblib is not installed.
    """
    joblib: Any = import_module("joblib")
    joblib.register_parallel_backend("burla", make_backend)


def make_backend(**options: Any) -> Any:
    """Return a backend for one configuration."""
    global _class
    if _class is None:  # its base classes are joblib's, which few processes need
        _class = _define()
    return _class(**options)


_class: Any = None


def _define() -> Any:
    backends: Any = import_module("joblib._parallel_backends")
    fallback: Any = backends.FallbackToBackend

    class BurlaBackend(backends.AutoBatchingMixin, backends.ParallelBackendBase):  # type: ignore[misc]
        """Has joblib's batches called by an executor, which lives for one `Parallel`."""

        supports_retrieve_callback = True
        uses_threads = False
        supports_sharedmem = False
        executor: Executor | None = None
        most: int | None = None  # calls at the same time
        options: dict[str, Any]

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            """Return how many calls may run at once."""
            if n_jobs == 0:
                raise ValueError("n_jobs == 0 in Parallel has no meaning")
            if n_jobs is None:
                return 1
            if n_jobs > 0:
                return n_jobs
            return max(1, slots_there() + 1 + n_jobs)

        def configure(
            self,
            n_jobs: int = 1,
            parallel: Any = None,
            prefer: Any = None,
            require: Any = None,
            **options: Any,
        ) -> int:
            """Begin for one `Parallel`; return how many calls may run at once."""
            count = self.effective_n_jobs(n_jobs)
            if count == 1:
                raise fallback(backends.SequentialBackend(nesting_level=self.nesting_level))
            self.parallel = parallel
            of_calls = CallOptions.__annotations__  # others are of joblib's own backends
            known = self.backend_kwargs | {k: v for k, v in options.items() if k in of_calls}
            self.most, self.options = count if n_jobs > 0 else None, known
            self.executor = self.new_executor()
            return count

        def new_executor(self) -> Executor:
            """Return one whose jobs take along the big arrays of their first calls."""
            executor = Executor(self.most, **self.options)
            executor._engine.shares = True
            return executor

        def submit(
            self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None
        ) -> Future[Any]:
            """Call a batch; return its future."""
            assert self.executor is not None
            if not self.executor._engine.first:
                items: Any = getattr(func, "items", ())  # of joblib's BatchedCalls
                self.executor._engine.first = [function for function, *_ in items]
            future = self.executor.submit(run_batch, func)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, out: Future[Any]) -> Any:
            """Return what a batch returned."""
            return out.result()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            """Stop what runs: one call has failed."""
            if self.executor is not None:
                self.executor._engine.stop(CLOSED)
                self.executor = None
            if ensure_ready:
                self.executor = self.new_executor()

        def terminate(self) -> None:
            """End it."""
            executor, self.executor = self.executor, None
            if executor is not None:
                executor.shutdown()
            self.reset_batch_stats()

        def __reduce__(self) -> Any:
            """Go along with a batch as its options: a nested `Parallel` makes its own."""
            return make_backend, ()

    return BurlaBackend
