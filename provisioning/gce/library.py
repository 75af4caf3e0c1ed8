"""The part of google-cloud-compute that we use: clients of three services, and `types`.

The package imports its hundred services at once, which costs every command two seconds and more.
So these are imported from its folder while a module without content stands for the package.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

PACKAGE = "google.cloud.compute_v1"


def _stand_in() -> ModuleType | None:
    """Put an empty module in the place of the package; None: that is imported, or not there."""
    spec = find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None or spec.submodule_search_locations is None:
        return None
    empty = ModuleType(PACKAGE)
    empty.__spec__, empty.__path__ = spec, list(spec.submodule_search_locations)
    sys.modules[PACKAGE] = empty
    return empty


_empty = _stand_in()
try:
    from google.cloud.compute_v1.services.instances import InstancesClient
    from google.cloud.compute_v1.services.machine_types import MachineTypesClient
    from google.cloud.compute_v1.services.zone_operations import ZoneOperationsClient
    from google.cloud.compute_v1.types import compute as types
finally:
    if _empty is not None:  # who else imports the package gets the real one
        del sys.modules[PACKAGE]

__all__ = ["InstancesClient", "MachineTypesClient", "ZoneOperationsClient", "types"]
