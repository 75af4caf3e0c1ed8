"""Source without its comments and docstrings, for where every byte counts: each line stays a line.

So tracebacks of it name the same lines as those of the whole source do.
"""

import io
import tokenize

# What a statement begins after; between them lie comments and empty lines.
_BEFORE = (tokenize.ENCODING, tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
_IDLE = (tokenize.COMMENT, tokenize.NL)


def stripped(source: bytes) -> bytes:
    """Return Python source that does the same, without what only people read."""
    tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
    lines = source.decode("utf-8-sig").split("\n")  # as `tokenize` counts them
    before = tokenize.ENCODING
    for at, token in enumerate(tokens):
        is_statement = before in _BEFORE and tokens[min(at + 1, len(tokens) - 1)].type in (
            tokenize.NEWLINE,
            tokenize.COMMENT,
        )
        if token.type == tokenize.STRING and is_statement:
            _cut(lines, token, "''")
        elif token.type == tokenize.COMMENT and not token.string.startswith("#!"):
            _cut(lines, token, "")
        if token.type not in _IDLE:
            before = token.type
    return "\n".join(lines).encode()


def _cut(lines: list[str], token: tokenize.TokenInfo, instead: str) -> None:
    """Put something in the place of a token, and empty lines for all of its lines but the last."""
    (first, start), (last, stop) = token.start, token.end
    if first == last:
        line = lines[first - 1]
        # the positions of what stands before it on this line have not changed: it is cut backwards
        lines[first - 1] = line[:start] + instead + line[start + len(token.string) :]
        if not instead:
            lines[first - 1] = line[:start].rstrip()
        return
    rest = lines[last - 1][stop:]
    lines[first - 1] = lines[first - 1][:start] + "'''"
    for at in range(first, last - 1):
        lines[at] = ""
    lines[last - 1] = "'''" + rest
