"""What the page for coding agents tells them to do is done, on a cluster."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from clusters import Cluster, run_script
from scripts import unasked
from skills import blocks, commands_of, page

from burla import cli
from burla.commands.report_types import schema

pytestmark = pytest.mark.slow
LOOKS = ("jobs", "top", "schema", "nodes list", "resume list", "env")  # changes nothing


def test_its_blocks_print_what_it_says(shared: Cluster, tmp_path: Path) -> None:
    done = run_script("\n".join(blocks(page(), "python")), tmp_path)
    assert done.stdout == "".join(blocks(page(), "text"))
    assert unasked(done.stderr) == ""


def test_its_commands_do_what_it_says(
    shared: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_script("import burla\nprint(burla.remote_parallel_map(abs, [-1]))", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    Path("SCRIPT").write_text("import json\n")

    def said(words: list[str]) -> Any:
        code = cli.main(words)
        out = capsys.readouterr().out
        reports = [
            json.loads(line) for line in ([out] if words == ["schema"] else out.splitlines())
        ]
        for report in reports:
            if "schema" in report:
                jsonschema.validate(report, schema())
        is_over = words[:2] == ["jobs", "cancel"]
        assert code == (1 if is_over else 0), (words, out)
        return reports

    (listed,) = said(["jobs", "list", "--json"])
    job = listed["data"]["jobs"][0]["job"][:12]
    for words in commands_of(page()):
        if " ".join(words).startswith(LOOKS):
            reports = said([job if word == "JOB" else word for word in words])
            assert reports or words[:2] == ["jobs", "logs"], "which has printed nothing"
    assert "anyOf" in said(["schema"])[0]
