"""What the core wants done for leases that run in container images, and what it is told of them."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from burla.nodelet.config import NodeletConfig
from burla.nodelet.core import effects as e
from burla.nodelet.core.nodelet import Nodelet

from .sandbox_pool import SandboxPool

if TYPE_CHECKING:
    from .images import Images

log = logging.getLogger(__name__)


class ImageLeases:
    """Between the core, the files of images, and the sandboxes that are made with them."""

    def __init__(self, config: NodeletConfig) -> None:
        """Find out whether there can be such leases: `can_be`."""
        self._config = config
        self._images: Images | None = None
        if config.runtime and config.confinement is not None:
            from . import images, runtimes  # a private cluster does without

            root, runtime = f"{config.packages}-images", runtimes.Runtime(config.runtime)
            try:
                self._images = images.Images(root, runtime, config.confinement, self)
            except OSError as error:
                log.warning("no job runs in a container image here: %s", error)

    @property
    def can_be(self) -> bool:
        """Whether this node runs images."""
        return self._images is not None

    def begin(self, core: Nodelet, sandboxes: SandboxPool, settle: Callable[[], None]) -> None:
        """Serve a core; `settle` carries out what follows from what it is told."""
        self._core, self._sandboxes, self._settle = core, sandboxes, settle
        if self._images is not None:
            self._images.clear_away()

    def see_to(self, effect: e.GetImage | e.EnterImage | e.LetGoOfImage) -> None:
        """Do what the core wants."""
        assert self._images is not None, "who does not say IMAGES is given no such lease"
        match effect:
            case e.GetImage(lease, image, place):
                self._images.get(lease, image, place)
            case e.EnterImage(lease, place):
                shown = [*filter(None, (self._config.packages, self._core.shared))]
                self._images.enter(
                    lease, place, lambda folder: self._sandboxes.make_in_image(folder, shown)
                )
            case e.LetGoOfImage(lease):
                self._images.let_go(lease)

    def enter(self, lease: bytes) -> None:
        """Have a lease, which begins now, use the sandbox that was made for it."""
        assert self._images is not None, "it has entered one"
        self._sandboxes.enter(self._images.take(lease))

    async def close(self) -> None:
        """End all that is being done."""
        if self._images is not None:
            await self._images.close()

    # --- what becomes of it: see images.Listener ---

    def image_progress(self, lease: bytes, text: str) -> None:
        """Take what is being done for a lease."""
        self._core.images.progress(lease, text)
        self._settle()

    def image_there(self, lease: bytes, place: str) -> None:
        """Take where the files of its image are."""
        self._core.image_there(lease, place)
        self._settle()

    def image_entered(self, lease: bytes) -> None:
        """Take note that a sandbox waits for it."""
        self._core.images.entered(lease)
        self._settle()

    def image_failed(self, lease: bytes, why: str) -> None:
        """Take why it cannot run in its image here."""
        log.warning("%s", why)
        self._core.images.failed(lease, why)
        self._settle()
