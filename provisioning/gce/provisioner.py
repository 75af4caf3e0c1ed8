"""Provisioner over Compute Engine.

Three things end a machine, each of which works alone: we delete it; Compute Engine deletes it at
the end of its run duration; it powers itself off when its scheduler is silent (startup.sh). Every
list and every delete goes by our labels; nothing without them is touched.

The library blocks, so none of this runs on the scheduler's loop.
"""

import getpass
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

from burla.provisioning.config import ClusterConfig
from burla.provisioning.core.capacity import MISSING, Answer, Place, Places, Refusal, classify
from burla.provisioning.core.machines import (
    BadConfig,
    JoinToken,
    Machine,
    ProvisioningError,
    Shape,
    named,
    printable,
)
from burla.provisioning.core.plan import CLUSTER, MADE_BY, MANAGED
from burla.provisioning.install import bootstrap
from burla.provisioning.install.wheels import WHEEL, packed_wheel, pinned_for_node

from .compute import CALL_S, ComputeApi, Refused
from .library import types

STARTUP = Path(__file__).with_name("startup.sh")
PARALLEL_MAX = 8  # calls at once
OPERATION_S = 180.0  # an insert that has not ended by then is given up, and what it made deleted
POLL_S = 1.0
METADATA_BYTES_MAX = 250_000  # of one value; Compute Engine takes 256 KB
METADATA_ALL_BYTES_MAX = 500_000  # of all of them; Compute Engine takes 512 KB
DRAIN = "burla-drain"  # of the metadata: seconds to drain in, or "no"
LABEL = re.compile(r"[^a-z0-9_-]")
ENDED = {"TERMINATED", "STOPPED", "SUSPENDED"}
ENDING = {"STOPPING", "SUSPENDING", "DEPROVISIONING"}


class OutOfPlaces(ProvisioningError):
    """No zone, machine type or price class has a machine for us."""


