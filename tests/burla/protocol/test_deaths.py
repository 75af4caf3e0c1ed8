import msgspec
import pytest

from burla.protocol.deaths import (
    LAST_WORDS_BYTES_MAX,
    Death,
    OutOfMemoryFigures,
    decode_death,
)


@pytest.mark.parametrize(
    "death",
    [
        Death("exit", 3, 3),
        Death("signal", 9, 1, OutOfMemoryFigures(1, 2, 3, 4)),
        Death("signal", 11, 3, last_words="§" * (LAST_WORDS_BYTES_MAX // 2)),
    ],
)
def test_a_death_comes_out_as_it_went_in(death: Death) -> None:
    assert decode_death(death.encode()) == death


def test_what_is_no_death_is_refused() -> None:
    for frame in (b"", b"\xc0", msgspec.msgpack.encode(["exit", 1])):
        with pytest.raises(msgspec.DecodeError):
            decode_death(frame)
