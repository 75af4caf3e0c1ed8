"""Container images that jobs name: the calls find the files of one, and run in its Python. Pure.

`OpenJob.image` and `StartLease.image` are its name, as container runtimes take it. A node that can
has it fetched before the lease begins, and says how far it is (`Preparing`), or why it cannot be
had (`LeaseRefused`).
"""

import re
from typing import Annotated

from msgspec import Meta

IMAGES = "images"  # a feature: a scheduler that says so knows all this, a node can run them
IMAGE_CHARACTERS_MAX = 512
# Nothing that a runtime could take for an option; `checked_image` says more.
ImageName = Annotated[
    str, Meta(max_length=IMAGE_CHARACTERS_MAX, pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._:/@-]*)?\Z")
]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?:\.{_LABEL})*:[0-9]+|localhost)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = (
    rf"(?:(?P<registry>{_REGISTRY})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def checked_image(name: str) -> str:
    """Return the name of an image.

    Raises:
        ValueError: it is none.
    """
    if len(name) > IMAGE_CHARACTERS_MAX or not re.fullmatch(_REFERENCE, name):
        raise ValueError("no name of an image, as python:3.12-slim or registry.org/team/science:3")
    return name


def with_registry(name: str) -> str:
    """Return the name with its registry: as for docker, one without is of Docker Hub."""
    found = re.fullmatch(_REFERENCE, name)
    if found is None or found["registry"] is not None:
        return name
    return f"docker.io/{name}" if "/" in found["path"] else f"docker.io/library/{name}"


def is_local(name: str) -> bool:
    """Return whether an image can only have been made where it is."""
    return name.startswith("localhost/")


def may_change(name: str) -> bool:
    """Return whether its registry is asked each time: as elsewhere, if it is the latest one."""
    found = re.fullmatch(_REFERENCE, name)
    is_latest = found is not None and found["tag"] in (None, "latest") and not found["digest"]
    return is_latest and not is_local(name)
