"""Packages of a job: what its function needs of installed distributions, and how a node gets it.

`OpenJob` and `StartLease` carry `Packages`, packed: only the node opens it, and only if it is not
what the last lease had. A node that lacks some installs them before the lease begins, and says how
far it is. What it cannot have it names in `LeaseRefused`: the client may have files of it. Pure.
"""

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .fields import Id, Line, Message

PACKAGES = "packages"  # a feature: who says so knows all this
# The blob that lists packages that travel as files, and behind a slash their parts.
PACKAGE_FILES = "packages"
PACKAGES_BYTES_MAX = 256 << 10  # a list with the hashes of all wheels of 50 packages
HASH_OPTION = " --hash="
LACKING_MAX = 1000  # packages told of that a node cannot have

PackedPackages = Annotated[bytes, Meta(max_length=PACKAGES_BYTES_MAX)]
PackageName = Annotated[str, Meta(max_length=256)]
Lacking = Annotated[tuple[PackageName, ...], Meta(max_length=LACKING_MAX)]

# Of PEP 508 what an index alone can give: no address, no path, and nothing that an installer could
# take for an option, or for a variable of its environment.
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>) *[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r" *(?P<extras>\[[A-Za-z0-9._, -]*\])?"
    rf" *\(? *(?P<version>(?:{_VERSION}(?: *, *{_VERSION})*)?) *\)?"
    r" *(?P<marker>;[A-Za-z0-9_.,<>=!~'\"() +*-]*)?"
)
_OPTION = re.compile(r"\s-")  # what an installer would take for one
_HASHES = re.compile(r"(?: --hash=sha(?:256|384|512):[0-9a-f]{64,128})+")
_EXACT = re.compile(r"== *([A-Za-z0-9.!+_-]+)")


class Packages(Struct, frozen=True, array_like=True):
    """What a function needs, by name and version."""

    requirements: tuple[str, ...]  # of one line each, perhaps with hashes; see `checked`
    is_whole: bool = True  # these are all: what they require themselves is among them


class Preparing(Message, frozen=True):
    """nodelet -> scheduler: what this node installs before the lease begins, when that changes."""

    lease: Id
    text: Line  # for people; empty: it is done


def are_files(name: str) -> bool:
    """Return whether a blob of a job, by its name, is of packages that travel as files."""
    return name == PACKAGE_FILES or name.startswith(f"{PACKAGE_FILES}/")


def pack(packages: Packages) -> bytes:
    """Return what travels; equal ones are equal as bytes."""
    return msgspec.msgpack.encode(packages)


def unpack(packed: bytes) -> Packages:
    """Return what was packed.

    Raises:
        ValueError: it is none, or asks for what no index has.
    """
    try:
        packages = msgspec.msgpack.decode(packed, type=Packages)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a list of packages: {error}") from None
    for requirement in packages.requirements:
        checked(requirement)
    return packages


def checked(requirement: str) -> str:
    """Return a requirement that an index can give by name and version.

    Raises:
        ValueError: it is none.
    """
    bare, hashes = split_hashes(requirement)
    is_plain = bare.isprintable() and not _OPTION.search(bare)
    if not is_plain or not _REQUIREMENT.fullmatch(bare):
        raise ValueError(
            f"{requirement!r} is no name of a package with versions, as pandas>=2: addresses, paths"
            " and options are not for nodes to follow"
        )
    if hashes and not _HASHES.fullmatch(hashes):
        raise ValueError(f"{requirement!r}: a hash is written --hash=sha256: and 64 hex digits")
    return requirement


def split_hashes(requirement: str) -> tuple[str, str]:
    """Return a requirement without the hashes that its files may have, and those, as options."""
    bare, option, hashes = requirement.partition(HASH_OPTION)
    return bare, option + hashes


def canonical(name: str) -> str:
    """Return a name of a package as all its spellings become."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """Return which package a requirement names."""
    match = _REQUIREMENT.fullmatch(split_hashes(requirement)[0])
    return canonical(match["name"]) if match is not None else ""


def exact_version(requirement: str) -> str:
    """Return the one version that a requirement takes anywhere; empty: there may be others."""
    match = _REQUIREMENT.fullmatch(split_hashes(requirement)[0])
    if match is None or match["marker"] or match["extras"]:
        return ""
    exact = _EXACT.fullmatch(match["version"])
    return "" if exact is None else exact[1]
