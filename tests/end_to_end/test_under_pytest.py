"""Functions of test suites: outcomes are what they would be here, asserts are explained."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
import scripts
from clusters import Cluster, cluster

pytestmark = pytest.mark.slow

CONFTEST = """
    def check(a, b):
        assert a == b
"""
SUITE = """
    import unittest

    import pytest
    from burla import remote_parallel_map
    from conftest import check

    def equal(x):
        items = [x, 2]
        assert items == [1, 3]

    def skip(x):
        raise unittest.SkipTest("unit")

    def test_skip():
        remote_parallel_map(lambda x: pytest.skip("not today"), [1])

    def test_unittest_skip():
        remote_parallel_map(skip, [1])

    def test_importorskip():
        remote_parallel_map(lambda x: pytest.importorskip("no_such_module"), [1])

    def test_xfail():
        remote_parallel_map(lambda x: pytest.xfail("known"), [1])

    def test_fail():
        remote_parallel_map(lambda x: pytest.fail("because"), [1])

    def test_raises():
        with pytest.raises(pytest.fail.Exception, match="because"):
            remote_parallel_map(lambda x: pytest.fail("because"), [1])

    def test_assert():
        remote_parallel_map(equal, [1])

    def test_helper():
        remote_parallel_map(lambda x: check([x, 2], [1, 4]), [1])

    class TestInAClass(unittest.TestCase):
        def test_skip(self):
            remote_parallel_map(skip, [1])
"""
OUTCOMES = {
    "test_skip": "SKIPPED",
    "test_unittest_skip": "SKIPPED",
    "test_importorskip": "SKIPPED",
    "test_xfail": "XFAIL",
    "test_fail": "FAILED",
    "test_raises": "PASSED",
    "test_assert": "FAILED",
    "test_helper": "FAILED",
    "TestInAClass::test_skip": "SKIPPED",
}


def outcomes(tmp_path: Path, *, private: bool) -> tuple[dict[str, str], str]:
    """Return how the tests of the suite ended, and all that pytest said."""
    scripts.write(tmp_path, conftest=CONFTEST, test_suite=SUITE)
    later_s = (
        time.time() + 3600
    )  # too young for a search to leave its bytecode, however long it takes
    os.utime(tmp_path / "conftest.py", (later_s, later_s))
    options = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null")
    arguments = (*options, "--rootdir", str(tmp_path), str(tmp_path))
    done = scripts.run(arguments, tmp_path, private=private, cwd=tmp_path)
    found = re.findall(r"test_suite\.py::(\S+) (PASSED|FAILED|SKIPPED|XFAIL)", done.stdout)
    return dict(found), done.stdout


@pytest.mark.parametrize("private", [True, False])
def test_outcomes_are_what_they_are_here(shared: Cluster, tmp_path: Path, private: bool) -> None:
    found, said = outcomes(tmp_path, private=private)
    assert found == OUTCOMES, said
    assert "assert [1, 2] == [1, 3]" in said
    assert "assert [1, 2] == [1, 4]" in said
    assert not list(tmp_path.rglob(f"__pycache__/conftest.{sys.implementation.cache_tag}.pyc"))


def test_outcomes_are_what_they_are_here_on_two_isolated_nodes(tmp_path: Path) -> None:
    (home := tmp_path / "c").mkdir()
    (suite := tmp_path / "suite").mkdir()
    with cluster(home, 1, 1, bind="tcp://127.0.0.1:0", isolation="best"):
        found, said = outcomes(suite, private=False)
    for name in ("test_skip", "test_importorskip", "test_xfail", "test_fail", "test_raises"):
        assert found[name] == OUTCOMES[name], said  # the others need modules of the caller's
