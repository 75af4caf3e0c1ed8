"""A job whose node cannot have a package is opened anew with files of it, or fails."""

from typing import Any

from msgspec.structs import replace
from opening import open_job

from burla.core.commands import AddBatch, Reopen
from burla.core.effects import Effect, Fail, Lacking, Send
from burla.core.session import Session
from burla.protocol import messages as m

JOB, TOPIC = b"j" * 16, b"t" * 16
SPEC = open_job(JOB, TOPIC, packages=b"packed")
FAILED = m.JobFailed(JOB, "", "no six", packages=("six",))
OTHER = replace(SPEC, packages=b"")
REOPEN = Reopen(JOB, OTHER, {b"D" * 32: memoryview(b"files")}, frozenset(["six"]))


def begin(*, has_packages: bool = True) -> tuple[Session, list[Any]]:
    session = Session(SPEC, [b"function"], True)
    said = sent(session.connect(0, has_packages=has_packages))
    batch = AddBatch(JOB, [(2, [b"xx"])], 2, 0)
    return session, said + sent(session.handle(batch, 0))


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def test_a_scheduler_that_does_not_know_packages_is_not_told_of_any() -> None:
    (_, said), (_, untold) = begin(), begin(has_packages=False)
    assert (said[0].packages, untold[0].packages) == (b"packed", b"")


def test_it_is_opened_anew_with_all_its_inputs() -> None:
    session, said = begin()
    assert session.receive(FAILED, [], 1) == [Lacking(JOB, ("six",), "no six")]
    assert session.receive(FAILED, [], 1) == []  # it is being seen to
    again = sent(session.handle(REOPEN, 2))
    assert again == [m.CloseJob(JOB), OTHER, said[1], m.InputsEnd(JOB, 2)]
    assert not again[1].resumed
    wanted = m.BlobWanted(JOB, b"D" * 32, 0, 5)
    assert session.send_wanted(wanted) == [Send(m.BlobPiece(JOB, b"D" * 32, 0), [b"files"])]


def test_it_fails_if_it_is_lacking_with_the_files_as_well() -> None:
    session, _ = begin()
    session.receive(FAILED, [], 1)
    session.handle(REOPEN, 2)
    assert session.receive(FAILED, [], 3) == [Fail(JOB, "", "no six")]
    assert session.over


def test_it_is_opened_anew_once_the_connection_is_back() -> None:
    session, said = begin()
    session.receive(FAILED, [], 1)
    session.disconnect()
    assert session.handle(REOPEN, 2) == []
    again = sent(session.connect(3, has_packages=True))
    assert again[:3] == [m.CloseJob(JOB), OTHER, said[1]]
    session.disconnect()
    assert sent(session.connect(4, has_packages=True))[0].resumed
