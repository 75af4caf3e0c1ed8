"""Runs CPython's own tests of executors and pools against ours, by hand.

    PYTHONPATH=.:tests/support python tests/support/cpython_executors.py

They are those of the Python that runs this, where its `test` package is installed; nothing of them
is kept here. Prints how many passed, and what was left out, each with its reason.
"""

import importlib
import io
import sys
import unittest
from typing import Any

import burla

# What tests how the pools of Python are built, not what they promise.
LEFT_OUT = {
    "test_interpreter_shutdown": "imports the executor by its name from concurrent.futures;"
    " tests/burla/interfaces has the same for ours",
    "test_submit_after_interpreter_shutdown": "likewise",
    "test_hang_gh83386": "likewise",
    "test_swallows_falsey_exceptions": "is there for threads only",
    "test_imap_handle_iterable_exception": "wants that an error of the iterable takes the results"
    " of its whole chunk along; there are no chunks here",
    "test_map_unplicklable": "wants the error of a `__reduce__` itself; ours is a TypeError that"
    " says which argument, with that as its cause",
    "test_wrapped_exception": "the test class itself would travel, with the pool in it",
    "test_make_pool": "looks into `_pool`, a list of processes; that of ours is elsewhere",
    "test_resource_warning": "sets `_state`; a pool of ours that is dropped holds nothing",
    "test_traceback": "wants the text of the traceback as the cause; ours has the frames",
}


def executor_cases() -> list[type]:
    """Return the tests of `concurrent.futures` that hold for any executor."""
    base = "test.test_concurrent_futures"
    util = importlib.import_module(f"{base}.util")

    class Ours(util.ExecutorMixin):  # type: ignore[name-defined, misc]  # of an untyped module
        executor_type = burla.Executor

    found: list[type] = []
    wanted = (
        ("executor", "ExecutorTest"),
        ("test_wait", "WaitTests"),
        ("test_as_completed", "AsCompletedTests"),
        ("test_shutdown", "ExecutorShutdownTest"),
        ("test_init", "InitializerMixin"),
    )
    for module, name in wanted:
        mixin = getattr(importlib.import_module(f"{base}.{module}"), name)
        bases = (
            (mixin, util.BaseTestCase)
            if name == "InitializerMixin"
            else (
                mixin,
                Ours,
                util.BaseTestCase,
            )
        )
        body: dict[str, Any] = {"executor_type": burla.Executor}
        found.append(type(f"Burla{name}", bases, body))
    return found


def pool_cases() -> list[type]:
    """Return the tests of `multiprocessing.Pool`."""
    theirs: Any = importlib.import_module("test._test_multiprocessing")

    def pool(cls: object, *args: Any, **kwargs: Any) -> Any:
        return burla.Pool(*args, **kwargs)

    body = {"TYPE": "processes", "Pool": classmethod(pool)}
    return [type("BurlaPool", (theirs._TestPool, unittest.TestCase), body)]


def main() -> int:
    """Run them; return 0 if all pass that are not left out."""
    burla.remote_parallel_map(abs, [1])  # its thread is there before any test looks at threads
    loader = unittest.TestLoader()
    wanted, left_out = unittest.TestSuite(), []
    for case in [*executor_cases(), *pool_cases()]:
        for name in loader.getTestCaseNames(case):
            if name in LEFT_OUT:
                left_out.append((f"{case.__name__}.{name}", LEFT_OUT[name]))
            elif not sys.argv[1:] or any(one in f"{case.__name__}.{name}" for one in sys.argv[1:]):
                wanted.addTest(case(name))
    stream = sys.stdout if "-v" in sys.argv else io.StringIO()
    result = unittest.TextTestRunner(stream, verbosity=2).run(wanted)
    bad = [*result.failures, *result.errors]
    for failed, text in bad:
        print(f"FAILED {failed.id()}\n{text}")
    skipped = [(one.id().partition(".")[2], why) for one, why in result.skipped]
    print(f"Python {sys.version.split()[0]}: {result.testsRun - len(bad) - len(skipped)} passed,")
    print(f"{len(bad)} failed, {len(left_out) + len(skipped)} left out:")
    for name, why in [*left_out, *skipped]:
        print(f"  {name}: {why}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
