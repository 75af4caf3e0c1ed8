"""Popular packages on a node that has none of them, by hand: `python -m perf.packages [NAME ...]`.

The node runs in a new environment with burla only, beside its scheduler, and asks the package index
of this machine. The caller runs in one with the package. Told are the seconds from the call to the
result of a map whose function imports the package: at first use, when the node installs it, and at
the second by a new process, when it is there; and those of an import of it here, which is in both.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from burla.nodelet.shell.installing import find_uv

SMALL = (
    *("numpy", "requests", "pydantic", "attrs", "lxml", "PyYAML=yaml", "orjson", "Pillow=PIL"),
    *("cryptography", "sqlalchemy", "jinja2", "networkx", "psutil", "shapely", "regex"),
)
LARGE = (
    *("pandas", "scipy", "pyarrow", "polars", "duckdb", "scikit-learn=sklearn", "matplotlib"),
    *("opencv-python-headless=cv2", "google-cloud-storage=google.cloud.storage", "boto3", "h5py"),
    *("spacy", "transformers", "numba", "beautifulsoup4=bs4", "torch"),
)
MAP_S = 300.0  # one that takes longer hangs
SCRIPT = """
import importlib, sys, time
began_s = time.monotonic()
importlib.import_module(sys.argv[1])
import_s = time.monotonic() - began_s
from burla import remote_parallel_map

scope = {}
exec(f"def use(x):\\n    import {sys.argv[1]}\\n    return x", scope)
began_s = time.monotonic()
assert remote_parallel_map(scope["use"], [1], spinner=False) == [1]
print(time.monotonic() - began_s, import_s)
"""


def main(names: list[str]) -> None:
    """Print a row for each package."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory(prefix="packages") as folder:
        place = Path(folder)
        node, caller = (_environment(place / name, root) for name in ("node", "caller"))
        address = f"ipc://{place}/s"
        words = ("--scheduler", address, "--packages-directory", str(place / "packages"))
        env = {**os.environ, "BURLA_CLUSTER": address}
        lines = (
            [str(node / "burla-scheduler"), "--bind", address],
            [str(node / "burla-nodelet"), *words],
        )
        quiet = subprocess.DEVNULL
        with (
            subprocess.Popen(lines[0], stdout=quiet, stderr=quiet) as scheduler,
            subprocess.Popen(lines[1], stdout=quiet, stderr=quiet) as nodelet,
        ):
            try:
                print("| package | first use, s | second use, s | import here, s |")
                print("|---|---|---|---|")
                for name in names or [*SMALL, *LARGE]:
                    print(_row(caller, name, env), flush=True)
            finally:
                nodelet.terminate()
                nodelet.wait()
                scheduler.terminate()


def _environment(place: Path, root: Path) -> Path:
    """Return the programs of a new environment that has burla."""
    uv = find_uv()
    subprocess.run([uv, "venv", "-q", "-p", sys.executable, place], check=True)
    _install(place, "-e", str(root))
    return place / "bin"


def _install(place: Path, *words: str) -> str:
    """Install something; return what the installer says if it cannot."""
    line = [find_uv(), "pip", "install", "-q", "-p", str(place / "bin/python"), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _row(caller: Path, name: str, env: dict[str, str]) -> str:
    package, _, module = name.partition("=")
    if error := _install(caller.parent, package):
        return f"| {package} | not here: {error.splitlines()[-1].strip()} | | |"
    line = [str(caller / "python"), "-c", SCRIPT, module or package.replace("-", "_")]
    told = []
    for _ in range(2):
        try:
            done = subprocess.run(
                line, env=env, capture_output=True, text=True, timeout=MAP_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"| {package} | longer than {MAP_S:.0f} s | | |"
        if done.returncode:
            return f"| {package} | fails: {done.stderr.strip().splitlines()[-1]} | | |"
        told.append([float(word) for word in done.stdout.split()])
    (first_s, _), (second_s, import_s) = told
    return f"| {package} | {first_s:.2f} | {second_s:.2f} | {import_s:.2f} |"


if __name__ == "__main__":
    began_s = time.monotonic()
    main(sys.argv[1:])
    took_s, load = time.monotonic() - began_s, os.getloadavg()[0]
    print(f"in {took_s:.0f} s, at a load of {load:.0f} on {os.cpu_count()} CPUs")
