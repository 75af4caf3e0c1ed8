"""Arguments of the original Burla: taken, refused or said to be without effect."""

import os
import warnings
from typing import Any

import pytest

from burla import remote_parallel_map as rpm
from burla.calling import request_of
from burla.original import plain_limits
from burla.protocol.messages import Machines
from burla.starting import _Cluster, _specify

WANTED = Machines(region="us-east1")


def test_dynamic_is_what_the_cluster_does_where_nothing_is_said() -> None:
    assert plain_limits("dynamic", "dynamic") == (1, None)
    assert plain_limits(2, 0.5) == (2, 0.5)
    request = request_of(abs, [1], func_cpu="dynamic", func_ram="dynamic")
    assert (request.func_cpu, request.func_ram) == (1, None)


def test_another_word_is_refused_as_ever() -> None:
    with pytest.raises(TypeError, match=r"func_cpu must be a whole number .* not 'all'"):
        rpm(abs, [1], func_cpu="all")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"func_ram must be a number of GB .* not 'much'"):
        rpm(abs, [1], func_ram="much")  # type: ignore[call-overload]


def test_in_a_call_no_machine_is_made_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_WORKER_PID", str(os.getpid()))
    words = "without effect: region='us-east1', disk_gb=50 .* grow=True and a cluster of yours"
    with pytest.warns(UserWarning, match=words) as warned:
        assert rpm(abs, [-1], region="us-east1", disk_gb=50, grow=True) == [1]
    assert [one.filename for one in warned] == [__file__]  # at the line of the caller


@pytest.mark.parametrize(
    ("address", "grow", "wanted"),
    [("ipc:///s", True, WANTED), ("ipc:///s", False, None), (None, True, None)],
)
def test_only_a_cluster_that_may_grow_is_told_what_machines_are_to_be_like(
    address: str | None, grow: bool, wanted: Machines | None
) -> None:
    request = request_of(abs, [1], grow=grow, region="us-east1")
    no_io: Any = None
    place = _Cluster(no_io, no_io, address)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert _specify(request, place, is_lazy=False).machines == wanted
    told = ["without effect: region='us-east1' "] * (wanted is None)
    assert [str(one.message)[:34] for one in warned] == told
