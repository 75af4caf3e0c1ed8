"""Words of others as people may see them: nothing in them moves a cursor or begins a line. Pure.

Every text of a message is made so where it is decoded (codec.py): whatever a peer calls itself, no
control character of it reaches a terminal, a log or an error text of somebody else. Letters of all
scripts stay, and what joins them.
"""

import re

# C0, DEL and C1; marks that change the direction of text, overrides and isolates; separators of
# lines; what annotates; surrogates, which cannot be written anywhere.
_CONTROL = "\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"
_CONTROL += "\ud800-\udfff\U000e0001"
_IN_A_LINE = re.compile(f"[{_CONTROL}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_CONTROL}]")


def printable(text: str, *, lines: bool = False) -> str:
    """Return the text with "?" for each control character; `lines`: it may have several."""
    if text.isprintable():  # as nearly all are: 50 ns
        return text
    return (_IN_LINES if lines else _IN_A_LINE).sub("?", text)
