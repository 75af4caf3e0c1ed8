"""Which exception the caller sees for a call that failed."""

from burla.ends import how_it_died, how_not_forked, tidy_dump, what_broke, what_it_means
from burla.errors import (
    CallFailed,
    FunctionExited,
    InputNotLoadable,
    JobFailed,
    RemoteError,
    ResultNotSendable,
    WorkerDied,
)
from burla.limits import GB
from burla.protocol.deaths import Death
from burla.values.payloads import Failure, NotLoadableError
from burla.values.records import readable


def exception_of(failure: Failure, *, in_iterator: bool = False) -> BaseException:
    """Return what to raise for a failed call.

    Args:
        failure: what `load_error` returned.
        in_iterator: it is raised in a `__next__`, where a StopIteration would mean the end; it
            becomes the cause of a RuntimeError, as in Python's own generators.
    """
    if failure.index < 0:  # it belongs to no input
        return _not_loaded(failure)
    match failure.kind:
        case "exit":
            text = (
                f"the function raised {_shown(failure)}, which ends a worker, not the caller;"
                " return from the function or raise another exception"
            )
            return _instead(FunctionExited(_at(failure, text)), failure)
        case "input":
            text = (
                f"the worker cannot unpickle this input: {failure.text}."
                f" {_remedy(failure.exception.__cause__, 'on the node')}"
            )
            return _instead(InputNotLoadable(_at(failure, text)), failure)
        case "result":
            text = (
                f"what the function returned cannot be pickled: {failure.text}. Return plain data,"
                " or something that pickle can take apart"
            )
            return _instead(ResultNotSendable(_at(failure, text)), failure)
        case "large":
            text = (
                f"what the function returned cannot be sent: it has {failure.text}. Write it to a"
                " file that you can reach and return its path, or return smaller parts"
            )
            return _instead(ResultNotSendable(_at(failure, text)), failure)
        case "raised" if failure.problem:
            text = (
                f"the function raised {_shown(failure)}; shown as text, because {failure.problem}"
                f"\n\nRemote traceback:\n{failure.traceback_text}"
            )
            error = RemoteError(_at(failure, text))
            error.type_name = failure.type_name
            error.text = failure.text
            error.remote_traceback = failure.traceback_text
            return _instead(error, failure)
        case "raised" if in_iterator and isinstance(failure.exception, StopIteration):
            ended = RuntimeError(_at(failure, "the function raised StopIteration"))
            ended.burla_input_index = failure.index  # type: ignore[attr-defined]  # ours
            ended.__cause__ = failure.exception
            return ended
        case "raised":
            return failure.exception


def _not_loaded(failure: Failure) -> JobFailed:
    text = f"the function cannot be loaded on node {failure.node}: {_shown(failure)}"
    if failure.problem:
        text += f"\n\nRemote traceback:\n{failure.traceback_text}"
    public = JobFailed(text)
    public.__cause__ = failure.exception
    return public


def result_not_loadable(index: int, node: str, error: NotLoadableError) -> ResultNotSendable:
    """Return what to raise for a result that `load_result` could not unpickle."""
    public = ResultNotSendable(
        f"input {index} · node {node}: the result cannot be unpickled here: {error}."
        f" {_remedy(error.__cause__, 'by the caller')}"
    )
    public.burla_input_index = index
    public.__cause__ = error.__cause__
    return public


def worker_died(index: int, death: Death, call: str) -> WorkerDied:
    """Return what to raise for a call whose worker died of something else than memory."""
    match death.how, death.code:
        case "exit", -1:
            how = "exit status unknown"
        case "exit", status:
            how = how_it_died(status)
        case "signal", number:
            how = how_it_died(-number)
        case _:
            how = how_not_forked(death.code)
    why = what_broke(death.killed_for) if death.killed_for else what_it_means(how)
    if (seen := death.seen) is not None:
        used = f"the call used {seen.used / GB:.3g} GB, " if seen.used else ""
        why += (
            f". When last looked at, {used}{seen.available / GB:.3g} of the node's"
            f" {seen.total / GB:.3g} GB were free"
        )
    return WorkerDied(
        index,
        how,
        death.deaths,
        call=call,
        last_words=readable(death.last_words),
        why=why,
        dump=tidy_dump(death.dump),
        was_loading=death.was_loading,
    )


def _remedy(cause: BaseException | None, where: str) -> str:
    """Return what to do about a value that could not be unpickled `where`."""
    match cause:
        case ImportError() | AttributeError():
            return f"What it is made of must be importable {where}"
        case MemoryError():
            return (
                "There was no memory for it, or its class said so: use smaller values, or a higher"
                " limit (func_ram, ulimit -v, that of a container)"
            )
        case OSError():
            return f"What it needs of the operating system could not be had {where}"
        case _:
            return "This is what its class, or what is in it, raised while it was put together"


def _instead(public: CallFailed, failure: Failure) -> CallFailed:
    """Return `public` with the place and the causes of what it stands for."""
    remote = failure.exception
    public.burla_input_index = failure.index
    public.__cause__ = remote.__cause__
    public.__context__ = remote.__context__
    public.__suppress_context__ = remote.__suppress_context__
    return public.with_traceback(remote.__traceback__)


def _shown(failure: Failure) -> str:
    return f"{failure.type_name}: {failure.text}" if failure.text else failure.type_name


def _at(failure: Failure, text: str) -> str:
    return f"{failure.call}: {text}"
