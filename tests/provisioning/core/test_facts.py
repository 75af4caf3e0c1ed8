import pytest

from burla.provisioning.core.facts import Facts, FactsError, parse

BARE = "burla-facts 1\npython /usr/bin/python3.11\nfree_kb 1000\nburla-facts end\n"


def test_a_bare_machine_says_little() -> None:
    assert parse(BARE) == Facts(python="/usr/bin/python3.11", free_kb=1000)


def test_what_a_login_prints_around_is_passed_over() -> None:
    assert parse(f"Welcome!\n{BARE}You have mail.\n") == parse(BARE)


def test_a_node_says_all_of_it() -> None:
    said = (
        "burla-facts 1\npython /usr/bin/python3.11\nwithout-venv \nothers 3.9 at /usr/bin/python3\n"
        "free_kb 7\nservice systemd\nmachine Linux x86_64\nvenv 3.11\ninstalled a\nsettings b\n"
        "version 0.1.0\nrunning a b\nready_s 3\nwheel 12ab burla.whl\nthere yes\nnew word\n"
        "burla-facts end\n"
    )
    assert parse(said) == Facts(
        python="/usr/bin/python3.11",
        others="3.9 at /usr/bin/python3",
        free_kb=7,
        venv="3.11",
        installed="a",
        settings="b",
        version="0.1.0",
        running="a b",
        ready_s=3,
        wheels={"burla.whl": "12ab"},
        there=True,
    )


@pytest.mark.parametrize("said", ["", "no shell here", BARE[:-8], BARE.replace("1000", "")])
def test_what_is_cut_off_is_no_answer(said: str) -> None:
    with pytest.raises(FactsError):
        parse(said)