class Gce:
    """The virtual machines of one cluster; see `machines.Heeding`."""

    heeds = frozenset(("region", "disk_gb"))

    def __init__(
        self,
        config: ClusterConfig,
        scheduler: str,
        join_token: JoinToken,
        say: Callable[[str], None] = lambda text: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Manage the cluster that `config` names.

        Args:
            config: of the cluster.
            scheduler: its address, as the machines reach it.
            join_token: yields a fresh token for each machine.
            say: is told each place that has nothing.
            pause: waits between tries.
        """
        self.config, self.gce = config, config.gce
        self._scheduler, self._join_token = scheduler, join_token
        self._say, self._pause = say, pause
        self._api = ComputeApi(self.gce.endpoint, pause)
        self._shape: Shape | None = None
        self._places = Places(self.gce.zones, self.gce.machine_types, self.gce.spot)

    # --- observe ---

    def observe(self) -> list[Machine]:
        """Return all machines of the cluster, with what each says about itself."""
        with ThreadPoolExecutor(PARALLEL_MAX) as pool:
            return list(pool.map(self._machine, list(self._instances())))

    def _instances(self) -> Iterator[Any]:
        where = f"labels.{CLUSTER}={label(self.config.name)} AND labels.{MANAGED}=true"
        request = types.AggregatedListInstancesRequest(project=self.gce.project, filter=where)
        listed = self._api.call(
            lambda: list(self._api.instances.aggregated_list(request=request, timeout=CALL_S))
        )
        for _, scope in listed:
            for instance in scope.instances:
                labels = instance.labels  # looked at again: a filter that is ignored must not kill
                ours = labels.get(CLUSTER) == label(self.config.name)
                if ours and labels.get(MANAGED) == "true":
                    yield instance

    def _machine(self, instance: Any) -> Machine:
        labels = dict(instance.labels)
        zone = instance.zone.rpartition("/")[2]
        state, why = self._state(instance, zone)
        expires = labels.get("burla-expires", "")
        return Machine(
            name=instance.name,
            address=zone,
            provider="gce",
            state=state,
            why=why,
            says_so=instance.status == "RUNNING",
            expires_s=float(expires) if expires.isdigit() else None,
            grown=labels.get("burla-grown") == "true",
            cost_per_h=self._cost(instance),
            labels=labels,
        )

    def _state(self, instance: Any, zone: str) -> tuple[str, str]:
        if instance.status in ENDED:
            return "ended", ""
        if instance.status in ENDING:
            return "ending", ""
        if instance.status != "RUNNING":
            return "creating", ""
        said = self._guest_says(instance.name, zone)
        word, _, rest = said.partition(" ")
        if word == "failed":
            return "failed", rest or "its startup script failed"
        if word in ("draining", "drained"):
            return "ending", word
        return ("ready", "") if word == "ready" else ("joining", word)

    def _guest_says(self, name: str, zone: str) -> str:
        request = types.GetGuestAttributesInstanceRequest(
            project=self.gce.project, zone=zone, instance=name, query_path="burla/"
        )
        try:
            said = self._api.call(
                lambda: self._api.instances.get_guest_attributes(request=request, timeout=CALL_S)
            )
        except Refused as refused:
            if refused.answer.status != MISSING:
                raise
            return ""  # it has not said anything yet, or is gone
        state = next((str(i.value) for i in said.query_value.items if i.key == "state"), "")
        return printable(state)  # any process on it may have written that

    # --- what the next one is ---

    def shape(self) -> Shape:
        """Return the least of all machine types; see `machines.Provisioner`."""
        if self._shape is None:
            found = [self._shape_of(machine_type) for machine_type in self.gce.machine_types]
            self._shape = Shape(*(min(part) for part in zip(*map(astuple, found), strict=True)))
        return self._shape

    def _shape_of(self, machine_type: str) -> Shape:
        for zone in self.gce.zones:
            request = types.GetMachineTypeRequest(
                project=self.gce.project, zone=zone, machine_type=machine_type
            )
            try:
                found = self._api.call(
                    partial(self._api.machine_types.get, request, timeout=CALL_S)
                )
            except Refused as refused:
                if refused.answer.status != MISSING:
                    raise
                continue
            of_type = sum(kind.guest_accelerator_count for kind in found.accelerators)
            return Shape(found.guest_cpus, found.memory_mb << 20, of_type + self.gce.gpus)
        raise BadConfig(f"gce.machine_types: {machine_type} exists in none of gce.zones")

    def price_per_h(self) -> float | None:
        """Return the most that any of the machine types costs; see `machines.Provisioner`."""
        spots = {"never": (False,), "prefer": (False, True), "only": (True,)}[self.gce.spot]
        prices = [self._price(kind, spot=spot) for kind in self.gce.machine_types for spot in spots]
        known = [price for price in prices if price is not None]
        return max(known) if len(known) == len(prices) else None

    def _cost(self, instance: Any) -> float:
        """Return what a machine costs; if its price is not set, as much as the next one."""
        spot = instance.scheduling.provisioning_model == "SPOT"
        price = self._price(instance.machine_type.rpartition("/")[2], spot=spot)
        return price if price is not None else self.price_per_h() or 0.0

    def _price(self, machine_type: str, *, spot: bool) -> float | None:
        prices = self.config.grow.prices
        standard = prices.get(machine_type)
        return prices.get(f"{machine_type} spot", standard) if spot else standard

    # --- create ---

    def why_not(self, *, region: str = "", disk_gb: int = 0) -> str:
        """Return why none is made so; see `machines.Heeding`.

        Where machines may be, and how big a disk is paid for, the cluster's file decides.
        """
        zones, most = self.gce.zones, max(self.gce.disk_gb, self.gce.disk_gb_max)
        if not any(Place(zone, "", spot=False).lies_in(region) for zone in zones):
            return f"a job asks for another region than those of gce.zones: {named(zones)}"
        if disk_gb > most:
            return f"a job asks for bigger disks than of {most} GB (gce.disk_gb_max)"
        return ""

    def create(
        self, count: int, *, grown: bool = False, region: str = "", disk_gb: int = 0
    ) -> list[Machine]:
        """Ask for machines; see `machines.Heeding`."""

        def one(_: int) -> Machine | ProvisioningError:
            try:
                return self._create_one(grown, region, disk_gb)
            except ProvisioningError as error:
                return error

        # Kept; else each of the threads would pack the one, and ask an index for the other.
        packed_wheel(METADATA_BYTES_MAX)
        self._requirements()
        with ThreadPoolExecutor(PARALLEL_MAX) as pool:
            made = list(pool.map(one, range(count)))
        machines = [m for m in made if isinstance(m, Machine)]
        errors = [m for m in made if isinstance(m, ProvisioningError)]
        if errors and not machines:
            raise errors[0]
        return machines

    def _create_one(self, grown: bool, region: str, disk_gb: int) -> Machine:
        said: list[str] = []
        for place in self._places.open(time.monotonic(), region):
            self._pause(0.0)  # the autoscaler's process may end here
            name = f"burla-{label(self.config.name)[:40]}-{uuid.uuid4().hex[:8]}"
            try:
                self._insert(place, name, grown, disk_gb)
            except Refused as refused:
                answer = refused.answer
                if answer.refusal is Refusal.NO:
                    raise ProvisioningError(f"{place}: {answer.text}") from refused
                self._say(f"{place}: {answer.text}")
                said.append(f"{place}: {answer.text}")
                self._places.close(place, answer.refusal, time.monotonic())
                continue
            return Machine(name, place.zone, "gce", "creating", grown=grown)
        why = named(said, 3) or "none of the places had any a few minutes ago"
        where = f"in {region}" if region else "anywhere"
        raise OutOfPlaces(f"no capacity {where}: {why}. Add zones or machine types")

    def _insert(self, place: Place, name: str, grown: bool, disk_gb: int) -> None:
        """Make one machine.

        Raises:
            Refused: there is none; if one may have come to be all the same, it is deleted.
        """
        request = types.InsertInstanceRequest(
            project=self.gce.project,
            zone=place.zone,
            instance_resource=self._resource(place, name, grown, disk_gb),
            request_id=str(uuid.uuid4()),  # the same in all tries: they make one machine together
        )
        try:
            operation = self._api.call(
                lambda: self._api.instances.insert_unary(request=request, timeout=CALL_S)
            )
            self._wait(operation, place.zone)
        except Refused as refused:
            if refused.answer.refusal is Refusal.BUSY:  # what it has done is not known
                with suppress(ProvisioningError):  # it goes with the others, or at its time's end
                    self._delete_one(name, place.zone)
            raise
        except BaseException:
            with suppress(Exception):
                self._delete_one(name, place.zone)
            raise

    def _wait(self, operation: Any, zone: str) -> None:
        """Return when an operation has ended well.

        Raises:
            Refused: it has not, or not within `OPERATION_S`.
        """
        request = types.GetZoneOperationRequest(
            project=self.gce.project, zone=zone, operation=operation.name
        )
        waited_s = 0.0
        while operation.status != types.Operation.Status.DONE:
            if waited_s >= OPERATION_S:
                text = f"the operation {operation.name} did not end within {OPERATION_S:.0f} s"
                raise Refused(Answer(Refusal.BUSY, text))
            self._pause(POLL_S)
            waited_s += POLL_S
            operation = self._api.call(
                lambda: self._api.operations.get(request=request, timeout=CALL_S)
            )
        for error in operation.error.errors:
            status = operation.http_error_status_code
            raise Refused(classify(status, error.code, error.message))
        if operation.http_error_status_code >= 400:
            text = operation.http_error_message
            raise Refused(classify(operation.http_error_status_code, "", text))

    def _resource(self, place: Place, name: str, grown: bool, disk_gb: int) -> Any:
        gce = self.gce
        run_s = int(gce.run_h * 3600)
        zone = f"zones/{place.zone}"
        scheduling = types.Scheduling(
            provisioning_model="SPOT" if place.spot else "STANDARD",
            instance_termination_action="DELETE",
            max_run_duration=types.Duration(seconds=run_s),
            automatic_restart=False,
            on_host_maintenance="TERMINATE" if place.spot or self.shape().gpus else "MIGRATE",
        )
        disk = types.AttachedDisk(
            boot=True,
            auto_delete=True,
            initialize_params=types.AttachedDiskInitializeParams(
                source_image=gce.image, disk_size_gb=max(gce.disk_gb, disk_gb)
            ),
        )
        interface = types.NetworkInterface(network=gce.network)
        if gce.external_ip:
            interface.access_configs = [
                types.AccessConfig(name="External NAT", type_="ONE_TO_ONE_NAT")
            ]
        accelerators = []
        if gce.gpus:
            kind = f"{zone}/acceleratorTypes/{gce.gpu_type}"
            accelerators = [
                types.AcceleratorConfig(accelerator_type=kind, accelerator_count=gce.gpus)
            ]
        items = [types.Items(key=k, value=v) for k, v in self._metadata(name).items()]
        return types.Instance(
            name=name,
            machine_type=f"{zone}/machineTypes/{place.machine_type}",
            disks=[disk],
            network_interfaces=[interface],
            scheduling=scheduling,
            guest_accelerators=accelerators,
            service_accounts=[],  # what runs there has no rights in the cloud
            metadata=types.Metadata(items=items),
            labels={
                CLUSTER: label(self.config.name),
                MANAGED: "true",
                MADE_BY: self.config.stamp,
                "burla-owner": label(gce.owner or getpass.getuser()),
                "burla-expires": str(int(time.time()) + run_s),
                "burla-grown": "true" if grown else "false",
            },
        )

    def _metadata(self, name: str) -> dict[str, str]:
        token = self._join_token(name)
        wheel = packed_wheel(METADATA_BYTES_MAX)
        said = {
            "startup-script": STARTUP.read_text(),
            "enable-guest-attributes": "TRUE",
            "burla-bootstrap": bootstrap.script().decode(),
            **{f"burla-wheel-{number}": part for number, part in enumerate(wheel)},
            "burla-wheel-parts": " ".join(map(str, range(len(wheel)))),
            "burla-wheel-name": WHEEL,
            "burla-name": name,
            "burla-cluster": self.config.name,
            "burla-python": self.config.python,
            "burla-scheduler": self._scheduler,
            "burla-silence": str(self.gce.silence_s),
            "burla-then": "poweroff",
            DRAIN: "no",
            "burla-wheelhouse": self.gce.wheelhouse,
            "burla-index": self.config.index,
            "burla-requirements": self._requirements(),
            "burla-packages": "\n".join(self.config.node.given()),
            "burla-log-level": self.config.log_level,
            "burla-token": token.decode() if token else "",
        }
        size = sum(len(key) + len(value) for key, value in said.items())
        assert size <= METADATA_ALL_BYTES_MAX, size
        return said

    def _requirements(self) -> str:
        """Return what may be installed from an index; a wheelhouse is as good as its image."""
        if self.gce.wheelhouse:
            return ""
        return pinned_for_node(self.config.python, self.config.index).text

    # --- drain and delete ---

    def drain(self, machine: Machine, wait_s: float) -> None:
        """Tell a machine by its metadata, which startup.sh watches; see `machines.Provisioner`."""
        where = {"project": self.gce.project, "zone": machine.address, "instance": machine.name}
        get = types.GetInstanceRequest(**where)
        found = self._api.call(partial(self._api.instances.get, get, timeout=CALL_S)).metadata
        items = [item for item in found.items if item.key != DRAIN]
        items.append(types.Items(key=DRAIN, value=str(int(wait_s))))
        metadata = types.Metadata(fingerprint=found.fingerprint, items=items)
        put = types.SetMetadataInstanceRequest(**where, metadata_resource=metadata)
        self._api.call(partial(self._api.instances.set_metadata_unary, put, timeout=CALL_S))

    def delete(self, machines: Sequence[Machine]) -> None:
        """Delete machines; see `machines.Provisioner`."""
        if not machines:
            return

        def one(machine: Machine) -> ProvisioningError | None:
            try:
                self._delete_one(machine.name, machine.address)
            except ProvisioningError as error:  # the others go all the same
                return error
            return None

        with ThreadPoolExecutor(PARALLEL_MAX) as pool:
            errors = [error for error in pool.map(one, machines) if error is not None]
        if errors:
            raise errors[0]

    def clean(self) -> None:
        """Do nothing: disks go with their machines; see `machines.Provisioner`."""

    def _delete_one(self, name: str, zone: str) -> None:
        request = types.DeleteInstanceRequest(
            project=self.gce.project, zone=zone, instance=name, request_id=str(uuid.uuid4())
        )
        try:
            self._api.call(
                lambda: self._api.instances.delete_unary(request=request, timeout=CALL_S)
            )
        except Refused as refused:
            if refused.answer.status != MISSING:
                raise ProvisioningError(f"cannot delete {name}: {refused}") from refused


def label(text: str) -> str:
    """Return `text` as the value of a label: lower case, 63 characters, few signs."""
    return LABEL.sub("-", text.lower())[:63]
