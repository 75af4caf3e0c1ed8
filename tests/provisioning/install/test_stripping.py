"""What only people read is left out of what nodes are sent, and nothing else."""

import ast
from pathlib import Path

import pytest

from burla.provisioning.install.stripping import stripped

ROOT = Path(__file__).parents[3]
SOURCES = [
    *(path for room in ("burla", "scheduler", "nodelet") for path in (ROOT / room).rglob("*.py"))
]


def bare(source: bytes) -> str:
    """Return what source does, and on which lines, without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = body[0] if body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del body[0]
        elif isinstance(body, list) and isinstance(node, ast.AsyncFunctionDef):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del body[0]
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return ast.dump(tree) + repr(lines)


def test_all_that_is_sent_does_the_same_on_the_same_lines() -> None:
    for path in SOURCES:
        whole = path.read_bytes()
        assert bare(stripped(whole)) == bare(whole), path


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('"""Doc."""\nx = 1  # why\n', "''\nx = 1\n"),
        (
            'def f():\n    """A\n    b.\n    """\n    return "#"\n',
            "def f():\n    '''\n\n'''\n    return \"#\"\n",
        ),
        ('x = """a\n# b\n"""\n# c\n', 'x = """a\n# b\n"""\n\n'),
        ('x = """a\n   \nb"""\n', 'x = """a\n   \nb"""\n'),
        ('x = "a\u2028\x85b"\n# c\ny = "\x0c"  # d\n', 'x = "a\u2028\x85b"\n\ny = "\x0c"\n'),
        ("#!/bin/python\n# a\n", "#!/bin/python\n\n"),
    ],
)
def test_comments_and_docstrings_go_and_lines_stay(source: str, left: str) -> None:
    assert stripped(source.encode()).decode() == left
