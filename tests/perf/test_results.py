from perf.measure import Options, Series
from perf.peers import ALL, BURLA, EXTRAS, installed
from perf.results import Before, markdown

OPTIONS = Options((BURLA, "Pool"), 3, 2)
BESIDE = Series(
    "tiny/list",
    {BURLA: [0.1, 0.3, 0.2], "Pool": [0.2, 0.3, 0.1], "Pool, chunk 9": [0.1, 0.1, 0.1]},
    ["9 calls"],
)


def test_the_page_tells_ratios_within_rounds_and_who_is_quickest() -> None:
    page = markdown([BESIDE, Series("big/result", {BURLA: [2.0]})], OPTIONS, Before(loop_s=0.021))
    assert "| tiny/list | 0.200 s | Pool, chunk 9 | 0.100 s | 2.00 |\n" in page
    assert "| Pool | 0.100 s | 0.200 s | 0.300 s | 3 | 1.00 |\n" in page
    assert "| big/result | 2.000 s |  |  |  |\n" in page
    assert "- 9 calls\n" in page
    assert "2 CPUs" in page
    assert "`sum(range(1_000_000))` takes 21 ms\n" in page
    assert "busy" not in page


def test_a_busy_machine_is_said() -> None:
    assert "1.5 processes ran on each CPU" in markdown([BESIDE], OPTIONS, Before(busy=1.5))


def test_peers_that_are_extras_are_left_out_where_they_are_not_installed() -> None:
    assert set(EXTRAS) < set(ALL)
    assert {"Pool", "ProcessPoolExecutor", BURLA} <= set(installed(ALL))
