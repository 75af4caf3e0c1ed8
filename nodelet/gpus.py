"""The GPUs of this machine, as its driver tells them. To find that there are none costs little."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

DEVICE_FILES = "nvidia"  # and a number, in /dev
ASK = ("nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader")
ANSWER_S = 30.0  # the driver is loaded by the first who asks
VISIBLE = "CUDA_VISIBLE_DEVICES"  # to this process: Slurm gives a job some of a machine's
MODEL_CHARACTERS_MAX = 64
UNKNOWN = "GPU"


class Gpu(Struct, frozen=True):
    """One device."""

    id: str  # as CUDA_VISIBLE_DEVICES takes it
    model: str  # for people


def found_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> tuple[Gpu, ...]:
    """Return the devices that this process may use, in the driver's order."""
    files = _device_files(devices)
    visible = environment.get(VISIBLE)
    if not files or visible == "":
        return ()
    known = _told() or tuple(Gpu(str(number), UNKNOWN) for number in range(len(files)))
    return known if visible is None else _those(visible, known)


def _device_files(devices: Path) -> list[str]:
    names: list[str] = []
    with suppress(OSError):  # it cannot be listed
        names = [name for name in os.listdir(devices) if name.startswith(DEVICE_FILES)]
    return [name for name in names if name[len(DEVICE_FILES) :][:1].isdecimal()]


def counted(
    found: tuple[Gpu, ...], count: int | None, environment: Mapping[str, str] = os.environ
) -> tuple[Gpu, ...]:
    """Return as many as an administrator says there are; None: those that were found.

    More than were found are there only if nothing tells which: else they would be the same again.
    """
    if count is None or found or VISIBLE in environment:
        return found[:count]
    return tuple(Gpu(str(number), UNKNOWN) for number in range(count))


def _told() -> tuple[Gpu, ...]:
    """Return what the driver tells; nothing if it cannot be asked."""
    try:
        asked = subprocess.run(ASK, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = [line.partition(",") for line in asked.stdout.splitlines() if "," in line]
    return tuple(Gpu(uuid.strip(), _printable(model.strip())) for uuid, _, model in lines)


def _printable(model: str) -> str:
    return "".join(c for c in model if c.isprintable())[:MODEL_CHARACTERS_MAX] or UNKNOWN


def _those(visible: str, known: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Return the devices that a list of numbers and ids names; like CUDA, up to the first wrong."""
    found: list[Gpu] = []
    for word in visible.split(","):
        name = word.strip()
        if name.isdecimal() and int(name) < len(known):
            found.append(known[int(name)])
        elif name.startswith("GPU-") and (
            some := [gpu for gpu in known if gpu.id.startswith(name)]
        ):
            found.append(some[0])
        elif name.startswith("MIG-"):  # a part of a device, which the list of devices does not have
            found.append(Gpu(name, "MIG"))
        else:
            break
    return tuple(dict.fromkeys(found))  # no job is given a device of another's
