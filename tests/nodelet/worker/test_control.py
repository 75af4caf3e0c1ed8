"""The words between agent, zygotes and supervisor."""

from typing import get_args

import msgpack
import pytest

from burla.nodelet.worker import control as c

WORDS: list[c.Word] = [
    c.Ready(),
    c.Fork(3),
    c.Fork(3, 0),
    c.Adopt(77),
    c.Signal(77, 23),
    c.Kill(77),
    c.Share("/mnt/data"),
    c.EndLease([1, 2, 3]),
    c.EndLease([1, 2, 3], 2),
    c.Forked(3, 77),
    c.NotForked(3, 11),
    c.Died(77, "signal", 9),
    c.Ended(),
    c.Tried("namespaces", "uid: no right to it"),
    c.Confine("85a3"),
    c.OpenSandbox(5),
    c.OpenSandbox(5, "/images/x", ["/packages"]),
    c.Unusable("it is built on musl"),
    c.Opened(5, 99),
    c.Failed(5, "no user id is free"),
    c.Gone(5, 1),
    c.LoadSettings(True, b"env", {"BURLA_NODE": "n"}, 2, "n"),
    c.Modules(["numpy", "numpy.linalg"]),
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_comes_out_as_it_went_in(word: c.Word) -> None:
    got = c.decode(c.encode(word))
    assert (type(got), got) == (type(word), word)
    assert len(c.encode(word)) < c.BYTES_MAX


def test_every_word_is_known() -> None:
    assert {type(word) for word in WORDS} == set(get_args(c.Word))


@pytest.mark.parametrize("junk", [["fork", 3], ["Fork"], ["Fork", 1, 2, 3], ["Word"]])
def test_what_is_no_word_is_refused(junk: list[object]) -> None:
    with pytest.raises(ValueError, match="not a word"):
        c.decode(msgpack.packb(junk))
