"""Copies of burla with a fault put in on purpose: whoever tests for it must see it."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("scheduler", "nodelet", "provisioning")  # linked inside burla/
HALF_WRITTEN = ("*.pyc.*",)  # bytecode that a process is just writing: it is renamed then

Change = tuple[str, str, str]  # file, what stands there once, what stands there in the copy


def broken_copy(directory: Path, *changes: Change) -> Path:
    """Return a directory for PYTHONPATH that has burla with these changes.

    What is compiled comes along, but for what is changed.
    """
    tree = directory / "broken"
    ignore = shutil.ignore_patterns(*HALF_WRITTEN, *ROOMS)
    shutil.copytree(ROOT / "burla", tree / "burla", ignore=ignore)
    for room in ROOMS:
        source = ROOT / room
        shutil.copytree(source, tree / "burla" / room, ignore=shutil.ignore_patterns(*HALF_WRITTEN))
    for name, old, new in changes:
        path = tree / "burla" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        path.write_text(text.replace(old, new))
        forget_compiled(path)
    return tree


def forget_compiled(path: Path) -> None:
    """Delete the bytecode of a module that has changed: its size and second may be the same."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def environment(tree: Path | None) -> dict[str, str]:
    """Return the environment of a program that runs from such a copy; None: from ours."""
    return dict(os.environ) if tree is None else os.environ | {"PYTHONPATH": str(tree)}
