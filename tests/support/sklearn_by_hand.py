"""scikit-learn over the joblib backend, by hand, beside loky: the same results, and how long.

    pip install scikit-learn
    PYTHONPATH=tests/support python tests/support/sklearn_by_hand.py

joblib's own tests of backends take every registered one, and importing this registers ours:

    cd / && PYTHONPATH=.../tests/support python -m pytest -p sklearn_by_hand \
        --pyargs joblib.test.test_parallel -k burla

`test_nested_loop` with another parent fails: in its processes nobody has registered "burla".
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import burla

burla.register_joblib()


def work() -> tuple[list[Any], list[float]]:
    """Return results of searches and fits, and the seconds of each."""
    datasets, ensemble, selection, svm = (
        import_module(f"sklearn.{name}")
        for name in ("datasets", "ensemble", "model_selection", "svm")
    )
    x, y = datasets.make_classification(3000, 40, random_state=0)
    forest = ensemble.RandomForestClassifier
    grid = {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}
    results, seconds = [], []
    runs: tuple[Callable[[], Any], ...] = (
        lambda: selection.GridSearchCV(svm.SVC(), grid, n_jobs=2, cv=3).fit(x, y).best_score_,
        lambda: selection.cross_val_score(forest(30, random_state=0), x, y, n_jobs=2).tolist(),
        lambda: forest(60, n_jobs=2, random_state=0).fit(x, y).predict_proba(x[:5]).tolist(),
    )
    for run in runs:
        begun_s = time.perf_counter()
        results.append(run())
        seconds.append(time.perf_counter() - begun_s)
    return results, seconds


def main() -> None:
    """Compare, with all processes warm."""
    joblib: Any = import_module("joblib")
    told = {}
    for backend in ("loky", "burla"):
        with joblib.parallel_config(backend=backend):
            work()
            told[backend] = work()
    assert told["loky"][0] == told["burla"][0]
    for backend, (_, seconds) in told.items():
        print(backend, *(f"{one:.2f} s" for one in seconds))


if __name__ == "__main__":
    main()
