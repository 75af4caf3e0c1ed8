"""Jobs in the backup of a head: their records, and the detached ones."""

import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from opening import open_job

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.stored_records import pack
from burla.provisioning import backup, job_backup, state
from burla.provisioning.config import ClusterConfig
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.state import State
from burla.scheduler.shell.store_reading import StoreReading
from burla.scheduler.store.effects import LoadSpec
from burla.scheduler.store.recovery import Found

JOB, OTHER, LEASE, DIGEST = b"J" * 16, b"K" * 16, b"L" * 16, b"D" * 32
BLOB = m.Blob(DIGEST, 5)


@pytest.fixture(params=["keys/store", "s.store"])
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[State, Path]:
    """Have a cluster, over TCP and over ipc, with a detached job that goes on."""
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path / "state"))
    lab = State(ClusterConfig(name="lab"), "burla://h:1?key=" + "ab" * 32)
    state.write(lab)
    store = state.directory_of("lab") / str(request.param)
    for job in (JOB, OTHER):
        write_down(store, job)
    return lab, store


def write_down(store: Path, job: bytes) -> None:
    """Write a job down that has two inputs, and of which the second outcome is torn."""
    folder = store / "jobs" / job.hex()
    folder.mkdir(parents=True)
    leaves = (m.Leaf(batch=0, start=0, count=2, frames=1),)
    records: list[tuple[m.Message, list[bytes]]] = [
        (sm.StoreOpened(job, "ann", "key", "3.11", "u", "h", 1.0), []),
        (open_job(job, detached=b"", blobs=(BLOB,)), [b"function"]),
        (m.Inputs(job=job, batch=0, start=0, leaves=leaves, total=2), [b"inputs"]),
    ]
    written = [part for said, payload in records for part in pack(said, payload)]
    (folder / "inputs-0.log").write_bytes(b"".join(written))
    for seq in range(1, 12):
        said = m.JobOutcomes(job=job, lease=LEASE, seq=seq, node="n", runs=b"", output=0)
        (folder / f"outcomes-{seq - 1}.log").write_bytes(b"".join(pack(said, [b"r" * 99])))
    with (folder / "outcomes-10.log").open("ab") as torn:
        torn.write(b"".join(pack(said, [b"s" * 99]))[:-1])
    tenant = store / "blobs" / ("0" * 32)
    tenant.mkdir(parents=True, exist_ok=True)
    (tenant / DIGEST.hex()).write_bytes(b"bytes")
    (tenant / f"{DIGEST.hex()}.{job.hex()}.part").write_bytes(b"on its way")
    (store / "lock").write_bytes(b"")


def found(store: Path, job: bytes = JOB) -> Found:
    one = StoreReading(store).find(job)
    assert one is not None
    return one


def test_detached_jobs_come_back_as_they_were_at_that_moment(
    lab: tuple[State, Path], tmp_path: Path
) -> None:
    cluster, store = lab
    table = store.with_name(store.name.replace("store", "jobs.sqlite3"))
    with closing(sqlite3.connect(table)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE jobs (job)")
        live.execute("INSERT INTO jobs VALUES ('J')")
        live.commit()  # in the log beside it, as while a scheduler runs
        made = backup.save(cluster, tmp_path / "b", with_jobs=True)
    assert list(made.files) == ["cluster.json"]
    state.forget("lab")
    shutil.rmtree(store.parent, ignore_errors=True)
    assert backup.restore(tmp_path / "b") == made
    assert state.read("lab") == cluster
    one = found(store)
    assert one.damages == []  # what was torn is not in it
    assert one.progress.leases[LEASE].seq == 11
    _, function = StoreReading(store).load_spec(LoadSpec(JOB, *one.spec_at))
    assert (one.total, len(one.batches), function) == (2, 1, [b"function"])
    assert [path.read_bytes() for path in store.glob("blobs/*/*")] == [b"bytes"]
    assert not (store / "lock").exists()
    with closing(sqlite3.connect(table)) as restored:
        assert restored.execute("SELECT job FROM jobs").fetchall() == [("J",)]


def test_without_being_asked_no_job_is_in_it(lab: tuple[State, Path], tmp_path: Path) -> None:
    cluster, _ = lab
    backup.save(cluster, tmp_path / "b")
    with tarfile.open(tmp_path / "b") as tar:
        assert tar.getnames() == [backup.MANIFEST, "cluster.json"]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_job_that_goes_or_grows_meanwhile_is_left_out_and_others_are_not(
    lab: tuple[State, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    cluster, store = lab
    real = job_backup._parts

    def parts(folder: Path, log: str) -> list[job_backup.Part]:
        made = real(folder, log)
        if folder.name == JOB.hex():
            if is_deleted and log == "outcomes":
                (folder / "outcomes-10.log").unlink()
            elif log == "inputs" and not is_deleted:
                with (folder / "inputs-0.log").open("ab") as file:
                    file.write(b"".join(pack(m.InputsEnd(JOB, 2))))
        return made

    monkeypatch.setattr(job_backup, "_parts", parts)
    backup.save(cluster, tmp_path / "b", with_jobs=True)
    state.forget("lab")
    shutil.rmtree(store.parent, ignore_errors=True)
    backup.restore(tmp_path / "b")
    reading = StoreReading(store)
    assert [job for job in reading.jobs() if any((store / "jobs" / job.hex()).iterdir())] == [OTHER]
    assert found(store, OTHER).progress.leases[LEASE].seq == 11


def test_of_a_damaged_one_nothing_comes_back(lab: tuple[State, Path], tmp_path: Path) -> None:
    cluster, store = lab
    backup.save(cluster, tmp_path / "b", with_jobs=True)
    state.forget("lab")
    shutil.rmtree(store.parent, ignore_errors=True)
    with tarfile.open(tmp_path / "b") as good, tarfile.open(tmp_path / "bad", "w:gz") as bad:
        for entry in good:
            data = good.extractfile(entry)
            assert data is not None
            if entry.name.endswith("inputs-0.log"):
                held = bytearray(data.read())
                held[-1] ^= 1
                (tmp_path / "held").write_bytes(held)
                with (tmp_path / "held").open("rb") as changed:
                    bad.addfile(entry, changed)
            else:
                bad.addfile(entry, data)
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "torn").write_bytes(whole[: len(whole) // 2])
    for name in ("bad", "torn"):
        with pytest.raises(BadConfig, match=r"is damaged|cannot be read|is not a backup"):
            backup.restore(tmp_path / name)
        left = [path for path in state.directory_of("lab").rglob("*") if path.is_file()]
        assert left == []


@pytest.mark.parametrize(
    "name", ["../x", "keys/server.key", "keys/store/jobs/x/inputs-0.log", "keys/store/../../x"]
)
def test_what_does_not_belong_into_a_backup_is_not_written(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "b", "w") as tar:
        tar.addfile(tarfile.TarInfo(f"{job_backup.PLACE}/{name}"))
    with (
        tarfile.open(tmp_path / "b") as tar,
        pytest.raises(tarfile.TarError, match="does not belong"),
    ):
        job_backup.restore(tar, tmp_path / "to")
    assert not (tmp_path / "to").exists()
