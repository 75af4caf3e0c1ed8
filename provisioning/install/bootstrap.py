"""Carries out the steps of steps.py over a Transport: a machine becomes a node, or stops being one.

Everything that is done on the machine is in bootstrap.sh, which travels with each command on its
stdin: nothing of it need be there before.
"""

import hashlib
import io
import tarfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from burla.protocol.printable import printable
from burla.provisioning.core import facts as f, steps as s
from burla.provisioning.core.machines import (
    JoinToken,
    ProvisioningError,
    Report,
    StepFailed,
    Transport,
    tail,
)
from burla.provisioning.core.steps import Step, Wanted

SCRIPT = Path(__file__).with_name("bootstrap.sh")
ROUNDS = 2  # the steps may show that the facts were old: looked at once more, then given up


@dataclass
class Timing:
    """Which phases a machine went through, and how long each took in seconds."""

    phases: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Add to a phase."""
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds


@cache
def script() -> bytes:
    """Return bootstrap.sh."""
    return SCRIPT.read_bytes()


def script_digest() -> str:
    """Return what tells this bootstrap.sh from another one."""
    return hashlib.sha256(script()).hexdigest()


def bring_up(
    transport: Transport,
    wanted: Wanted,
    wheels: Mapping[str, Path],
    join_token: JoinToken,
    report: Report,
    turn: AbstractContextManager[object] | None = None,
) -> Timing:
    """Make a machine the node that is wanted; do nothing that is done already.

    Args:
        transport: to the machine.
        wanted: what it is to become.
        wheels: where on this side the files are that are shipped.
        join_token: asked for a token for each start of a service.
        report: is told each phase that begins.
        turn: is held from when a node is drained until it serves again; None: nobody else waits.

    Raises:
        ProvisioningError: it is not a node; what was done stays, and another run continues there.
    """
    timing, digests = Timing(), {**wanted.wheels, **wanted.package_wheels}
    for _ in range(ROUNDS):
        todo = s.steps(_probe(transport, wanted, report, timing), wanted)
        if not todo:
            break
        with ExitStack() as held:
            for step in todo:
                if step.name == "drain" and turn is not None:
                    report("waiting for its turn")
                    held.enter_context(turn)
                stdin = _tar(step.files, wheels, digests) if step.files else step.stdin
                if step.takes_token:
                    stdin = join_token(wanted.name) or b""
                _carry_out(transport, step, stdin, report, timing)
    else:
        left = s.steps(_probe(transport, wanted, report, timing), wanted)
        if left:
            names = ", ".join(step.name for step in left)
            raise StepFailed(f"every step succeeded, but these are still missing: {names}")
    return timing


def look(transport: Transport, wanted: Wanted) -> f.Facts:
    """Return the facts about a machine."""
    return _probe(transport, wanted, lambda phase: None, Timing())


def take_down(transport: Transport, wanted: Wanted, report: Report) -> None:
    """Leave the machine as it was before it became a node; calls that run are cut off."""
    _carry_out(transport, s.undo(wanted), b"", report, Timing())


def drain(transport: Transport, wanted: Wanted, report: Report, wait_s: float) -> None:
    """Let the node finish what runs, and end; its installation stays."""
    _carry_out(transport, s.drain(wanted, wait_s), b"", report, Timing())


def _probe(transport: Transport, wanted: Wanted, report: Report, timing: Timing) -> f.Facts:
    return f.parse(_carry_out(transport, s.probe(wanted), b"", report, timing))


def _carry_out(
    transport: Transport, step: Step, stdin: bytes, report: Report, timing: Timing
) -> str:
    report(step.phase)
    began_s = time.monotonic()
    command = command_line(step)
    try:
        done = transport.run(command, script() + stdin, timeout_s=step.timeout_s)
    except ProvisioningError as error:
        raise type(error)(f"{step.phase}: {error}") from error
    timing.add(step.phase, time.monotonic() - began_s)
    if done.status != 0:
        raise StepFailed(f"{step.phase}: {tail(done.output) or f'exit status {done.status}'}")
    return printable(done.output, lines=True)  # what is in it may be shown


def command_line(step: Step) -> str:
    """Return the command that reads bootstrap.sh from its stdin and calls one function of it.

    `head -c` takes no byte more than it is told to; what follows on stdin is the function's.
    """
    read = f'BURLA_SCRIPT=$(head -c {len(script())}); eval "$BURLA_SCRIPT"'
    return f"exec sh -c '{read}' burla {step.name} {step.arguments}"


def _tar(names: tuple[str, ...], wheels: Mapping[str, Path], digests: Mapping[str, str]) -> bytes:
    """Return a tar of wheels, with their checksums in front."""
    sums = "".join(f"{digests[name]}  {name}\n" for name in names).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in [("SHA256SUMS", sums), *((n, wheels[n].read_bytes()) for n in names)]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
