"""How a script ends when its job ended early: with its own status, and nothing said."""

from pathlib import Path

import pytest
from clusters import Cluster
from scripts import succeed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("close_s", [1.0, 0.0], ids=["closing in time", "closing takes too long"])
def test_a_script_ends_well_while_big_inputs_are_still_being_sent(
    shared: Cluster, tmp_path: Path, close_s: float
) -> None:
    """Buffers that libzmq still sends must outlive the interpreter, or the process crashes."""
    source = f"""
        import os
        import burla.shell.io_thread
        from burla import remote_parallel_map

        burla.shell.io_thread.CLOSE_S = {close_s}

        def fail(x):
            raise ValueError("no")

        try:
            remote_parallel_map(fail, [os.urandom(1 << 20) for _ in range(200)])
        except ValueError as error:
            print(error)
    """
    for _ in range(4):
        assert succeed(source, tmp_path) == "no\n"
