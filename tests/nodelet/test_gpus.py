"""Which GPUs a machine has, by the answers of a program that stands in for that of a driver."""

from pathlib import Path

import pytest

from burla.nodelet.gpus import Gpu, counted, found_gpus

L4 = "GPU-aaaa1111, NVIDIA L4"
T4 = "GPU-bbbb2222, Tesla T4"
BOTH = (Gpu("GPU-aaaa1111", "NVIDIA L4"), Gpu("GPU-bbbb2222", "Tesla T4"))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of device files, and a program that tells of two devices."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '{L4}\\n{T4}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (devices / name).touch()
    return devices


def test_those_that_the_driver_tells(driver: Path) -> None:
    assert found_gpus({}, driver) == BOTH


def test_without_device_files_the_driver_is_not_asked(driver: Path, tmp_path: Path) -> None:
    assert found_gpus({}, tmp_path) == ()


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("", ()),
        ("1", BOTH[1:]),
        ("1,0", BOTH[::-1]),
        ("GPU-bbbb", BOTH[1:]),
        ("0,7,1", BOTH[:1]),  # like CUDA, up to the first that is not there
        ("0,0", BOTH[:1]),  # no two jobs get one
        ("1,GPU-bbbb,0", BOTH[::-1]),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("MIG-1234", (Gpu("MIG-1234", "MIG"),)),
    ],
)
def test_only_those_that_are_visible_to_us(
    driver: Path, visible: str, found: tuple[Gpu, ...]
) -> None:
    assert found_gpus({"CUDA_VISIBLE_DEVICES": visible}, driver) == found


@pytest.mark.parametrize("script", ["exit 9", "echo no devices", "kill -9 $$"])
def test_a_driver_that_cannot_be_asked_leaves_what_its_files_say(driver: Path, script: str) -> None:
    (driver.parent / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    assert found_gpus({}, driver) == (Gpu("0", "GPU"), Gpu("1", "GPU"))


def test_a_model_is_words_for_people(driver: Path) -> None:
    (driver.parent / "bin" / "nvidia-smi").write_text("#!/bin/sh\nprintf 'GPU-1, a\\033[1mb\\n'\n")
    assert found_gpus({}, driver) == (Gpu("GPU-1", "a[1mb"),)


def test_an_administrator_may_say_how_many() -> None:
    assert counted(BOTH, None) == BOTH
    assert counted(BOTH, 1) == BOTH[:1]
    assert counted(BOTH, 0) == ()
    assert counted((), 2, {}) == (Gpu("0", "GPU"), Gpu("1", "GPU"))


def test_none_is_invented_where_it_is_known_which_there_are() -> None:
    assert counted(BOTH, 4, {}) == BOTH
    assert counted(BOTH[:1], 4, {"CUDA_VISIBLE_DEVICES": "0"}) == BOTH[:1]
    assert counted((), 2, {"CUDA_VISIBLE_DEVICES": ""}) == ()
