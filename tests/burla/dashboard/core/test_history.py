"""Counts at moments become rates, and the points of a chart."""

from burla.dashboard.core.history import History


def test_a_rate_is_that_of_the_last_seconds() -> None:
    history = History()
    assert history.rate() is None
    for second in range(100):
        history.add(1000.0 + second, 10 * second if second < 90 else 900 + 50 * (second - 90), 3)
    assert history.rate(5.0) == 50.0
    assert history.rate(1000.0) == (900 + 50 * 9) / 99


def test_what_is_seen_at_once_is_one_point() -> None:
    history = History()
    for at_s, count in ((1.0, 0), (1.3, 5), (2.0, 10)):
        history.add(at_s, count, 1)
    assert history.chart() == [(2.0, 10.0, 1)]


def test_a_chart_has_what_is_newer_and_no_more_than_it_may() -> None:
    history = History(4)
    for second in range(10):
        history.add(float(second), second * second, second)
    assert history.chart() == [(7.0, 13.0, 7), (8.0, 15.0, 8), (9.0, 17.0, 9)]
    assert history.chart(8.0) == [(9.0, 17.0, 9)]


def test_another_scheduler_counts_from_the_beginning() -> None:
    history = History()
    for at_s, count in ((1.0, 100), (2.0, 200), (3.0, 5), (4.0, 8)):
        history.add(at_s, count, 0)
    assert history.chart() == [(4.0, 3.0, 0)]
