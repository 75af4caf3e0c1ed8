"""Arguments of the original Burla: taken, refused or said to be without effect."""

import pytest

from burla import remote_parallel_map as rpm
from burla.calling import request_of
from burla.original import plain_limits


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


def test_an_image_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"image='python:3.12'.*not in containers.*packages="):
        rpm(abs, [1], image="python:3.12")  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["region", "disk_gb"])
def test_what_is_without_effect_is_said(name: str) -> None:
    said: dict[str, object] = {name: "here" if name == "region" else 50}
    with pytest.warns(UserWarning, match=f"{name}=.* has no effect on a call"):
        request_of(abs, [1], **said)  # type: ignore[arg-type]
