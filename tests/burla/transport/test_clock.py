from burla.transport.clock import LEAP_S, AwakeClock


def test_it_leaves_out_the_time_in_which_the_process_stood_still() -> None:
    at_s = 100.0
    clock = AwakeClock(lambda: at_s)
    assert clock() == 0.0
    for _ in range(10):
        at_s += 1.0
        clock()
    assert clock() == 10.0
    at_s += 3600.0
    assert clock() == 10.0 + LEAP_S
    at_s += 0.5
    assert clock() == 10.5 + LEAP_S
