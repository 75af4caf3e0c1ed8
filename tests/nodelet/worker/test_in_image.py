"""What is said of images whose Python cannot be used."""

import re

import pytest

from burla.nodelet.worker.in_image import KIND, MINOR, _objection

OWN = f"{MINOR} {KIND}"


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (f"{OWN}\n", 0, ""),
        (f"{OWN}\nwarning: x\n", 0, ""),
        ("3.9 .cpython-39-x86_64-linux-gnu.so\n", 0, rf"its Python is 3.9, and yours is {MINOR}"),
        ("2.7 Traceback ...\nImportError: _imp\n", 1, "its Python is 2.7"),
        (f"{MINOR} .cpython-x86_64-linux-musl.so\n", 1, "built on musl, as Alpine is"),
        (f"{MINOR} .cpython-t-x.so\n", 0, "is built for cpython-t-x, that of the nodes for"),
        (
            f"{OWN}\n...\nImportError: GLIBC_2.99\n",
            1,
            r"cannot load .* \(ImportError: GLIBC_2.99\)",
        ),
        (f"{OWN}\n", -11, "exit code -11"),
        ("\nno Python is on its PATH", 1, "no Python that runs here .no Python is on its PATH"),
        ("", 1, "exit code 1"),
        ("error while loading libpython\n", 127, "error while loading libpython"),
    ],
)
def test_why_a_python_cannot_be_used(said: str, code: int, words: str) -> None:
    why = _objection(said, code)
    assert bool(why) == bool(words)
    assert re.search(words, why), why
