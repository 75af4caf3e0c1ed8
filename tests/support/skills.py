"""What the page for coding agents is made of."""

import shlex
from importlib.resources import files


def page() -> str:
    """Return it."""
    return files("burla.commands").joinpath("skill.md").read_text("utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """Return its blocks of a kind."""
    return [part.split("```")[0] for part in text.split(f"```{kind}\n")[1:]]


def commands_of(text: str) -> list[list[str]]:
    """Return the words of each command, without `burla`."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if line]
    assert all(words[0] == "burla" for words in split)
    return [[KEY if word == "KEY" else word for word in words[1:]] for words in split]


KEY = "3f" * 32


def lines_of(text: str, head: str) -> list[str]:
    """Return the rows of the table that has this head."""
    rows = text[text.index(head) :].split("\n\n")[0].splitlines()
    return rows[2:]
