"""The scheduler's settings; made once by cli.py and passed down."""

from dataclasses import dataclass

from burla.wire.addresses import bind_address, stays_on_this_machine


class ConfigError(Exception):
    """A setting that this scheduler refuses; says which, why, and what to do."""


@dataclass(frozen=True)
class SchedulerConfig:
    """What a scheduler is told at its start."""

    bind: str  # where it listens; tcp port 0 picks one

    def __post_init__(self) -> None:
        """Bring the address to its normal form.

        Raises:
            AddressError: `bind` is not an address.
            ConfigError: it is one that others could reach.
        """
        object.__setattr__(self, "bind", bind_address(self.bind))
        if not stays_on_this_machine(self.bind):
            raise ConfigError(
                f"refusing to listen on {self.bind}: whoever can connect can run code here, and "
                "there are no keys yet that say who may; use tcp://127.0.0.1:PORT or ipc://PATH"
            )
