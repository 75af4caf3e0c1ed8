"""Of the library of Compute Engine only what we use is imported, and others can have all of it."""

import subprocess
import sys

OURS_FIRST = """
import sys
from burla.provisioning.gce import library
services = "google.cloud.compute_v1.services."
found = {name.split(".")[4] for name in sys.modules if name.startswith(services)}
assert found == {"instances", "machine_types", "zone_operations"}
from google.cloud import compute_v1
assert compute_v1.InstancesClient is library.InstancesClient
assert compute_v1.Instance is library.types.Instance
compute_v1.RegionsClient
"""
OURS_LAST = """
from google.cloud import compute_v1
from burla.provisioning.gce import library
import sys
assert sys.modules["google.cloud.compute_v1"] is compute_v1
assert compute_v1.InstancesClient is library.InstancesClient
"""


def test_three_services_are_imported_and_the_package_can_be() -> None:
    subprocess.run([sys.executable, "-c", OURS_FIRST], check=True)


def test_a_package_that_is_imported_is_used() -> None:
    subprocess.run([sys.executable, "-c", OURS_LAST], check=True)
