"""Each of our errors has a kind, an exit code and a remedy, in one table."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import burla.provisioning
from burla import errors
from burla.commands import failures
from burla.commands.admin import NoJob
from burla.commands.resume import NothingKept
from burla.provisioning.core.machines import ProvisioningError
from burla.system import exit_codes


def below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield a class and all that derive from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from below(derived)


def all_errors() -> list[type[BaseException]]:
    for found in pkgutil.walk_packages(burla.provisioning.__path__, "burla.provisioning."):
        importlib.import_module(found.name)
    kinds = (errors.BurlaError, ProvisioningError, NoJob, NothingKept)
    ours = [found for kind in kinds for found in below(kind)]
    return [kind for kind in ours if kind.__module__.startswith("burla.")]


def test_every_error_means_something_and_every_meaning_is_of_an_error() -> None:
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in all_errors()}
    assert set(failures.FAILURES) <= names  # none was renamed
    for kind in all_errors():
        assert failures.failure_of(kind.__new__(kind)) is not None, kind


def test_kinds_are_told_apart_and_have_a_remedy_and_a_code_that_help_explains() -> None:
    known = [*failures.FAILURES.values(), failures.USAGE, failures.INTERRUPTED, failures.INTERNAL]
    assert len({failure.kind for failure in known}) == len(known)
    for failure in known:
        assert failure.remedy
        assert failure.code in exit_codes.COMMANDS
        assert failure.kind.replace("_", "").isalpha()


def test_other_errors_are_not_ours() -> None:
    assert failures.failure_of(ValueError()) is None


@pytest.mark.parametrize("name", ["COMMANDS", "SCHEDULER", "NODELET"])
def test_each_program_explains_its_exit_codes(name: str) -> None:
    known = {value for key, value in vars(exit_codes).items() if key.startswith("EXIT_")}
    codes = getattr(exit_codes, name)
    assert set(codes) <= known
    assert list(codes) == sorted(codes)
    assert all(f"{code:3}  {what}" in exit_codes.described(codes) for code, what in codes.items())
