"""A cloudpickle that lacks a part is an error that says what to install."""

import pytest

from burla.values import cloudpickle_parts as parts


def test_a_part_that_is_gone_is_named_with_the_remedy() -> None:
    with pytest.raises(ImportError, match=r"cloudpickle 3\..* no '_gone'.*cloudpickle>=3\.1,<3\.2"):
        parts._part("_gone")
    with pytest.raises(ImportError, match="_gone_too"):
        parts._part("_gone_too", parts.Pickler)
