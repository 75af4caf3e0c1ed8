"""JupyterLab in Chromium, by hand: maps from a cell, as somebody with a browser sees them.

    pip install -e '.[test]' jupyterlab && apt-get install chromium
    PYTHONPATH=tests/support python tests/support/jupyterlab_by_hand.py

Not part of the suite, because to install JupyterLab takes a third of a minute and 340 MB; that runs
the same cells in the same kernels without a browser (tests/end_to_end/test_notebooks.py).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Page, expect, sync_playwright
from waiting import wait_gone, wait_until

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
LATE_MS = 60_000
CELLS = (
    """from burla import remote_parallel_map
import time
def square(x):
    print("called with", x)
    time.sleep(0.3)
    return x * x
print("results", remote_parallel_map(square, range(6)))""",
    """def long(x):
    time.sleep(600)
remote_parallel_map(long, [1, 2])""",
    """def fails(x):
    return 1 / (x - 1)
remote_parallel_map(fails, [1])""",
    """import os
print("kernel", os.getpid())""",
)


NO_NEWS = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def write_notebook(file: Path) -> None:
    """Write a notebook with the cells."""
    empty: dict[str, object] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
    }
    cells = [{**empty, "id": f"cell-{n}", "source": cell} for n, cell in enumerate(CELLS)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    about = {"metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    file.write_text(json.dumps({"cells": cells, **about}))


@contextmanager
def lab(folder: Path) -> Iterator[str]:
    """Run JupyterLab in a folder; yield its address with the token."""
    places = {"JUPYTER_RUNTIME_DIR": "run", "JUPYTER_CONFIG_DIR": "etc", "JUPYTER_DATA_DIR": "data"}
    env = os.environ | {name: str(folder / part) for name, part in places.items()}
    line = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    (folder / "etc/labconfig").mkdir(parents=True)
    (folder / "etc/labconfig/page_config.json").write_text(json.dumps(NO_NEWS))
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, env=env, stdout=log, stderr=log)
    told = folder / "run" / f"jpserver-{process.pid}.json"
    try:
        wait_until(lambda: told.exists() and told.read_text().endswith("}"), "it listens", 60.0)
        said = json.loads(told.read_text())
        yield f"{said['url']}lab/tree/maps.ipynb?token={said['token']}"
    finally:
        left = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(30)
        wait_gone(left)


def run_cell(page: Page, number: int) -> None:
    """Run a cell, and leave the cursor where it is."""
    page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def shown(page: Page, number: int) -> str:
    """Return what is under a cell."""
    outputs = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-OutputArea-output")
    return "\n".join(outputs.all_inner_texts())


def wait_shown(page: Page, number: int, text: str) -> None:
    """Wait until `text` is under a cell."""
    area = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-Cell-outputArea")
    expect(area).to_contain_text(text, timeout=LATE_MS)


def try_all(page: Page) -> None:
    """Run the cells, interrupt one, restart the kernel."""
    run_cell(page, 0)
    wait_shown(page, 0, "results [0, 1, 4, 9, 16, 25]")
    assert all(f"called with {number}" in shown(page, 0) for number in range(6))
    print("prints and results are under their cell")
    run_cell(page, 1)
    wait_shown(page, 1, "0/2")  # the progress, which begins after half a second
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    wait_shown(page, 1, "KeyboardInterrupt")
    print("progress is shown, and Interrupt ends the map")
    run_cell(page, 2)
    wait_shown(page, 2, "ZeroDivisionError")
    error = shown(page, 2)
    assert "return 1 / (x - 1)" in error
    assert len(error.splitlines()) < 40, error
    print("an error shows the lines of the cell, and is short:", len(error.splitlines()), "lines")
    run_cell(page, 3)
    wait_shown(page, 3, "kernel ")
    kernel = psutil.Process(int(shown(page, 3).split()[1]))
    workers = kernel.children(recursive=True)
    assert workers, "the private cluster runs below the kernel"
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    page.keyboard.press("0")
    page.locator(".jp-Dialog .jp-mod-accept").click(timeout=LATE_MS)
    wait_gone([kernel, *workers])
    print("a restart of the kernel leaves none of its", len(workers), "processes")
    run_cell(page, 0)
    page.wait_for_function(
        "document.querySelector('.jp-Notebook .jp-CodeCell').innerText.includes('results [0, 1')",
        timeout=LATE_MS,
    )
    print("and the next map works")


def main() -> None:
    """Try all of it; what is not as it should be raises."""
    with tempfile.TemporaryDirectory(prefix="lab-") as name, sync_playwright() as playwright:
        folder = Path(name)
        write_notebook(folder / "maps.ipynb")
        with lab(folder) as url:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page()
            page.goto(url, timeout=LATE_MS)
            cells = page.locator(".jp-Notebook .jp-CodeCell")
            expect(cells).to_have_count(len(CELLS), timeout=LATE_MS)
            ready = page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']")
            expect(ready).to_have_count(1, timeout=LATE_MS)
            try_all(page)
            browser.close()


if __name__ == "__main__":
    main()
