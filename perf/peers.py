"""Who is measured: burla and its peers, behind one small protocol."""

import importlib.util
import multiprocessing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import Pool
from typing import Any, Protocol

from . import functions
from .measure import timed

Inputs = Sequence[Any]
Map = Callable[[], list[Any]]


class Contender(Protocol):
    """One way to map a function over inputs in other processes."""

    name: str

    def start(self, workers: int) -> None:
        """Start `workers` processes, where they are not started by the first call."""

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order; chunk: inputs per message, None: the contender's default."""

    def close(self) -> None:
        """End every process."""


class Burla:
    """`remote_parallel_map`; there is no chunk size to give."""

    name = "burla"

    def start(self, workers: int) -> None:
        """Do nothing: the first call starts the cluster, or BURLA_CLUSTER names one."""

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        from burla import remote_parallel_map

        return remote_parallel_map(function, inputs, spinner=False)

    def close(self) -> None:
        """Do nothing: the cluster ends with the process that started it."""


class MultiprocessingPool:
    """`multiprocessing.Pool`."""

    name = "Pool"
    pool: Pool

    def start(self, workers: int) -> None:
        """Fork the workers."""
        self.pool = multiprocessing.get_context("fork").Pool(workers)

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        return self.pool.map(function, inputs, chunksize=chunk)

    def close(self) -> None:
        """End the workers."""
        self.pool.terminate()
        self.pool.join()


class Executor:
    """`concurrent.futures.ProcessPoolExecutor`."""

    name = "ProcessPoolExecutor"
    executor: ProcessPoolExecutor

    def start(self, workers: int) -> None:
        """Make the executor; it forks at its first call."""
        context = multiprocessing.get_context("fork")
        self.executor = ProcessPoolExecutor(workers, mp_context=context)

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        return list(self.executor.map(function, inputs, chunksize=chunk or 1))

    def close(self) -> None:
        """End the workers."""
        self.executor.shutdown(cancel_futures=True)


class Joblib:
    """`joblib.Parallel` over loky."""

    name = "joblib"
    workers: int

    def start(self, workers: int) -> None:
        """Remember how many; loky starts its workers at the first call and keeps them."""
        self.workers = workers

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=self.workers, batch_size=chunk or "auto")
        return list(parallel(delayed(function)(item) for item in inputs))

    def close(self) -> None:
        """End loky's workers."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)


BURLA = Burla.name
# Forking comes first, before anybody has started threads in this process.
ALL: dict[str, Callable[[], Contender]] = {
    MultiprocessingPool.name: MultiprocessingPool,
    Executor.name: Executor,
    Joblib.name: Joblib,
    BURLA: Burla,
}


def installed(names: Iterable[str]) -> list[str]:
    """Return those of `names` that can be run here: joblib is an extra."""
    return [n for n in names if n != Joblib.name or importlib.util.find_spec("joblib")]


@contextmanager
def started(names: Collection[str], workers: int) -> Iterator[list[Contender]]:
    """Start the contenders called `names` and make each of them warm; end them at the end."""
    with ExitStack() as ends:
        contenders = []
        for name, make in ALL.items():
            if name in names:
                contender = make()
                contender.start(workers)
                ends.callback(contender.close)
                # Twice as many inputs as workers: every worker is there before anything is timed.
                contender.map(functions.warm, range(2 * workers), None)
                contenders.append(contender)
        contenders.sort(key=lambda contender: contender.name != BURLA)  # burla first in the tables
        yield contenders


def least_s(run: Callable[[], float]) -> float:
    """Return the best of three runs: one alone is noise. A run of over a second is told by one."""
    first = run()
    return first if first > 1 else min(first, run(), run())


def variants(
    contenders: Sequence[Contender],
    function: Callable[[Any], Any],
    inputs: Inputs,
    chunks: Sequence[int],
    check: Callable[[list[Any]], object],
    instead: Callable[[Any], Any] | None = None,
) -> dict[str, Callable[[], float]]:
    """Return what to time: each contender as it is, and each peer with its best of `chunks`.

    Args:
        contenders: as started.
        function: what is mapped.
        inputs: what it is mapped over.
        chunks: chunk sizes to try; empty: the peers run as they are only.
        check: raises if results are wrong; not part of the time.
        instead: the function for peers, where they need another one to do the same.
    """

    def run_of(contender: Contender, chunk: int | None) -> Callable[[], float]:
        mapped = instead if instead and contender.name != BURLA else function

        def run() -> float:
            seconds, results = timed(lambda: contender.map(mapped, inputs, chunk))
            check(results)
            return seconds

        return run

    runs = {}
    for contender in contenders:
        runs[contender.name] = run_of(contender, None)
        if contender.name == BURLA:
            runs[BURLA]()  # the peers have had this function too, when they tried their chunks
        elif chunks:
            tried = {chunk: run_of(contender, chunk) for chunk in chunks}
            best = min(tried, key=lambda chunk: least_s(tried[chunk]))
            runs[f"{contender.name}, chunk {best:,}"] = tried[best]
    return runs
