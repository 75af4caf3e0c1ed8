"""The state of a daemon in a file: whole, private, and never through somebody else's link."""

import asyncio
import json
import logging
import os
import signal
from pathlib import Path

import pytest

from burla.system.dump import dump_on_signal, write_dump


def test_the_file_holds_the_state_and_is_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_dump(path, {"jobs": [1, 2], "text": "ü"})
    assert json.loads(path.read_text("utf-8")) == {"jobs": [1, 2], "text": "ü"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_dump_replaces_the_first_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_dump(path, {"n": 1})
    write_dump(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(tmp_path: Path) -> None:
    path, precious = tmp_path / "state.json", tmp_path / "precious"
    precious.write_text("mine")
    path.symlink_to(precious)
    part = tmp_path / f".state.json.{os.getpid()}"
    part.symlink_to(precious)
    write_dump(path, {})
    assert precious.read_text() == "mine"
    assert not path.is_symlink()


def test_a_state_that_is_no_json_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_dump(path, {"n": 1})
    with pytest.raises(TypeError):
        write_dump(path, {"n": b"bytes"})
    assert json.loads(path.read_text()) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def signalled(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is logged when this process gets the signal."""

    async def main() -> None:
        done = asyncio.Event()

        def state() -> object:
            asyncio.get_running_loop().call_soon(done.set)
            return {"n": 1}

        dump_on_signal(path, state)
        os.kill(os.getpid(), signal.SIGUSR2)
        await done.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    return [record.getMessage() for record in caplog.records]


def test_a_signal_writes_the_state_and_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    assert signalled(path, caplog) == [f"state written to {path}"]
    assert json.loads(path.read_text()) == {"n": 1}


def test_what_is_two_daemons_in_one_loop_writes_both_states(tmp_path: Path) -> None:
    async def main() -> None:
        done = asyncio.Event()

        def last() -> object:
            asyncio.get_running_loop().call_soon(done.set)
            return {"n": 2}

        dump_on_signal(tmp_path / "one.json", lambda: {"n": 1})
        dump_on_signal(tmp_path / "other.json", last)
        os.kill(os.getpid(), signal.SIGUSR2)
        await done.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)

    asyncio.run(main())
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert found == {"one.json": {"n": 1}, "other.json": {"n": 2}}


def test_a_directory_that_is_gone_is_logged_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone" / "state.json"
    assert signalled(path, caplog) == [
        f"cannot write the state to {path}: No such file or directory"
    ]
