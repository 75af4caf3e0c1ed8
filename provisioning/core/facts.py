"""What a machine says about itself: the parsing of what `bootstrap.sh facts` printed. Pure."""

from dataclasses import dataclass, field

from .machines import ProvisioningError, tail

FIRST, LAST = "burla-facts 1", "burla-facts end"


class FactsError(ProvisioningError):
    """A machine answered something else: no POSIX shell, or its output was cut off."""


@dataclass(frozen=True)
class Facts:
    """One machine, as it is now. Empty words: not there."""

    python: str = ""  # path of one of the wanted minor that can make environments
    without_venv: str = ""  # path of one that cannot: a package is missing
    others: str = ""  # Pythons of other minors: "3.9 at /usr/bin/python3, ..."
    free_kb: int = 0  # where the installation is or will be
    venv: str = ""  # minor of the complete environment
    installed: str = ""  # stamp of what is installed in it
    packages: str = ""  # stamp of what it is given for all jobs
    settings: str = ""  # stamp of how the service is set up
    version: str = ""  # of burla, as the environment's Python says
    running: str = ""  # stamps of what runs
    ready_s: int | None = None  # how long ago the scheduler was last heard; None: never
    wheels: dict[str, str] = field(default_factory=dict)  # file name -> sha256
    there: bool = False  # there is an installation, or a part of one


def parse(output: str) -> Facts:
    """Return the facts in what the probe printed; what a login prints around them is passed over.

    Raises:
        FactsError: it is not all there.
    """
    lines = [line.rstrip("\r") for line in output.splitlines()]
    if FIRST not in lines or LAST not in lines:
        said = tail(output) or "nothing"
        raise FactsError(f"unexpected answer from the machine (is its shell POSIX?): {said}")
    words: dict[str, str] = {}
    wheels: dict[str, str] = {}
    for line in lines[lines.index(FIRST) + 1 : lines.index(LAST)]:
        key, _, value = line.partition(" ")
        if key == "wheel":
            digest, _, name = value.partition(" ")
            wheels[name] = digest
        else:
            words[key] = value
    ready, free = words.get("ready_s"), words.get("free_kb", "")
    if not free.isdigit():
        raise FactsError(f"the machine did not say how much disk space is free: {free!r}")
    return Facts(
        python=words.get("python", ""),
        without_venv=words.get("without-venv", ""),
        others=words.get("others", ""),
        free_kb=int(free),
        venv=words.get("venv", ""),
        installed=words.get("installed", ""),
        packages=words.get("packages", ""),
        settings=words.get("settings", ""),
        version=words.get("version", ""),
        running=words.get("running", ""),
        ready_s=int(ready) if ready is not None and ready.lstrip("-").isdigit() else None,
        wheels=wheels,
        there=words.get("there") == "yes",
    )
