"""Copies of burla with a fault put in on purpose: whoever tests for it must see it."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("scheduler", "nodelet", "provisioning")  # linked inside burla/

Change = tuple[str, str, str]  # file, what stands there once, what stands there in the copy


def broken_copy(directory: Path, *changes: Change) -> Path:
    """Return a directory for PYTHONPATH that has burla with these changes."""
    tree = directory / "broken"
    ignore = shutil.ignore_patterns("__pycache__", *ROOMS)
    shutil.copytree(ROOT / "burla", tree / "burla", ignore=ignore)
    for room in ROOMS:
        source = ROOT / room
        shutil.copytree(source, tree / "burla" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in changes:
        path = tree / "burla" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        path.write_text(text.replace(old, new))
    return tree


def environment(tree: Path | None) -> dict[str, str]:
    """Return the environment of a program that runs from such a copy; None: from ours."""
    return dict(os.environ) if tree is None else os.environ | {"PYTHONPATH": str(tree)}
