"""What is known of leases, and when something is due about them."""

import math

from burla.core.acks import ACK_LATE_S
from burla.core.leases import Leases
from burla.core.output_order import GAP_S

ONE, TWO = b"1" * 16, b"2" * 16


def test_a_lease_keeps_the_name_of_its_node() -> None:
    leases = Leases()
    lease = leases.of(ONE, "n1")
    assert leases.of(ONE, "") is lease
    assert lease.node == "n1"


def test_acknowledgements_wait_for_each_other_from_the_first_on() -> None:
    leases = Leases()
    one, two = leases.of(ONE, ""), leases.of(TWO, "")
    leases.acknowledge_later(one, 1)
    leases.acknowledge_later(two, 1.05)
    assert leases.ack_s == 1 + ACK_LATE_S
    assert leases.take_unacknowledged(1.05) == []
    assert leases.take_unacknowledged(1 + ACK_LATE_S) == [one, two]
    assert leases.take_unacknowledged(2) == []
    assert leases.ack_s == math.inf


def test_what_was_acknowledged_meanwhile_is_not_again() -> None:
    leases = Leases()
    one = leases.of(ONE, "")
    leases.acknowledge_later(one, 1)
    leases.acknowledged(one)
    assert leases.take_unacknowledged(2) == []


def test_a_lease_that_lacks_output_is_looked_at_in_time() -> None:
    leases = Leases()
    one = leases.of(ONE, "")
    leases.look(one)
    assert leases.lacking == {}
    one.output.announce(2, 5)
    leases.look(one)
    assert leases.lacking == {ONE: one}
    assert leases.look_s() == 5 + GAP_S
    leases.check()
    one.output.give_up()
    leases.look(one)
    assert leases.lacking == {}
    leases.check()
