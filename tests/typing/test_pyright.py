"""Code of users has complete types under pyright, at its strictest."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_code_of_users_has_no_unknown_types(tmp_path: Path) -> None:
    (tmp_path / "users_code.py").write_text((HERE / "users_code.py").read_text())
    project = {"typeCheckingMode": "strict", "extraPaths": [str(HERE.parents[1])]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(project))
    line = [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--outputjson"]
    line += ["--pythonpath", sys.executable]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    wrong = [
        (one["range"]["start"]["line"] + 1, one["message"]) for one in said["generalDiagnostics"]
    ]
    assert wrong == []
    assert said["summary"]["filesAnalyzed"] > 0
