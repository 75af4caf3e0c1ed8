"""`burla jobs ...`: for people a table, for programs JSON that keeps to its schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import overviews
import pytest
from msgspec.structs import replace
from overviews import JOB, summary

from burla import cli
from burla.commands import admin, detaching, report_types
from burla.commands.job_output import Printed
from burla.errors import ClusterUnreachable
from burla.protocol import job_messages as jm, messages as m
from burla.protocol.detach_messages import ADOPT, id_of
from burla.protocol.job_messages import JobState

SCHEMA = json.loads(Path(report_types.__file__).with_name("schema.json").read_text("utf-8"))


def record(state: JobState = JobState.RUNNING, **more: Any) -> jm.JobRecord:
    """Return what is kept of a job by who keeps most of it."""
    return replace(
        overviews.record(state, **more),
        faults=(
            jm.Fault(7, "ValueError", "no\nsecond line", "n1", 3, 1.5, 34 << 20, "so\nfar"),
            jm.Fault(9, "KeyError", "'x'", "n2"),
            jm.Fault(11, "ValueError", "", ""),
        ),
        durations=((10, 300), (20, 100)),
        slowest=(
            jm.SlowCall(5, 6, 30.0, "n1", 5_000_000, "working"),
            jm.SlowCall(20, 30, 4.0, "n2"),
        ),
        error_types=(jm.ErrorCount("KeyError", 1), jm.ErrorCount("ValueError", 20)),
        leases=(jm.LeaseSpan("n1", 0.5, 80.0, 4, True),),
        calls=(jm.CallSpan("n1", 7, 8, 1.0, 2.0, True),),
        running=(jm.Lasting("n1", 17, 18, 75.0), jm.Lasting("n2", 0, 0, 20.0)),
    )


def node(name: str, state: m.NodeState = m.NodeState.LEASED) -> m.NodeStatus:
    return m.NodeStatus(name, "uid", 8, 4 << 30, "3.11", state, "")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[type[m.Message], Any]:
    """Return what a scheduler answers, by question; tests change it."""
    said: dict[type[m.Message], Any] = {
        jm.ListJobs: jm.JobList((summary(), summary(JobState.COMPLETE, maps=30)), 5),
        jm.ShowJob: jm.JobShown(record()),
        jm.CancelJob: jm.JobShown(record()),
        jm.DetachJob: jm.JobShown(record()),
        m.ListNodes: m.Nodes((node("n1"), node("n2", m.NodeState.LOST))),
    }

    def put(address: str, question: m.Message, *answer: Any, feature: str = "") -> Any:
        assert address == "ipc:///s"
        wanted = {m.ListNodes: "", jm.DetachJob: ADOPT}.get(type(question), jm.JOBS)
        assert feature == wanted
        return said[type(question)]

    monkeypatch.setattr(detaching, "_stored", lambda address, job: "ab" * 16)

    def output_of(address: str, job: str, *, follow: bool) -> Iterator[Printed]:
        assert address == "ipc:///s"
        yield Printed(JOB.hex(), 0, b"l" * 16, "n1", "stdout", 50.0, (3, 4), b"one\ntwo\n")

    monkeypatch.setattr("burla.commands.job_output.output_of", output_of)
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///s")
    monkeypatch.setattr("burla.commands.admin.put", put)
    return said


COMMANDS = {
    "jobs.list": ["jobs", "list", "--limit", "2"],
    "jobs.show": ["jobs", "show", "0001"],
    "jobs.why": ["jobs", "why"],
    "jobs.errors": ["jobs", "errors", "0001"],
    "jobs.cancel": ["jobs", "cancel", "0001", "0001"],
    "jobs.detach": ["jobs", "detach", "0001"],
    "jobs.logs": ["jobs", "logs", "0001"],
    "top": ["top", "--once"],
}
Answers = dict[type[m.Message], Any]


def printed(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert cli.main(words) == code
    return capsys.readouterr().out


def test_the_schema_in_the_wheel_is_that_of_the_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_types.schema() == SCHEMA
    assert json.loads(printed(["schema"], capsys)) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("kind", COMMANDS)
def test_each_command_keeps_to_the_schema(
    kind: str, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(printed([*COMMANDS[kind], "--json"], capsys).splitlines()[0])
    assert (said["schema"], said["kind"]) == (1, kind)
    jsonschema.validate(said, SCHEMA)
    del said["data"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(said, SCHEMA)


@pytest.mark.parametrize("state", JobState)
def test_a_job_in_any_state_keeps_to_the_schema(
    state: JobState, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    answers[jm.ShowJob] = jm.JobShown(record(state, total=None, why="so"))
    for words in (["jobs", "show"], ["jobs", "why"], ["jobs", "errors"]):
        said = json.loads(printed([*words, "--json"], capsys))
        jsonschema.validate(said, SCHEMA)
        printed(words, capsys)
        if words[1] == "show":
            assert (said["data"]["ended"] is None) == (state in jm.OPEN_STATES)


def test_there_is_a_command_for_each_kind_of_the_schema() -> None:
    assert set(SCHEMA["discriminator"]["mapping"]) == {*COMMANDS, "error"}


@pytest.mark.parametrize(
    "words",
    [["jobs", "show", "77"], ["jobs", "cancel", "77"], ["jobs", "detach", "77"], ["jobs", "why"]],
)
def test_where_there_is_no_such_job_it_is_said(
    words: list[str], answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    said_no = jm.JobShown(None, "there is no job 77")
    answers[jm.ShowJob] = answers[jm.CancelJob] = answers[jm.DetachJob] = said_no
    said = json.loads(printed([*words, "--json"], capsys, 1))
    jsonschema.validate(said, SCHEMA)
    assert (said["error"]["kind"], said["error"]["text"]) == ("no_job", "there is no job 77")
    assert cli.main(words) == 1
    assert capsys.readouterr().err == "burla: there is no job 77\n"


def test_a_list_is_a_table(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(COMMANDS["jobs.list"], capsys).splitlines()
    heads = [
        "JOB",
        "USER",
        "FUNCTION",
        "STATE",
        "DONE",
        "FAILED",
        "NODES",
        "OPENED",
        "(UTC)",
        "TOOK",
    ]
    assert lines[0].split() == heads
    assert lines[1].split()[:7] == ["00010203", "anna", "parse", "running", "400/1,000", "3", "2"]
    assert "parse x30" in lines[2]
    assert lines[3] == "and 3 more (--limit)"
    answers[jm.ListJobs] = jm.JobList((), 0)
    assert printed(["jobs", "list"], capsys) == "no jobs\n"


def test_all_that_is_kept_is_shown(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(COMMANDS["jobs.show"], capsys)
    for part in (
        "inputs    400 of 1,000 done, 3 failed, 2 called again\n",
        "options   func_cpu=2, func_ram=3, max_parallelism=10, grow=True, return_exceptions=True,"
        " timeout=5, retries=2 (Python 3.11)\n",
        "bytes     123 kB in, 5 MB out\n",
        "500 ms        6.5 s  number 1 in line, the node is busy\n",
        "n1 (now)  2       4      1 min 20 s  300\n",
        "and 3 more\n",
        "< 1.02 ms  300    ##############################\n",
        "input 5                     30 s  n1  5 MB\n",
        "one of the inputs 20 to 29  4 s   n2\n",
        "what the slowest has printed last:\n    | working\n",
        "loading the function  20 s        n2\n",
        "input 7 on n1 (3 tries, 1.5 s, 35.7 MB): ValueError: no\n    second line\n"
        "    | so\n    | far\n",
        "input 11: ValueError\n",
    ):
        assert part in shown, part


@pytest.mark.parametrize(
    ("state", "more", "wanted"),
    [
        (JobState.RUNNING, {}, "running: it runs, up to 8 calls at once on 2 nodes: 400 of 1,000"),
        (JobState.WAITING, {"why": "no node is connected to the cluster"}, "`burla nodes list`"),
        (JobState.WAITING, {"why": "number 2 in line, x"}, "`burla jobs cancel JOB`"),
        (JobState.WAITING, {}, "is waiting: it has only just been opened"),
        (JobState.FAILED, {"why": "input 3: no"}, "-> `burla jobs errors 00010203`"),
        (JobState.COMPLETE, {"done": 1000}, "it is complete: 1,000 of 1,000 inputs, 3 of them"),
        (JobState.CANCELLED, {"why": "cancelled by root"}, "is cancelled: cancelled by root"),
    ],
)
def test_why_says_how_it_stands_and_what_to_do(
    state: JobState,
    more: dict[str, Any],
    wanted: str,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers[jm.ShowJob] = jm.JobShown(record(state, **more))
    assert wanted in printed(["jobs", "why"], capsys)


def test_errors_are_counted_by_type(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    first = printed(["jobs", "errors"], capsys).splitlines()[0]
    assert first == "3 calls have failed: 20 ValueError, 1 KeyError"
    answers[jm.ShowJob] = jm.JobShown(record(failed=50))
    assert "50 calls have failed; 3 of them are kept: " in printed(["jobs", "errors"], capsys)
    answers[jm.ShowJob] = jm.JobShown(record(failed=0))
    assert printed(["jobs", "errors"], capsys) == "no call of job 00010203 has failed\n"


def test_errors_are_grouped_by_type(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(["jobs", "errors"], capsys).splitlines()[1:]
    assert lines == [
        "",
        "ValueError (20 calls)",
        "  input 7 on n1 (3 tries, 1.5 s, 35.7 MB): no",
        "      second line",
        "      | so",
        "      | far",
        "  input 11",
        "",
        "KeyError (1 call)",
        "  input 9 on n2: 'x'",
    ]


def test_top_shows_jobs_and_nodes(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, heads, *_ = printed(["top", "--once"], capsys).splitlines()
    said = "nodes: 1 leased, 1 lost; 8 CPUs, 4.29 GB; up to 16 calls at once"
    assert (first[10:], second) == (said, "")
    assert heads.startswith("JOB")


def test_top_goes_on_until_it_is_stopped(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("burla.commands.jobs.time.sleep", sleep)
    lines = printed(["top", "--json", "--interval", "7"], capsys, 130).splitlines()
    assert looks == [7.0] * 3
    assert [json.loads(line)["kind"] for line in lines] == ["top"] * 3 + ["error"]


@pytest.mark.parametrize("as_json", [True, False])
def test_top_says_that_nothing_answers_and_goes_on(
    as_json: bool,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    usual = admin.put

    def put(*told: Any, **more: Any) -> Any:
        if looks == 1:
            raise ClusterUnreachable("ipc:///s", "no answer within 5 s")
        return usual(*told, **more)

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("burla.commands.admin.put", put)
    monkeypatch.setattr("burla.commands.jobs.time.sleep", sleep)
    assert cli.main(["top", *["--json"] * as_json]) == 130
    out, err = capsys.readouterr()
    if as_json:
        said = [json.loads(line) for line in out.splitlines()]
        for one in said:
            jsonschema.validate(one, SCHEMA)
        assert [one["kind"] for one in said] == ["top", "error", "top", "error"]
        assert said[1]["error"]["kind"] == "cluster_unreachable"
    else:
        assert out.count("nodes: 1 leased, 1 lost") == 2
        assert err.startswith("burla: no cluster answers at ipc:///s: no answer within 5 s")


@pytest.mark.parametrize("tried", [0, 1])
def test_an_administrator_is_told_under_which_id_the_job_of_another_goes_on(
    tried: int,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is stored belongs to its user: only that it has a record is seen."""
    wanted = id_of(JOB, tried).hex()

    def put(address: str, question: m.Message, *more: Any, feature: str = "") -> Any:
        if not isinstance(question, jm.ShowJob):
            return answers[type(question)]
        assert question.brief
        if question.job == JOB.hex():
            return jm.JobShown(record(JobState.ENDED))
        return jm.JobShown(record() if question.job == wanted else None, "there is no such job")

    monkeypatch.setattr(detaching, "_stored", lambda address, job: "")
    monkeypatch.setattr("burla.commands.admin.put", put)
    said = printed(["jobs", "detach", "0001"], capsys)
    assert f'It goes on as {wanted}: burla.attach("{wanted}").results()' in said


