"""What users write, with every public name; type checkers look at it, nobody runs it."""

from collections.abc import AsyncIterator
from typing import assert_type

import burla
from burla import Executor, Pool, Progress, Retry, amap, call, remote_parallel_map


def text_of(x: int) -> str:
    return str(x)


def show(said: Progress) -> None:
    print(said.done, said.total, said.is_over)


def maps() -> None:
    assert_type(remote_parallel_map(text_of, [1]), list[str])
    assert_type(remote_parallel_map(text_of, [call(x=1)]), list[str])
    assert_type(remote_parallel_map(text_of, [1], with_index=True), list[tuple[int, str]])
    kept = remote_parallel_map(text_of, [1], return_exceptions=True)
    assert_type(kept, list[str | BaseException])
    for one in remote_parallel_map(text_of, [1], generator=True, ordered=True, timeout=3):
        assert_type(one, str)
    remote_parallel_map(text_of, [1], progress=show, retries=Retry(2), func_gpu=0)
    job = remote_parallel_map(text_of, [1], detach=True)
    assert_type(job, burla.Job)
    assert_type(burla.attach(job.id), burla.Job)


async def coroutines(inputs: AsyncIterator[int]) -> None:
    assert_type(await amap(text_of, inputs), list[str])
    async for one in amap(text_of, [1], generator=True):
        assert_type(one, str)


def executors() -> None:
    with Executor(4, spinner=True) as executor:
        assert_type(executor.submit(text_of, 1).result(), str)
        for one in executor.map(text_of, [1]):
            assert_type(one, str)
    with Pool(4) as pool:
        assert_type(pool.map(text_of, [1]), list[str])
        assert_type(pool.apply_async(text_of, (1,)).get(), str)
    burla.register_joblib()


def errors() -> str:
    kinds: tuple[type[burla.BurlaError], ...] = (burla.BadSetting, burla.CallFailed)
    kinds += (burla.CallTimeout, burla.CallerAway, burla.ClusterError, burla.ClusterLost)
    kinds += (burla.ClusterUnreachable, burla.FunctionExited, burla.InputNotLoadable)
    kinds += (burla.InputTooLarge, burla.JobFailed, burla.JobNotFound, burla.NoSharedFiles)
    kinds += (burla.NodeLost, burla.NotAuthorised, burla.OutOfMemory, burla.Refused)
    kinds += (burla.RemoteError, burla.ResultNotSendable, burla.Unsatisfiable)
    kinds += (burla.VersionMismatch, burla.WorkerDied)
    try:
        maps()
    except kinds as error:
        return f"{error} {burla.__version__} {burla.shared} {burla.JobStatus.__doc__}"
    return ""
