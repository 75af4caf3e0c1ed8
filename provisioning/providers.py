"""All providers of one cluster as one Provisioner: what it makes, one of them makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .machines import BadConfig, Machine, Provisioner, Shape


@dataclass(frozen=True)
class Providers:
    """See `machines.Provisioner`."""

    by_name: Mapping[str, Provisioner]
    growing: str  # name of the one that makes machines; empty: none does

    def observe(self) -> list[Machine]:
        """Return the machines of all."""
        return [machine for one in self.by_name.values() for machine in one.observe()]

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        """Have the growing one make machines."""
        return self._growing().create(count, grown=grown)

    def shape(self) -> Shape:
        """Return what the growing one makes."""
        return self._growing().shape()

    def price_per_h(self) -> float | None:
        """Return what one of the growing one costs."""
        return self._growing().price_per_h() if self.growing else None

    def delete(self, machines: Sequence[Machine]) -> None:
        """Have each give up its own."""
        for name, one in self.by_name.items():
            one.delete([machine for machine in machines if machine.provider == name])

    def _growing(self) -> Provisioner:
        if self.growing not in self.by_name:
            raise BadConfig("grow.provider: this cluster has no provider that makes machines")
        return self.by_name[self.growing]
