"""How what goes along with a function is sent."""

from hashlib import sha256
from pathlib import Path

import pytest
from packages import install

from burla.protocol import messages as m
from burla.protocol.messages import BLOBS_MAX
from burla.shipping import carried_packages
from burla.shipping.attachments import INLINE_BYTES_MAX, NAMED_MAX, PACKAGES_MAX, attach, join_small
from burla.shipping.distributions import Installed
from burla.values.parts import PARTS_MAX


def test_little_goes_with_the_job_and_more_as_blobs() -> None:
    little = attach([("own", b"a"), ("own/0", b"b")])
    assert little.inline == (("own", b"a"), ("own/0", b"b"))
    assert (little.blobs, little.contents) == ((), ())
    big = bytes(INLINE_BYTES_MAX)
    much = attach([("own", b"a"), ("own/0", big)])
    assert much.inline == ()
    assert much.contents == (b"a", big)
    assert much.blobs == (
        m.Blob(sha256(b"a").digest(), 1, m.BlobKind.NAMED, "own"),
        m.Blob(sha256(big).digest(), len(big), m.BlobKind.NAMED, "own/0"),
    )
    both = little.joined_with(much)
    assert (both.inline, both.blobs) == (little.inline, much.blobs)


def test_the_biggest_pieces_are_parts_of_their_own() -> None:
    places, parts = join_small([b"aa", b"b" * 10, b"", b"c"], alone_from=10)
    assert parts == [("0", b"aac"), ("1", b"b" * 10)]
    assert places == [(0, 0), (1, 0), (0, 2), (0, 2)]
    places, parts = join_small([bytes(100)] * 100, alone_from=10)
    assert len(parts) == NAMED_MAX - 1
    assert len(parts[0][1]) == 100 * (100 - NAMED_MAX + 2)
    assert len(set(places)) == 100


def test_all_kinds_together_are_no_more_blobs_than_a_job_may_have() -> None:
    assert PARTS_MAX + 2 * NAMED_MAX + PACKAGES_MAX <= BLOBS_MAX


def test_no_more_packages_are_parts_of_their_own_than_there_may_be_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(carried_packages, "ALONE_BYTES_MIN", 1)
    names = [f"tiny-{number}" for number in range(PACKAGES_MAX + 5)]
    for name in names:
        install(tmp_path, name, "1", {f"{name.replace('-', '_')}.py": ""})
    installed = Installed([str(tmp_path)])
    packed = carried_packages._pack([installed.by_name[name] for name in names])
    assert len(packed) == PACKAGES_MAX
