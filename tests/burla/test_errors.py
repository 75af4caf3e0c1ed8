import pickle
from types import SimpleNamespace
from typing import Any

import pytest

import burla
from burla import errors
from burla.errors import BurlaError, CallFailed, WorkerDied

SAMPLES: list[BurlaError] = [
    errors.BadSetting("BURLA_CLUSTER", "x", "an address such as tcp://127.0.0.1:4000"),
    errors.ClusterUnreachable("tcp://127.0.0.1:1", "nothing answered within 10 s"),
    errors.ClusterLost("tcp://127.0.0.1:1", "silent for 60 s"),
    errors.Refused("no"),
    errors.VersionMismatch("Python", "3.11", "3.12"),
    errors.NotAuthorised("no"),
    errors.Unsatisfiable("func_cpu", 99, "the biggest node has 4 CPUs"),
    errors.JobFailed("no"),
    errors.CallerAway("away", 900.0, 600.0),
    errors.JobNotFound("00" * 16),
    errors.JobDetached(SimpleNamespace(id="00" * 16)),
    errors.WorkerDied(17, "signal SIGSEGV", 3, call="input 17 = 0 · node n", last_words="bye\n"),
    errors.NoSharedFiles("there is none"),
    errors.NodeLost(7, ("a", "b", "a"), call="input 7 = 3 · node a"),
    errors.CallTimeout(7, 0.5, call="input 7 = 3 · node a", killed=True),
    errors.InputTooLarge(7, "input 7 has 9 bytes, and the cluster takes 8"),
    errors.OutOfMemory(4, used=3 << 30, limit=2 << 30, total=8 << 30, available=1 << 30, call="c"),
    errors.FunctionExited("x"),
    errors.InputNotLoadable("x"),
    errors.ResultNotSendable("x"),
    errors.RemoteError("x"),
]


def all_errors() -> list[type[BurlaError]]:
    todo, found = [BurlaError], []
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return found


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_can_be_pickled(error: BurlaError) -> None:
    error.add_note("note")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_every_error_is_in_the_tree_of_the_docstring_and_has_a_sample() -> None:
    words = str(errors.__doc__).split()
    for cls in all_errors():
        assert cls.__name__ in words, cls
    abstract = {BurlaError, CallFailed, errors.ClusterError}
    assert {type(error) for error in SAMPLES} == set(all_errors()) - abstract


@pytest.mark.parametrize(
    ("how", "hint"),
    [("signal SIGKILL", "memory"), ("signal SIGSEGV", "Native"), ("exit status 3", "os._exit")],
)
def test_a_worker_that_died_is_told_with_input_end_and_last_words(how: str, hint: str) -> None:
    error: Any = WorkerDied(17, how, 3, last_words="last\n")
    assert error.burla_input_index == 17
    for part in ("input 17", how, "3 times", hint, "last words:\nlast"):
        assert part in str(error)


def test_scripts_of_the_original_catch_ours_by_its_names() -> None:
    assert burla.InputTooBig is burla.InputTooLarge
    assert burla.NoCompatibleNodes is burla.Unsatisfiable
    assert burla.NodeDisconnected is burla.NodeLost
    assert burla.ClusterShutdown is burla.ClusterRestarted is burla.ClusterLost
    assert burla.MainServiceTimeout is burla.ClusterUnreachable
    assert burla.UnauthorizedError is burla.NotAuthorised
