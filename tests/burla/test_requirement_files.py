"""Files that list packages are read as their tools read them."""

from pathlib import Path
from textwrap import dedent

import pytest

from burla.requirement_files import read_file


def read(path: Path, text: str) -> tuple[list[str], bool]:
    path.write_text(dedent(text))
    return read_file(str(path))


def test_a_requirements_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("six\n")
    said = read(
        tmp_path / "requirements.txt",
        """\
        # what we need
        numpy==2.1  # of all
        --index-url https://example.invalid/simple
        pandas>=2 \\
            --hash=sha256:00
        -r more.txt
        """,
    )
    assert said == (["numpy==2.1", "pandas>=2", "six"], False)


def test_what_cannot_be_had_by_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-e"):
        read(tmp_path / "requirements.txt", "-e .\n")
    with pytest.raises(ValueError, match="name each other"):
        read(tmp_path / "requirements.txt", "-r requirements.txt\n")


def test_a_project_is_read(tmp_path: Path) -> None:
    text = '[project]\nname = "x"\ndependencies = ["numpy>=2", "six"]\n'
    assert read(tmp_path / "pyproject.toml", text) == (["numpy>=2", "six"], False)
    with pytest.raises(ValueError, match="no table"):
        read(tmp_path / "pyproject.toml", "")
    with pytest.raises(ValueError, match="no TOML"):
        read(tmp_path / "pyproject.toml", "=")


def test_a_lock_file_is_read_for_this_platform(tmp_path: Path) -> None:
    said = read(
        tmp_path / "uv.lock",
        """\
        version = 1
        [[package]]
        name = "project"
        version = "0.1"
        source = { editable = "." }
        dependencies = [
            { name = "a", extra = ["fast"] },
            { name = "w", marker = "sys_platform == 'win32'" },
        ]
        [[package]]
        name = "a"
        version = "1.0"
        dependencies = [{ name = "b" }]
        [package.optional-dependencies]
        fast = [{ name = "c" }]
        [[package]]
        name = "b"
        version = "2.0"
        [[package]]
        name = "c"
        version = "3.0"
        [[package]]
        name = "w"
        version = "4.0"
        [[package]]
        name = "dev-only"
        version = "5.0"
        """,
    )
    assert (sorted(said[0]), said[1]) == (["a==1.0", "b==2.0", "c==3.0"], True)
