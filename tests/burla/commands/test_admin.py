"""What `burla nodes list` prints for people."""

import pytest

from burla.commands import admin
from burla.protocol import messages as m

NODE = m.NodeStatus(
    name="n[red]1",
    isolation="uid",
    cpus=4,
    ram=8 << 30,
    python="3.11",
    state=m.NodeState.FREE,
    job="",
)


def test_nodes_are_a_line_each_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    admin.print_nodes([NODE])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "NAME     ISOLATION  CPUS  RAM   PYTHON  STATE  JOB",
        "n[red]1  uid        4     8 GB  3.11    free",
    ]
