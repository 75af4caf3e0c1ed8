"""Why a cloud refuses a machine, and where it is asked for next. Pure.

Codes are matched by prefix: the same refusal comes as ZONE_RESOURCE_POOL_EXHAUSTED and as
ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS, as an HTTP error and inside an operation that is done.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

EXHAUSTED_S = 600.0  # a place that had nothing is asked again after this
CAPACITY = ("ZONE_RESOURCE_POOL_EXHAUSTED", "RESOURCE_POOL_EXHAUSTED", "STOCKOUT")
CAPACITY_WORDS = ("does not have enough resources available", "not enough resources")
QUOTA = ("QUOTA_EXCEEDED", "QUOTAEXCEEDED", "CPUS_ALL_REGIONS", "QUOTA_")
QUOTA_WORDS = re.compile(r"Quota '(?P<name>[^']+)' exceeded\.?\s*(?:Limit: (?P<limit>[\d.]+))?")
BUSY = ("RATELIMITEXCEEDED", "USERRATELIMITEXCEEDED", "INTERNAL_ERROR", "RESOURCE_NOT_READY")
BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
MISSING = 404


class Refusal(Enum):
    """What kind of no it is."""

    CAPACITY = auto()  # there is none here now: ask elsewhere
    QUOTA = auto()  # we may not have more of this kind in this region
    BUSY = auto()  # ask again, the same
    NO = auto()  # a mistake of ours, or no permission: asking elsewhere does not help


@dataclass(frozen=True)
class Answer:
    """A refusal, with what people need to know."""

    refusal: Refusal
    text: str
    status: int = 0  # of HTTP; 0: none


def classify(status: int, code: str, message: str) -> Answer:
    """Return what a refusal means.

    Args:
        status: of HTTP; 0: none.
        code: as in `error.errors[].code` of an operation or `reason` of an HTTP error.
        message: for people.
    """
    upper = code.upper()
    text = f"{code}: {message}" if code and code not in message else message or code or f"{status}"
    if upper.startswith(CAPACITY) or any(words in message for words in CAPACITY_WORDS):
        return Answer(Refusal.CAPACITY, text)
    quota = QUOTA_WORDS.search(message)
    if quota or upper.startswith(QUOTA):
        if quota:
            limit = f", its limit is {quota['limit']}" if quota["limit"] else ""
            text = f"the quota {quota['name']} is used up{limit} ({message})"
        return Answer(Refusal.QUOTA, text)
    if upper.startswith(BUSY) or status in BUSY_STATUS:
        return Answer(Refusal.BUSY, text)
    return Answer(Refusal.NO, text)


@dataclass(frozen=True)
class Place:
    """Where and as what a machine can be asked for."""

    zone: str
    machine_type: str
    spot: bool

    def region(self) -> str:
        """Return the region that the zone lies in."""
        return self.zone.rpartition("-")[0]

    def lies_in(self, region: str) -> bool:
        """Return whether this is in a region, or zone; empty: in any."""
        return region in ("", self.zone, self.region())

    def __str__(self) -> str:
        """Return words for people."""
        return f"{self.machine_type}{' spot' if self.spot else ''} in {self.zone}"


@dataclass
class Places:
    """All places, the preferred ones first, and which of them have nothing for now."""

    zones: Sequence[str]
    machine_types: Sequence[str]
    spot: str  # "never", "prefer", "only"
    _until_s: dict[Place, float] = field(default_factory=dict)

    def open(self, now_s: float, region: str = "") -> Iterator[Place]:
        """Yield places to ask: all zones, then the next machine type, then without spot.

        Args:
            now_s: when.
            region: or zone in which they are to lie; empty: in any.
        """
        kinds = {"never": (False,), "prefer": (True, False), "only": (True,)}[self.spot]
        for spot in kinds:
            for machine_type in self.machine_types:
                for zone in self.zones:
                    place = Place(zone, machine_type, spot)
                    if place.lies_in(region) and self._until_s.get(place, 0.0) <= now_s:
                        yield place

    def close(self, place: Place, refusal: Refusal, now_s: float) -> None:
        """Take note of a refusal: what it rules out is not asked again for a while."""
        until_s = now_s + EXHAUSTED_S
        self._until_s[place] = until_s
        if refusal is Refusal.QUOTA:  # the other zones of the region have the same
            for zone in self.zones:
                other = Place(zone, place.machine_type, place.spot)
                if other.region() == place.region():
                    self._until_s[other] = until_s
