"""The documentation says what is: examples print what they should, links lead somewhere."""

import inspect
import os
import re
from pathlib import Path

import pytest
from scripts import succeed

from burla import remote_parallel_map

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
PRINTED = {  # by page, what each block prints, in any order
    "README.md": [
        [
            *(f"Running remote computer #{number} in the cloud!" for number in (1, 2, 3, 4)),
            "return values: [2, 4, 6, 8]",
        ],
        ["0 4.0", "1 5.0", "2 math domain error"],
    ],
    "docs/start.md": [
        ["1000 168", "2000 303", "3000 430", "4000 550"],
        [
            "7 is odd - input 2",
            "[1, 2, ValueError('7 is odd')]",
        ],
        ["1000 -> 168", "2000 -> 303", "3000 -> 430", "4000 -> 550"],
    ],
    "docs/calling.md": [
        ["[1, 4, 9]", "[8, 27]", "[1024, 1]"],
        ["0 A", "1 B", "2 C"],
        ["0.5", "ZeroDivisionError('division by zero')"],
        ["[4, 5]"],
        ["328350"],
        ["['fast']"],
        ["[3]"],
    ],
    "docs/coming-from.md": [
        [],
        ["[1, 4, 9]", "[2, 12]", "[1, 4, 9]", "['one', 'two']"],
        ["[3, 8]", "[6, 20]", "True"],
        ["[2, 4, 6]"],
        ["[45, 4950]"],
        ["[1, 4, 9]"],
        ["[1, ValueError(-1)]"],
    ],
    "docs/interfaces.md": [
        ["5 120", "10 3628800", "20 2432902008176640000", "[0, 1, 4, 9, 16]"],
        ["[1, 2, 4, 8]"],
        ["[0, 1, 4, 9, 16]", "49", "100"],
        ["[1, 2, 3]", "[2, 12]", "[1, 2]", "30"],
        ["[1, 2, 4, 8]"],
    ],
}
# tests/end_to_end/test_jobs.py, test_detached.py and tests/provisioning/test_providers.py run these
ELSEWHERE = {"docs/jobs.md", "docs/detached.md", "docs/providers.md"}


WORDS_MIN = 3  # characters: a shorter word is everywhere


def blocks(page: str) -> list[str]:
    """Return the Python of a page."""
    text = (ROOT / page).read_text("utf-8")
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as forges do."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text("utf-8"))
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for words in headings}


def test_each_block_is_known() -> None:
    found = {page: len(blocks(page)) for page in PAGES if blocks(page) and page not in ELSEWHERE}
    assert found == {page: len(printed) for page, printed in PRINTED.items()}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_readme_leads_to_every_page_and_stays_short() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 110
    assert [page for page in PAGES if page.startswith("docs/") and f"({page})" not in readme] == []


def test_every_argument_is_described() -> None:
    calling = (ROOT / "docs/calling.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)*) \|", calling.split("## ")[0])
    named = re.findall(r"\w+", " ".join(rows))
    assert sorted(named) == sorted(inspect.signature(remote_parallel_map).parameters)


def test_errors_are_described_in_their_own_words() -> None:
    """The headings of troubleshooting.md are texts of the code; `...` is what differs."""
    sources = "".join(
        path.read_text("utf-8")
        for folder in ("burla", "scheduler", "nodelet", "provisioning")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    joined = re.sub(r'"\s*f?"', "", sources)  # texts of several lines
    headings = re.findall(
        r"(?m)^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    )
    assert len(headings) >= 25
    words = {text: text.replace("...", "\n").split("\n") for text in headings}
    assert [text for text in headings if not all(is_said(x, joined) for x in words[text])] == []


def is_said(words: str, source: str, parts: int = 3) -> bool:
    """Return whether words are a text of the source, or put together from so many of them."""
    words = words.strip(" :,;().")
    if len(words) < WORDS_MIN or words in source:
        return True
    cuts = (at for at, character in enumerate(words) if character == " " and parts > 1)
    return any(words[:at] in source and is_said(words[at:], source, parts - 1) for at in cuts)


@pytest.mark.slow
@pytest.mark.parametrize("page", PRINTED)
def test_the_blocks_of_a_page_do_what_it_says(page: str, tmp_path: Path) -> None:
    joined, expected = [], []
    for number, (block, printed) in enumerate(zip(blocks(page), PRINTED[page], strict=True)):
        joined.append(f"print('block', {number})\n{block}")  # one process: one private cluster
        expected.append([f"block {number}", *printed])
    source = "\n".join(joined)
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    lines = succeed(source, tmp_path, private=True, cwd=tmp_path, env=env).splitlines()
    assert sorted(lines) == sorted(line for printed in expected for line in printed)
