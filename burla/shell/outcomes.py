"""Which exception the caller sees for a call that failed."""

from burla.errors import (
    CallFailed,
    FunctionExited,
    InputNotLoadable,
    JobFailed,
    RemoteError,
    ResultNotSendable,
)
from burla.values.payloads import Failure, NotLoadableError


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
                f"the worker cannot unpickle this input: {failure.text}. What it is made of must"
                " be importable on the node"
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
        f"input {index} · node {node}: the result cannot be unpickled here: {error}. What it is"
        " made of must be importable by the caller"
    )
    public.burla_input_index = index
    public.__cause__ = error.__cause__
    return public


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
