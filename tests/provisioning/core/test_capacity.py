"""What a refusal means, and where a machine is asked for next."""

import pytest

from burla.provisioning.core.capacity import EXHAUSTED_S, Place, Places, Refusal, classify


@pytest.mark.parametrize(
    ("status", "code", "message", "refusal"),
    [
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED", "", Refusal.CAPACITY),
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "", Refusal.CAPACITY),
        (0, "STOCKOUT", "", Refusal.CAPACITY),
        (503, "", "The zone 'a' does not have enough resources available", Refusal.CAPACITY),
        (403, "quotaExceeded", "Quota 'CPUS' exceeded. Limit: 8.0 in region r.", Refusal.QUOTA),
        (0, "QUOTA_EXCEEDED", "Quota 'N2_CPUS' exceeded.  Limit: 24.0", Refusal.QUOTA),
        (0, "CPUS_ALL_REGIONS", "", Refusal.QUOTA),
        (429, "rateLimitExceeded", "", Refusal.BUSY),
        (403, "rateLimitExceeded", "Rate Limit Exceeded", Refusal.BUSY),
        (500, "", "", Refusal.BUSY),
        (503, "backendError", "", Refusal.BUSY),
        (403, "forbidden", "no permission", Refusal.NO),
        (400, "invalid", "bad machine type", Refusal.NO),
        (404, "notFound", "no such zone", Refusal.NO),
    ],
)
def test_a_refusal_is_told_from_others(
    status: int, code: str, message: str, refusal: Refusal
) -> None:
    assert classify(status, code, message).refusal is refusal


def test_a_quota_is_named_with_its_limit() -> None:
    said = classify(403, "QUOTA_EXCEEDED", "Quota 'CPUS' exceeded.  Limit: 24.0 in region r.").text
    assert "the quota CPUS is used up, its limit is 24.0" in said


def test_all_zones_come_before_other_types_and_both_before_standard_prices() -> None:
    places = Places(["r-a", "r-b"], ["big", "small"], "prefer")
    assert [str(place) for place in places.open(0.0)] == [
        "big spot in r-a",
        "big spot in r-b",
        "small spot in r-a",
        "small spot in r-b",
        "big in r-a",
        "big in r-b",
        "small in r-a",
        "small in r-b",
    ]


def test_a_place_without_capacity_is_not_asked_for_a_while_and_its_neighbours_are() -> None:
    places = Places(["r-a", "r-b"], ["big"], "never")
    places.close(Place("r-a", "big", False), Refusal.CAPACITY, 0.0)
    assert [place.zone for place in places.open(1.0)] == ["r-b"]
    assert [place.zone for place in places.open(EXHAUSTED_S)] == ["r-a", "r-b"]


def test_a_place_is_chosen_by_region_or_zone() -> None:
    places = Places(["us-east1-b", "us-east1-c", "us-east4-a"], ["big"], "never")

    def zones(region: str) -> list[str]:
        return [place.zone for place in places.open(0.0, region)]

    assert zones("us-east1") == ["us-east1-b", "us-east1-c"]
    assert zones("us-east4-a") == ["us-east4-a"]
    assert zones("us-east") == zones("us") == []
    places.close(Place("us-east1-b", "big", False), Refusal.CAPACITY, 0.0)
    assert zones("us-east1") == ["us-east1-c"]


def test_a_quota_rules_out_the_region_and_no_other() -> None:
    places = Places(["r-a", "r-b", "q-a"], ["big"], "never")
    places.close(Place("r-a", "big", False), Refusal.QUOTA, 0.0)
    assert [place.zone for place in places.open(1.0)] == ["q-a"]


def test_the_list_may_shrink_while_it_is_walked() -> None:
    places = Places(["r-a", "r-b", "r-c"], ["big"], "never")
    walked = []
    for place in places.open(0.0):
        walked.append(place.zone)
        places.close(place, Refusal.QUOTA, 0.0)
    assert walked == ["r-a"]
