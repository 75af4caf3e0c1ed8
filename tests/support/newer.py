"""This burla as a later version, for tests of upgrades."""

import shutil
from pathlib import Path

from broken import HALF_WRITTEN, forget_compiled

import burla
from burla.protocol import VERSION
from burla.provisioning.install import wheels


def newer(directory: Path) -> Path:
    """Return a folder with this burla as version 9.9.0."""
    top = Path(burla.__file__).resolve().parent.parent
    for name in ("burla", "scheduler", "nodelet", "provisioning"):
        skip = shutil.ignore_patterns(*HALF_WRITTEN)
        shutil.copytree(top / name, directory / name, symlinks=True, ignore=skip)
    about = directory / "burla/protocol/__init__.py"
    about.write_text(about.read_text().replace(VERSION, "9.9.0"))
    forget_compiled(about)
    # Else its wheel has the name of one version and the metadata of another, which uv refuses.
    info = directory / "burla-9.9.0.dist-info"
    info.mkdir()
    ours, metadata = wheels._metadata()
    (info / "METADATA").write_text(metadata.replace(f"Version: {VERSION}\n", "Version: 9.9.0\n"))
    (info / "entry_points.txt").write_text(ours.read_text("entry_points.txt") or "")
    return directory
