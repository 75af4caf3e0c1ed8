"""Which workers load the function, which are forked, and when no worker can be had."""

from burla.nodelet.core.events import Died, WorkerState
from burla.nodelet.core.spawn_policy import LOAD_DEATHS_MAX, SLOW_LOAD_S, SpawnPolicy, Step
from burla.protocol.deaths import Death, decode_death
from burla.protocol.messages import Kind

LOADING, COPYING = WorkerState.LOADING, WorkerState.COPYING
QUICK, SLOW = SLOW_LOAD_S / 2, SLOW_LOAD_S * 2
CRASH = ("signal", 11)


def wanting(count: int) -> SpawnPolicy:
    """Return a policy whose first worker of `count` is loading."""
    policy = SpawnPolicy()
    policy.want(count)
    assert list(policy.steps()) == [Step.LOAD]
    return policy


def test_what_is_quick_to_load_is_loaded_by_all() -> None:
    policy = wanting(3)
    assert not policy.loaded(1, QUICK, may_fork=True)
    assert list(policy.steps()) == [Step.LOAD, Step.LOAD]
    assert policy.unready == 2


def test_what_is_slow_to_load_is_loaded_once_and_forked() -> None:
    policy = wanting(3)
    assert policy.loaded(1, SLOW, may_fork=True)
    assert list(policy.steps()) == []  # it does not serve yet
    policy.template_serves(1)
    assert list(policy.steps()) == [Step.FORK] * 3
    for _ in range(3):
        policy.ready(COPYING)
    assert policy.unready == 0


def test_threads_forbid_a_template() -> None:
    policy = wanting(3)
    assert not policy.loaded(1, SLOW, may_fork=False)
    assert list(policy.steps()) == [Step.LOAD, Step.LOAD]


def test_one_worker_alone_needs_no_template() -> None:
    policy = wanting(1)
    assert not policy.loaded(1, SLOW, may_fork=True)
    assert policy.template is None


def test_when_the_template_goes_all_load_and_its_orders_are_nobodys_deaths() -> None:
    policy = wanting(2)
    policy.loaded(1, SLOW, may_fork=True)
    policy.template_serves(1)
    assert list(policy.steps()) == [Step.FORK, Step.FORK]
    policy.ready(COPYING)
    policy.not_copied()
    assert policy.template is None
    assert list(policy.steps()) == [Step.LOAD]
    assert policy.may_want()


def test_a_function_that_kills_whoever_loads_it_is_to_blame_after_some_deaths() -> None:
    policy = SpawnPolicy()
    for number in range(LOAD_DEATHS_MAX):
        assert policy.no_worker is None
        assert policy.may_want()
        policy.want(1)
        assert len(list(policy.steps())) == 1, number
        policy.died(Died(number, CRASH, LOADING, dump="here"), "bye", others=False)
    assert not policy.may_want()
    assert policy.no_worker is not None
    kind, (frame,) = policy.no_worker
    assert kind is Kind.DEATH
    assert decode_death(frame) == Death(
        *CRASH, LOAD_DEATHS_MAX, last_words="bye", dump="here", was_loading=True
    )


def test_workers_that_die_of_one_cause_together_count_once() -> None:
    policy = wanting(5)
    policy.loaded(1, QUICK, may_fork=True)
    assert len(list(policy.steps())) == 4
    for number in range(4):
        policy.died(Died(number, ("signal", 9), LOADING), "", others=False)
    assert policy.no_worker is None


def test_others_that_are_ready_make_up_for_deaths_and_failures() -> None:
    policy = wanting(1)
    policy.leave(LOADING)
    policy.load_failed([b"why"], others=True)
    assert policy.no_worker is None
    assert not policy.may_want()
    policy.all_gone()
    assert policy.may_want()


def test_a_function_that_cannot_be_loaded_is_the_reason() -> None:
    policy = wanting(1)
    policy.leave(LOADING)
    policy.load_failed([b"why"], others=False)
    assert policy.no_worker == (Kind.ERROR, [b"why"])
