"""Who is measured: burla and its peers, behind one small protocol."""

import importlib.util
import multiprocessing
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import Pool
from typing import Any, Protocol

from . import functions
from .measure import settled, timed

Inputs = Sequence[Any]
Map = Callable[[], list[Any]]


class Contender(Protocol):
    """One way to map a function over inputs in other processes."""

    name: str
    takes_chunk: bool  # whether it can be told how many inputs go in one message
    prints: bool  # whether each line that a call prints is in our stdout once, at the return
    few: int | None  # of more tiny calls it would take minutes with its default chunk; None: never
    few_at_best: bool  # nor does another chunk help
    rests: bool  # its threads and processes do nothing while nobody asks them to

    def start(self, workers: int) -> None:
        """Start `workers` processes, where they are not started by the first call."""

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order; chunk: inputs per message, None: the contender's default."""

    def close(self) -> None:
        """End every process."""


class Burla:
    """`remote_parallel_map`; there is no chunk size to give."""

    name = "burla"
    takes_chunk, prints = False, True
    few: int | None = None
    few_at_best = False
    rests = True

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
    takes_chunk, prints = True, True
    few: int | None = None
    few_at_best = False
    rests = True
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
    takes_chunk, prints = True, True
    few: int | None = 20_000
    few_at_best = False
    rests = True
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
    takes_chunk, prints = True, True
    few: int | None = None
    few_at_best = False
    rests = True
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


class RayPool:
    """`ray.util.multiprocessing.Pool`."""

    name = "Ray Pool"
    takes_chunk, prints = True, False  # lines come by and by, and most not at all
    few: int | None = 50_000
    few_at_best = True
    rests = False
    pool: Any

    def start(self, workers: int) -> None:
        """Start Ray on this machine, and the actors."""
        import ray
        from ray.util.multiprocessing import Pool as PoolOfActors

        ray.init(
            num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        self.pool = PoolOfActors(workers)

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        results: list[Any] = self.pool.map(function, inputs, chunksize=chunk)
        return results

    def close(self) -> None:
        """End the actors, and Ray."""
        import ray

        self.pool.terminate()
        ray.shutdown()


class Dask:
    """`dask.distributed`, a task for each input."""

    name = "dask"
    takes_chunk, prints = False, False  # lines come twice
    few: int | None = 1_000
    few_at_best = True
    rests = False
    client: Any

    def start(self, workers: int) -> None:
        """Start a scheduler and workers of one thread."""
        from distributed import Client

        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        self.client = Client(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )

    def map(self, function: Callable[[Any], Any], inputs: Inputs, chunk: int | None) -> list[Any]:
        """Return the results in order."""
        futures = self.client.map(function, inputs, pure=False)  # it computes nothing twice else
        results: list[Any] = self.client.gather(futures)
        return results

    def close(self) -> None:
        """End the workers, and the scheduler."""
        self.client.shutdown()


BURLA = Burla.name
# Forking comes first, before anybody has started threads in this process.
ALL: dict[str, type[Contender]] = {
    MultiprocessingPool.name: MultiprocessingPool,
    Executor.name: Executor,
    Joblib.name: Joblib,
    RayPool.name: RayPool,
    Dask.name: Dask,
    BURLA: Burla,
}
EXTRAS = {  # of those that are not with Python: the package, and what of ours installs it
    Joblib.name: ("joblib", "perf"),
    RayPool.name: ("ray", "perf-all"),
    Dask.name: ("distributed", "perf-all"),
}


def installed(names: Iterable[str]) -> list[str]:
    """Return those of `names` that can be run here: some are extras."""
    return [n for n in names if n not in EXTRAS or importlib.util.find_spec(EXTRAS[n][0])]


def groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return who of `names` is measured beside whom: burla, which is in each, and some peers.

    Idle, Ray and dask take a seventh of a CPU together, some of it in threads of the caller that
    all others would share an interpreter with. So each of these has a group of its own.
    """
    ours = tuple(name for name in names if name == BURLA)
    calm = tuple(name for name in names if ALL[name].rests)
    restless = [(*ours, name) for name in names if not ALL[name].rests]
    return [calm, *restless] if calm != ours or not restless else restless


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
    first = settled(run)
    return first if first > 1 else min(first, settled(run), settled(run))


def variants(
    contenders: Sequence[Contender],
    function: Callable[[Any], Any],
    inputs: Inputs,
    chunks: Sequence[int],
    check: Callable[[list[Any]], object],
    instead: Callable[[Any], Any] | None = None,
    *,
    tiny: bool = False,
) -> dict[str, Callable[[], float]]:
    """Return what to time: each contender as it is, and each peer with its best of `chunks`.

    Args:
        contenders: as started.
        function: what is mapped.
        inputs: what it is mapped over.
        chunks: chunk sizes to try; empty: the peers run as they are only.
        check: raises if results, of all inputs or the first of them, are wrong; not part of the
            time.
        instead: the function for peers, where they need another one to do the same.
        tiny: who would take minutes maps over the first inputs only; its time is that of all, in
            proportion.
    """

    def run_of(contender: Contender, chunk: int | None, given: Inputs) -> Callable[[], float]:
        mapped = instead if instead and contender.name != BURLA else function

        def run() -> float:
            seconds, results = timed(lambda: contender.map(mapped, given, chunk))
            assert len(results) == len(given)
            check(results)
            return seconds * len(inputs) / len(given)

        return run

    runs = {}
    for contender in contenders:
        few = contender.few if tiny and contender.few and contender.few < len(inputs) else None
        name = f"{contender.name}, from {few:,} calls" if few else contender.name
        runs[name] = run_of(contender, None, inputs[:few])
        if contender.name == BURLA:
            runs[BURLA]()  # the peers have had this function too, when they tried their chunks
        elif chunks and contender.takes_chunk and not (few and contender.few_at_best):
            tried = {chunk: run_of(contender, chunk, inputs) for chunk in chunks}
            best = min(tried, key=lambda chunk: least_s(tried[chunk]))
            runs[f"{contender.name}, chunk {best:,}"] = tried[best]
    return runs