def test_a_job_that_ended_before_it_was_detached_is_said_to_be_over(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(address: str, question: m.Message, *more: Any, feature: str = "") -> Any:
        if isinstance(question, jm.ShowJob) and question.job != JOB.hex():
            return jm.JobShown(None, "there is no such job")
        return jm.JobShown(record(JobState.COMPLETE))

    monkeypatch.setattr(detaching, "_stored", lambda address, job: "")
    monkeypatch.setattr("burla.commands.admin.put", put)
    assert cli.main(["jobs", "detach", "0001"]) == 1
    assert f"job {JOB.hex()} is over" in capsys.readouterr().err


def test_of_several_jobs_all_are_cancelled_that_can_be(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(address: str, question: jm.CancelJob, *answer: Any, feature: str = "") -> jm.JobShown:
        if question.job == "77":
            return jm.JobShown(None, "there is no job 77")
        return jm.JobShown(record())

    monkeypatch.setattr("burla.commands.admin.put", put)
    assert cli.main(["jobs", "cancel", "0001", "77", "0002"]) == 1
    said = capsys.readouterr()
    assert said.out.count("cancelled job") == 2
    assert said.err == "burla: there is no job 77\n"
    told, error = printed(["jobs", "cancel", "77", "0001", "--json"], capsys, 1).splitlines()
    assert [json.loads(line)["kind"] for line in (told, error)] == ["jobs.cancel", "error"]
    assert len(json.loads(told)["data"]) == 1
    for line in (told, error):
        jsonschema.validate(json.loads(line), SCHEMA)


def test_columns_are_aligned_in_all_scripts(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Letters of some take two columns, marks on letters none."""
    names = ("parse", "処理する", "e\u0301te\u0301", "長" * 40)
    answers[jm.ListJobs] = jm.JobList(tuple(summary(name=name) for name in names), 4)
    head, *rows = printed(["jobs", "list"], capsys).splitlines()
    at = head.index("STATE")
    for row, wide, marks in zip(rows, (0, 4, 0, 15), (0, 0, 2, 0), strict=True):
        assert row[at - wide + marks :].startswith("running")
