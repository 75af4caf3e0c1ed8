"""How the tests are run: by file, on several workers, and alike on fast and on busy machines."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
WORKERS_SPARE = 3  # beyond one per CPU: most tests wait most of the time, but not all
# Begun first, so that the workers end at about the same time; of three that follow each other about
# one mostly waits, and the others compute.
LONGEST = (
    *("provisioning/test_cli_gce.py", "provisioning/install/test_bootstrap.py"),
    *("security/test_broken.py", "provisioning/test_cli_slurm.py", "end_to_end/test_traps.py"),
    *("perf/test_cases.py", "provisioning/test_cli_ssh.py", "security/test_matrix.py"),
    *("simulation/test_simulation.py", "end_to_end/test_absence.py", "end_to_end/test_nodes.py"),
    *("chaos/test_chaos.py", "provisioning/test_cli_kubernetes.py", "end_to_end/test_laptops.py"),
    *(
        "end_to_end/test_dashboard.py",
        "end_to_end/test_notebooks.py",
        "provisioning/test_providers.py",
    ),
    *("provisioning/kubernetes/test_provisioner.py", "end_to_end/test_big_results.py"),
    *("end_to_end/test_hash_seeds.py", "provisioning/test_head_systemd.py"),
    *("provisioning/gce/test_provisioner.py", "security/test_isolation_matrix.py"),
    *("provisioning/test_cli_local.py", "provisioning/test_upgrade.py"),
    *("end_to_end/test_memory.py", "end_to_end/test_owner.py", "provisioning/test_cli_refused.py"),
    *("nodelet/shell/test_agent.py", "provisioning/test_systemd.py"),
    *("end_to_end/test_schedulers.py", "security/test_outside.py"),
    *("end_to_end/test_calling.py", "end_to_end/test_crashes.py"),
    *("end_to_end/test_big_inputs.py", "end_to_end/test_interrupts.py"),
    *("end_to_end/test_interfaces.py", "end_to_end/test_jobs.py", "end_to_end/test_limits.py"),
    *("end_to_end/test_lingering.py", "provisioning/test_rotate.py"),
)

# How long an example takes says more about the machine than about us.
settings.register_profile("burla", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("burla")

# Without its bytecode each of the thousands of processes that tests start compiles all of it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Whoever runs in the background may ignore these; what the tests start would then, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use several workers but for a single file: that runs here, where one can look into it."""
    if len(config.args) == 1 and not Path(config.args[0].partition("::")[0]).is_dir():
        return 0
    return len(os.sched_getaffinity(0)) + WORKERS_SPARE


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leave what is collected to the end of the process: looking through it is a third of this."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; in a file they stay in order."""
    rank = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


_set_aside: dict[str, ModuleType] = {}  # all that was collected


def pytest_collection_finish() -> None:
    """Set aside what was collected, until it is run; see `pytest_runtest_protocol`."""
    ours = [name for name in sys.modules if name.partition(".")[0] == TESTS.name]
    _set_aside.update({name: sys.modules.pop(name) for name in ours})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have the file that runs imported and no other, as if it were the only one.

    All that a caller has imported of their own goes to workers: else hundreds of files for a few
    calls, time and again.
    """
    module = item.getparent(pytest.Module)
    name = module.obj.__name__ if module is not None else ""
    here = [one for one in _set_aside if one == name or name.startswith(f"{one}.")]
    sys.modules.update({one: _set_aside[one] for one in here})
    try:
        return (yield)
    finally:
        for one in here:
            sys.modules.pop(one, None)


@pytest.fixture(autouse=True)
def _signals_are_handled_as_before() -> Iterator[None]:
    """Fail where a test leaves a handler behind: a later one's Ctrl-C would go there."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
