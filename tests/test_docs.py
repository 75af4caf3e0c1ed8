"""The examples in the documentation run as they stand, and print what they should."""

from pathlib import Path

import pytest
from scripts import succeed

ROOT = Path(__file__).parents[1]
PRINTED = {  # by page, what each block prints, in any order
    "interfaces.md": [
        ["5 120", "10 3628800", "20 2432902008176640000", "[0, 1, 4, 9, 16]"],
        ["[1, 2, 4, 8]"],
        ["[0, 1, 4, 9, 16]", "49", "100"],
        ["[1, 2, 3]", "[2, 12]", "[1, 2]", "30"],
        ["[1, 2, 4, 8]"],
    ],
}


def blocks(page: str) -> list[str]:
    """Return the Python of a page."""
    text = (ROOT / "docs" / page).read_text()
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def test_each_block_is_known() -> None:
    assert {page: len(blocks(page)) for page in PRINTED} == {
        page: len(printed) for page, printed in PRINTED.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", PRINTED)
def test_the_blocks_of_a_page_do_what_it_says(page: str, tmp_path: Path) -> None:
    joined, expected = [], []
    for number, (block, printed) in enumerate(zip(blocks(page), PRINTED[page], strict=True)):
        joined.append(f"print('block', {number})\n{block}")  # one process: one private cluster
        expected.append([f"block {number}", *printed])
    lines = succeed("\n".join(joined), tmp_path, private=True).splitlines()
    assert sorted(lines) == sorted(line for printed in expected for line in printed)
