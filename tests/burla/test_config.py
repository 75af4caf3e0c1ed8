from pathlib import Path

import pytest

from burla import errors
from burla.config import adopt_cluster, cluster_address, drop_cluster, may_grow, reconnect_timeout_s


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is configured, but a file in this directory would be read."""
    monkeypatch.delenv("BURLA_CLUSTER", raising=False)
    monkeypatch.delenv("BURLA_GROW", raising=False)
    monkeypatch.delenv("BURLA_RECONNECT_TIMEOUT_S", raising=False)
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path))
    return tmp_path


def write(directory: Path, text: str) -> None:
    (directory / "config.toml").write_text(text)


def test_nothing_is_configured() -> None:
    assert cluster_address() is None


def test_a_file_without_a_cluster_configures_none(directory: Path) -> None:
    write(directory, "# nothing yet\n")
    assert cluster_address() is None


def test_the_call_goes_before_the_environment_and_that_before_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        directory,
        'cluster = "ipc:///file"\n',
    )
    assert cluster_address() == "ipc:///file"
    monkeypatch.setenv(
        "BURLA_CLUSTER",
        "ipc:///environment",
    )
    assert cluster_address() == "ipc:///environment"
    assert cluster_address("ipc:///call") == "ipc:///call"


def test_the_users_directory_is_the_platforms(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BURLA_CONFIG_DIR")
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))
    (directory / "burla").mkdir()
    write(directory / "burla", 'cluster = "ipc:///run/s"\n')
    assert cluster_address() == "ipc:///run/s"


@pytest.mark.parametrize("address", ["", " ", "localhost:7270", "tcp:/h:1", "tcp://h:0", "ipc://"])
def test_what_is_no_address_is_an_error_that_repeats_it_wherever_it_came_from(
    address: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.BadSetting) as caught:
        cluster_address(address)
    assert repr(address) in str(caught.value)
    write(directory, f'cluster = "{address}"\n')
    with pytest.raises(errors.BadSetting) as caught:
        cluster_address()
    assert repr(address) in str(caught.value)
    assert str(directory) in str(caught.value)
    monkeypatch.setenv("BURLA_CLUSTER", address)
    with pytest.raises(errors.BadSetting) as caught:
        cluster_address()
    assert str(caught.value).startswith(
        f"BURLA_CLUSTER is {address!r}: it must be burla://HOST:PORT"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster = 7", "7"),
        ("cluster = ", "readable TOML"),
        ('clusters = "tcp://h:1"', "unknown settings (clusters)"),
        ("version = 2", "remove it and run `burla login ADDRESS`. Or a newer burla"),
        ("cluster = 'burla://h:1'", "`burla status` on the machine of its administrator"),
    ],
)
def test_a_file_that_is_not_understood_is_not_passed_over(
    directory: Path, text: str, words: str
) -> None:
    write(directory, text)
    with pytest.raises(errors.BadSetting) as caught:
        cluster_address()
    assert words in str(caught.value)
    assert str(directory / "config.toml") in str(caught.value)


def test_a_file_that_cannot_be_read_is_not_passed_over(directory: Path) -> None:
    (directory / "config.toml").mkdir()
    with pytest.raises(errors.BadSetting, match=r"config\.toml"):
        cluster_address()


def test_whether_a_job_may_grow_is_said_by_the_call_the_environment_or_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not may_grow()
    write(directory, "grow = true\n")
    assert may_grow()
    monkeypatch.setenv("BURLA_GROW", "no")
    assert not may_grow()
    assert may_grow(True)
    monkeypatch.setenv("BURLA_GROW", "On")
    assert may_grow()
    assert not may_grow(False)


def test_what_is_neither_yes_nor_no_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(directory, 'grow = "yes"\n')
    with pytest.raises(errors.BadSetting, match="'yes': it must be true or false"):
        may_grow()
    monkeypatch.setenv("BURLA_GROW", "perhaps")
    with pytest.raises(errors.BadSetting, match="BURLA_GROW is 'perhaps': it must be one of 1, "):
        may_grow()


def test_how_long_a_silent_scheduler_is_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reconnect_timeout_s() == 600
    write(directory, "reconnect_timeout_s = 30\n")
    assert reconnect_timeout_s() == 30
    monkeypatch.setenv("BURLA_RECONNECT_TIMEOUT_S", "2.5")
    assert reconnect_timeout_s() == 2.5


@pytest.mark.parametrize("said", ["soon", "", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_RECONNECT_TIMEOUT_S", said)
    with pytest.raises(errors.BadSetting, match="BURLA_RECONNECT_TIMEOUT_S"):
        reconnect_timeout_s()


AT = (("h:1", "a"), ("h:1", "b"), ("h:2", "b"))


def test_the_first_cluster_is_adopted_and_follows_its_address(directory: Path) -> None:
    write(directory, "# mine\ngrow = true\n")
    assert "from now on" in adopt_cluster("ipc:///a")
    assert "from now on" in adopt_cluster("ipc:///b", before="ipc:///a")
    assert cluster_address() == "ipc:///b"
    assert "go on using ipc:///b" in adopt_cluster("ipc:///c")
    assert cluster_address() == "ipc:///b"
    drop_cluster("ipc:///c")
    assert cluster_address() == "ipc:///b"
    drop_cluster("ipc:///b")
    assert (directory / "config.toml").read_text() == "# mine\ngrow = true\n"


def test_a_cluster_that_was_made_anew_at_its_place_is_adopted(directory: Path) -> None:
    """Its old address leads to nothing any more."""
    old, new, other = (f"burla://{host}?key={key * 64}" for host, key in AT)
    adopt_cluster(old)
    assert "from now on" in adopt_cluster(new)
    assert cluster_address() == new
    assert "go on using" in adopt_cluster(other)


def test_it_is_told_that_the_environment_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///x")
    assert "where BURLA_CLUSTER is not set, as it is here" in adopt_cluster("ipc:///a")


def test_what_is_no_settings_file_is_not_touched(directory: Path) -> None:
    write(directory, "clusters = 1\n")
    for change in (adopt_cluster, drop_cluster):
        with pytest.raises(errors.BadSetting):
            change("ipc:///a")
    assert (directory / "config.toml").read_text() == "clusters = 1\n"
