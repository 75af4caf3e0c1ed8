"""Where a node has packages from. Pure."""

from msgspec import Struct


class Sources(Struct, frozen=True):
    """What installers are told."""

    index: str = ""  # URL; empty: whatever pip on this machine is configured to ask
    wheelhouse: str = ""  # a folder of wheels: then there is nothing else

    def options(self) -> list[str]:
        """Return it as options; uv and pip take the same words."""
        if self.wheelhouse:
            return ["--no-index", "--find-links", self.wheelhouse]
        return ["--index-url", self.index] if self.index else []
