"""Where a scheduler listens and is reached, and how users name hosts."""

from collections.abc import Iterable

from burla.wire.addresses import AddressError, bind_address, full_address, take_apart

from .machines import BadConfig
from .steps import NAME

HERE = ("localhost", "127.0.0.1", "::1")  # this machine, to itself alone


def bind_of(wanted: str, before: str) -> str:
    """Return where to listen so that nodes which are still there find the scheduler again.

    Args:
        wanted: what the user set; a tcp port 0 is any.
        before: the address that was announced; empty: none.

    Raises:
        BadConfig: `wanted` is nothing that one could listen on.
    """
    try:
        bind = bind_address(wanted)
    except AddressError as error:
        raise BadConfig(f"bind: {error}") from None
    if bind.startswith("tcp:") and bind.endswith(":0") and before.startswith("burla:"):
        return bind.removesuffix("0") + take_apart(before).endpoint.rpartition(":")[2]
    return bind


def reached_at(wanted: str, said: str) -> str:
    """Return the address of a scheduler, as nodes and clients reach it.

    Args:
        wanted: what the user set, a whole address or tcp://HOST:PORT; empty: as it says itself.
        said: by the scheduler that was started; empty: it runs elsewhere.

    Raises:
        BadConfig: `wanted` is no address.
    """
    try:
        key = take_apart(said).key if said else None
        if wanted.startswith("tcp:") and key is not None:
            return full_address(wanted, key)
        if wanted:
            take_apart(wanted)  # complains
        return wanted or said
    except AddressError as error:
        raise BadConfig(f"scheduler: {error}") from None


def is_loopback(bind: str) -> bool:
    """Return whether only this machine can connect to what listens there."""
    host = bind.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return host in HERE or host.startswith("127.")


def split_target(target: str) -> tuple[str, str, int | None]:
    """Return user, host and port of `[USER@]HOST[:PORT]`; empty or None where it does not say.

    Raises:
        BadConfig: it is no such thing.
    """
    user, _, rest = target.rpartition("@")
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        colon, port = after[:1], after[1:]
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    if not host or host.startswith("-") or (colon and not (port.isdigit() and int(port) < 65536)):
        raise BadConfig(f"{target!r} is no host: say [USER@]HOST[:PORT]")
    return user, host, int(port) if colon else None


def host_names(targets: Iterable[str]) -> dict[str, str]:
    """Return node names for SSH targets: the host's, with user and port where they tell apart.

    Raises:
        BadConfig: one of them is no host.
    """
    names: dict[str, str] = {}
    for target in targets:
        user, host, port = split_target(target)
        words = [host.replace(":", "-").strip("-")]
        if not NAME.fullmatch(words[0]):
            raise BadConfig(f"{target!r} is no host: say [USER@]HOST[:PORT]")
        for more in (port, user):
            if "-".join(words) in names and more:
                words.append(str(more))
        name = "-".join(words)
        while name in names:
            name += "-2"
        names[name] = target
    return names
