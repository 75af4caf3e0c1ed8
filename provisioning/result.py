"""How it went with one member of a cluster."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """How it went with one member, or how it is."""

    name: str
    phase: str  # "ready", "removed", ...; the one that failed if `why` says so
    why: str = ""  # empty: it went well
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)  # seconds
