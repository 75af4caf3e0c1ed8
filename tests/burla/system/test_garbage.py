"""A moment without looks for garbage."""

import gc

import pytest

from burla.system.garbage import NoCollections


@pytest.mark.parametrize("is_usual", [True, False])
def test_inside_nobody_looks_and_behind_it_is_as_before(is_usual: bool) -> None:
    try:
        if not is_usual:
            gc.disable()
        with NoCollections():
            assert not gc.isenabled()
        assert gc.isenabled() == is_usual
    finally:
        gc.enable()
