"""How users name hosts, and what only this machine reaches. Pure."""

from collections.abc import Iterable

from .machines import BadConfig
from .steps import NAME

HERE = ("localhost", "127.0.0.1", "::1")  # this machine, to itself alone


def is_loopback(bind: str) -> bool:
    """Return whether only this machine can connect to what listens there."""
    host = bind.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return host in HERE or host.startswith("127.")


def split_target(target: str) -> tuple[str, str, int | None]:
    """Return user, host and port of `[USER@]HOST[:PORT]`; empty or None where it does not say.

    Raises:
        BadConfig: it is something else.
    """
    user, _, rest = target.rpartition("@")
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        colon, port = after[:1], after[1:]
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    if not host or host.startswith("-") or (colon and not (port.isdigit() and int(port) < 65536)):
        raise BadConfig(f"{target!r} is not a host: write [USER@]HOST[:PORT]")
    return user, host, int(port) if colon else None


def host_names(targets: Iterable[str]) -> dict[str, str]:
    """Return node names for SSH targets: the host's, with user and port where they tell apart.

    Raises:
        BadConfig: one of them is not a host.
    """
    names: dict[str, str] = {}
    for target in targets:
        user, host, port = split_target(target)
        words = [host.replace(":", "-").strip("-")]
        if not NAME.fullmatch(words[0]):
            raise BadConfig(f"{target!r} is not a host: write [USER@]HOST[:PORT]")
        for more in (port, user):
            if "-".join(words) in names and more:
                words.append(str(more))
        name = "-".join(words)
        while name in names:
            name += "-2"
        names[name] = target
    return names
