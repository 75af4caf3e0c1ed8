"""What the results of a job depend on, as digests: by these they are kept and found again."""

from hashlib import blake2b, file_digest
from typing import Any

from burla.arguments import name_of
from burla.shipping.modules import new_sent, own_sources
from burla.starting import Request
from burla.values.contents import DIGEST_BYTES, FunctionContents, digest_of_source
from burla.values.pickling import Sent


def parts_of(request: Request, sent: Sent) -> dict[str, bytes]:
    """Return what the results depend on beside the inputs, as digests."""
    try:
        contents = FunctionContents(request.function, sent.by_value)
    except Exception as error:
        raise TypeError(
            f"function_ {name_of(request.function)!r} cannot be told from others by its content, as"
            f" resume needs: {error}"
        ) from error
    parts = dict(contents.parts)
    for name, data in own_sources(request.function, sent, contents.modules).items():
        parts[f"module {name}"] = digest_of_source(data)
    for shipped in request.shipped:
        if not shipped.name.endswith("/"):
            with open(shipped.path, "rb") as file:
                parts[f"file {shipped.name}"] = file_digest(file, _new_hash).digest()
    return parts


def _new_hash() -> Any:
    return blake2b(digest_size=DIGEST_BYTES)


def content_of_module(name: str) -> bytes:
    """Return what an own module is, with those that it imports; empty: it is not ours."""
    found = own_sources(None, new_sent(), (name,))
    return b"".join(one.encode() + digest_of_source(data) for one, data in sorted(found.items()))
