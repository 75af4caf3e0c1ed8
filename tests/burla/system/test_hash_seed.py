"""Which seed of `hash()` a process has, however it was given."""

import os
import subprocess
import sys

import pytest

from burla.system import hash_seed

ASK = "from burla.system.hash_seed import own_seed; print(own_seed())"


def answer(*options: str, seed: str | None, before: str = "") -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        env["PYTHONHASHSEED"] = seed
    line = [sys.executable, *options, "-c", before + ASK]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("seed", ["0", "1", "5", "4294967295"])
def test_a_seed_that_was_set_is_known(seed: str) -> None:
    assert answer(seed=seed) == seed


@pytest.mark.parametrize(
    ("options", "seed"),
    [((), None), ((), ""), ((), "random"), (("-R",), "5"), (("-R",), "0"), (("-E",), "5")],
)
def test_random_hashes_have_none(options: tuple[str, ...], seed: str | None) -> None:
    assert answer(*options, seed=seed) == "None"


@pytest.mark.parametrize("change", ["os.environ['PYTHONHASHSEED'] = '6'", "os.environ.clear()"])
def test_what_the_variable_is_set_to_later_means_nothing(change: str) -> None:
    assert answer(seed="5", before=f"import os; {change}; ") == "5"
    assert answer(seed="0", before=f"import os; {change}; ") == "0"
    assert answer(seed=None, before=f"import os; {change}; ") == "None"


def test_the_seed_of_a_cluster_is_its_own_and_stays() -> None:
    seeds = [hash_seed.seed_of(f"cluster {number}") for number in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 < seed <= hash_seed.SEED_MAX for seed in seeds)
    assert seeds[0] == hash_seed.seed_of("cluster 0")
