"""A whole script, from the start of its process to the first result and to its clean end."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .measure import Options, Series
from .peers import BURLA

IMPORTS = {
    BURLA: "from burla import remote_parallel_map",
    "Pool": "from multiprocessing import Pool",
    "ProcessPoolExecutor": "from concurrent.futures import ProcessPoolExecutor",
    "joblib": "from joblib import Parallel, delayed",
    "Ray Pool": "import ray; from ray.util.multiprocessing import Pool",
    "dask": "from distributed import Client",
}
CALLS = {  # each maps `double` over `inputs`
    BURLA: "results = remote_parallel_map(double, inputs, spinner=False)",
    "Pool": "with Pool() as pool: results = pool.map(double, inputs)",
    "ProcessPoolExecutor": "with ProcessPoolExecutor() as e: results = list(e.map(double, inputs))",
    "joblib": "results = Parallel(n_jobs=-1)(delayed(double)(x) for x in inputs)",
    "Ray Pool": "ray.init(include_dashboard=False, logging_level='ERROR'); "
    "results = Pool().map(double, inputs)",
    "dask": "client = Client(threads_per_worker=1, dashboard_address=None); "
    "results = client.gather(client.map(double, inputs)); client.shutdown()",
}
SCRIPT = """
{imported}

def double(x):
    return x * 2

if __name__ == "__main__":
    inputs = [1, 2, 3, 4]
    {call}
    print(results, flush=True)
"""
IMPORT_SCRIPT = "import time; s = time.perf_counter(); {}; print(time.perf_counter() - s)"
# As users have it: what is installed has bytecode, and so has what is measured from a checkout.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
SCRIPT_S_MAX = 120.0  # a script that takes longer hangs
SLOW_S = 2.0  # one that takes longer has shown enough in one round


def run_script(script: Path) -> tuple[float, float]:
    """Return seconds to the first line of `script` and to its end; it must print the results."""
    start = time.perf_counter()
    line = [sys.executable, str(script)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        first_s = time.perf_counter() - start
        assert process.wait(SCRIPT_S_MAX) == 0, script
        whole_s = time.perf_counter() - start
    assert first == b"[2, 4, 6, 8]\n", first
    return first_s, whole_s


def import_s(name: str) -> float:
    """Return what the import of contender `name` costs in a fresh interpreter."""
    code = IMPORT_SCRIPT.format(IMPORTS[name])
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, check=True, text=True, env=ENVIRONMENT)
    return float(done.stdout)


def measure(options: Options) -> Iterator[Series]:
    """Yield first result, whole script and import."""
    first, whole, imported = (Series(f"cold/{what}") for what in ("first result", "exit", "import"))
    with tempfile.TemporaryDirectory() as folder:
        scripts = {
            name: Path(folder, f"script_{name}.py") for name in CALLS if name in options.contenders
        }
        for name, script in scripts.items():
            script.write_text(SCRIPT.format(imported=IMPORTS[name], call=CALLS[name]))
            run_script(script)  # bytecode and disk caches are filled for everybody
        for _ in range(options.rounds):
            for name, script in scripts.items():
                if max(whole.seconds.get(name, [0.0])) > SLOW_S:
                    continue
                first_s, whole_s = run_script(script)
                first.seconds.setdefault(name, []).append(first_s)
                whole.seconds.setdefault(name, []).append(whole_s)
                imported.seconds.setdefault(name, []).append(import_s(name))
    yield from (first, whole, imported)
