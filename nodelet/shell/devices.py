"""Which worker has which GPUs: each its own, for as long as it lives."""

from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


class Devices:
    """The GPUs of this machine, and who has them. They are given in the order of the machine."""

    def __init__(self, ids: Sequence[str]) -> None:
        """Have all of them to give; `ids` as CUDA knows them, each once."""
        self._ids = tuple(ids)
        self._taken: dict[int, list[str]] = {}  # by worker

    def has(self, count: int) -> bool:
        """Return whether so many are free."""
        return len(self._free()) >= count

    def take(self, worker: int, count: int) -> None:
        """Give a worker so many, which are free."""
        self._taken[worker] = self._free()[:count]

    def give_back(self, worker: int) -> None:
        """Take back what a worker had, which is gone."""
        self._taken.pop(worker, None)

    def variables(self, worker: int) -> dict[str, str]:
        """Return what a worker must know to see its own, and no others; empty: it has none."""
        taken = self._taken.get(worker)
        return {VARIABLE: ",".join(taken)} if taken else {}

    def _free(self) -> list[str]:
        taken = {own for each in self._taken.values() for own in each}
        return [own for own in self._ids if own not in taken]
