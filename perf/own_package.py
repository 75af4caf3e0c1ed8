"""A script that needs much: a package of its own, numpy, pandas, and a small package of no index.

`write` puts it down. It prints its phases as JSON, in seconds by name: until the first result, a
second job, a job after an edit of its package, and one after an upgrade of the small one.
"""

from pathlib import Path

FIRST = ("start, import here", "ask nodes", "pack", "send, unpack, begin")  # in turn
SECOND, EDIT, UPGRADE = "second job", "after an edit", "after an upgrade"

MAIN = """\
import sys, time
began_s = time.monotonic()
sys.path[:0] = [".", "site-packages"]

import json, shutil, warnings
from pathlib import Path
from ours.work import use
import small_one
import burla.starting
from burla import remote_parallel_map

warnings.simplefilter("ignore")  # that it is much which travels
phases, asked_s, packed_s = {}, 0.0, 0.0
add = burla.starting.Luggage.add


def noting(luggage, lacking):
    global asked_s, packed_s
    asked_s = time.monotonic()
    added = add(luggage, lacking)
    packed_s = time.monotonic()
    return added


def first_of(name, expected):
    called_s, first_s = time.monotonic(), 0.0
    for result in remote_parallel_map(use, range(12), generator=True, spinner=False):
        first_s = first_s or time.monotonic()
        assert result == expected, (result, expected)
    phases[name] = first_s - called_s
    return called_s, first_s


burla.starting.Luggage.add = noting
called_s, first_s = first_of("first", (2, 0, "1"))
marks = (began_s, called_s, asked_s, packed_s, first_s)
for name, start_s, end_s in zip(FIRST, marks, marks[1:]):
    phases[name] = end_s - start_s
del phases["first"]
first_of(SECOND, (2, 0, "1"))
model = Path("ours/model.py")
model.write_text(model.read_text().replace("EDITION = 0", "EDITION = 1"))
first_of(EDIT, (2, 1, "1"))
shutil.rmtree("site-packages")
shutil.move("upgrade", "site-packages")
first_of(UPGRADE, (2, 1, "2"))
print(json.dumps(phases))
"""
OWN = {
    "ours/__init__.py": "",
    "ours/work.py": """\
import numpy as np
from .model import table

def use(x):
    from importlib.metadata import version
    from .model import EDITION
    import small_one
    assert np.arange(x).sum() == x * (x - 1) // 2
    return len(table()), EDITION, version("small-one")
""",
    "ours/model.py": """\
from importlib.resources import files
import pandas as pd

EDITION = 0

def table():
    return pd.read_csv(files(__package__) / "data.csv")
""",
    "ours/data.csv": "a,b\n1,2\n3,4\n",
}


def write(folder: Path) -> None:
    """Put it down in a new folder, as main.py."""
    names = f"FIRST, SECOND, EDIT, UPGRADE = {FIRST!r}, {SECOND!r}, {EDIT!r}, {UPGRADE!r}\n"
    files = {"main.py": names + MAIN, **OWN, **_small_one("site-packages", "1")}
    for name, text in (files | _small_one("upgrade", "2")).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _small_one(folder: str, version: str) -> dict[str, str]:
    """Return an installed package, with what an installer notes of it."""
    info = f"small_one-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: small-one\nVersion: {version}\n"
    record = f"small_one.py,,\n{info}/METADATA,,\n{info}/RECORD,,\n"
    files = {"small_one.py": "", f"{info}/METADATA": metadata, f"{info}/RECORD": record}
    return {f"{folder}/{name}": text for name, text in files.items()}
