"""Big functions in a loop of maps, on two nodes over TCP with keys and in a private cluster."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import Cluster, cluster
from scripts import succeed

from burla import remote_parallel_map
from burla.core.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MIB = 1 << 20
MODEL = np.random.default_rng(1).random(4 * MIB)  # 32 MiB
TABLE = os.urandom(8 * MIB)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o755)
    with cluster(folder, 1, 1, bind="tcp://127.0.0.1:0", isolation="best") as made:
        yield made


@pytest.fixture
def sent(two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Return how many bytes of each blob this process has sent, by its digest."""
    sizes: Counter[bytes] = Counter()
    send = Session.send_wanted

    def counting(self: Session, wanted: Any) -> Any:
        effects: Any = send(self, wanted)
        for effect in effects:
            sizes[effect.message.digest] += sum(map(len, effect.payload))
        return effects

    monkeypatch.setattr(Session, "send_wanted", counting)
    return sizes


def anonymous_bytes() -> int:
    """Return how much memory of this process is its own and no file's."""
    with open("/proc/self/smaps_rollup") as file:
        sizes = dict(line.split(":") for line in file.read().splitlines()[1:])
    return int(sizes["Anonymous"].split()[0]) << 10


def big(sent: Counter[bytes]) -> int:
    """Return how many bytes of them are of big blobs: this test's own modules are smaller."""
    return sum(size for size in sent.values() if size >= len(TABLE))


def test_a_loop_sends_a_model_once_for_all_nodes(sent: Counter[bytes]) -> None:
    model, table = MODEL, TABLE

    def look(i: int) -> tuple[float, int, str]:
        return float(model[i]), table[i], os.environ["BURLA_NODE"]

    places = list(range(0, 4 * MIB, MIB))
    nodes = set()
    for _ in range(3):
        found = remote_parallel_map(look, places)
        assert [each[:2] for each in found] == [(model[i], table[i]) for i in places]
        nodes |= {each[2] for each in found}
    assert big(sent) == model.nbytes + len(table)
    table = b"x" + table[1:]  # another constant: the model is not sent again
    assert remote_parallel_map(look, [0])[0][1] == ord("x")
    assert big(sent) == model.nbytes + 2 * len(table)


def test_a_worker_shares_what_it_reads_and_keeps_what_it_writes(two_nodes: Cluster) -> None:
    model = MODEL

    def read(i: int) -> tuple[float, int]:
        before = anonymous_bytes()
        return float(model.sum()), anonymous_bytes() - before

    def write(i: int) -> float:
        model[0] += 1
        return float(model[0])

    expected = float(model.sum())
    for total, more in remote_parallel_map(read, range(2)):
        assert total == pytest.approx(expected)
        assert more < model.nbytes // 4
    for _ in range(2):  # what was written is gone with its job
        assert min(remote_parallel_map(write, range(2))) == MODEL[0] + 1


def test_the_workers_of_another_function_have_nothing_of_it(two_nodes: Cluster) -> None:
    model = MODEL
    remote_parallel_map(lambda i: float(model[i]), range(2))

    def look(i: int) -> tuple[list[str], list[str]]:
        links = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the listing
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
        maps = Path("/proc/self/maps").read_text().splitlines()
        blobs = [link for link in links if "burla-blob" in link]
        return blobs, [line for line in maps if "burla-blob" in line]

    assert remote_parallel_map(look, range(2)) == [([], [])] * 2


def test_a_loop_in_a_private_cluster_puts_a_model_down_once(tmp_path: Path) -> None:
    succeed(
        """
import glob, os
import numpy as np
from burla import remote_parallel_map

model, table = np.arange(1 << 20), os.urandom(1 << 20)

def look(i):
    model[i] += 1
    return int(model[i]), table[i]

def files():
    return sorted(glob.glob(f"/dev/shm/burla-{os.getpid()}-*/parts/*"))

found = []
for _ in range(3):
    assert remote_parallel_map(look, [5, 7]) == [(6, table[5]), (8, table[7])]
    found.append(files())
assert len(found[0]) == 2 and found[0] == found[1] == found[2], found
model[5] = 100
assert remote_parallel_map(look, [5]) == [(101, table[5])]
assert len(files()) == 3
print(os.getpid())
""",
        tmp_path,
        private=True,
    )
