"""Files that list packages are read as their tools read them."""

import importlib.metadata
from pathlib import Path
from textwrap import dedent

import pytest

from burla.shipping.requirement_files import read_file


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
        --only-binary :all:
        scipy\t# after a tab
        pandas>=2 \\
            --config-settings="a=b"
        -r more.txt
        --requirement=more.txt
        -rmore.txt
        """,
    )
    assert said == (["numpy==2.1", "scipy", "pandas>=2", *["six"] * 3], False)
    (tmp_path / "more.txt").write_text("\ufeffsix\n", encoding="utf-8")  # of an editor
    assert read_file(str(tmp_path / "more.txt")) == (["six"], False)


HASH = f"--hash=sha256:{'0' * 64}"
OTHER = f"--hash=sha256:{'1' * 64}"


def test_hashes_are_read_and_the_list_is_then_all_that_is_installed(tmp_path: Path) -> None:
    text = f"""\
        six==1.16 ; python_version >= "3" \\
            {HASH} \\
            {OTHER.replace("=", " ", 1)}  # of the wheel
        tiny==2 {HASH}
        """
    six = f'six==1.16 ; python_version >= "3" {HASH} {OTHER}'
    assert read(tmp_path / "requirements.txt", text) == ([six, f"tiny==2 {HASH}"], True)


@pytest.mark.parametrize(
    ("line", "lacks"), [("six==1", "has no --hash"), (f"six>=1 {HASH}", "no exact version")]
)
def test_hashes_that_do_not_tell_all_are_refused(tmp_path: Path, line: str, lacks: str) -> None:
    with pytest.raises(ValueError, match=rf"'six.*{lacks}.*generate-hashes"):
        read(tmp_path / "requirements.txt", f"tiny==2 {HASH}\n{line}\n")


def test_what_cannot_be_had_by_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-e"):
        read(tmp_path / "requirements.txt", "-e .\n")
    lines = (
        *("-e./x", "--editable=./x", "-c c.txt", "--constraint=c.txt"),
        *("-i https://x.invalid", "--extra-index-url https://x.invalid", "--find-links=.", "--pre"),
    )
    for line in lines:
        with pytest.raises(ValueError, match=line):
            read(tmp_path / "requirements.txt", f"{line}\n")
    with pytest.raises(ValueError, match="name each other"):
        read(tmp_path / "requirements.txt", "-r requirements.txt\n")


def test_a_project_is_read(tmp_path: Path) -> None:
    text = '[project]\nname = "x"\ndependencies = ["numpy>=2", "six"]\n'
    assert read(tmp_path / "pyproject.toml", text) == (["numpy>=2", "six"], False)
    with pytest.raises(ValueError, match="no table"):
        read(tmp_path / "pyproject.toml", "")
    with pytest.raises(ValueError, match="no TOML"):
        read(tmp_path / "pyproject.toml", "=")


def test_what_a_lock_file_has_from_no_index_must_be_here(tmp_path: Path) -> None:
    def lock(name: str, version: str, kind: str) -> str:
        return f"""\
            version = 1
            [[package]]
            name = "project"
            source = {{ virtual = "." }}
            dependencies = [{{ name = "{name}" }}]
            [[package]]
            name = "{name}"
            version = "{version}"
            source = {{ {kind} = "x" }}
            """

    here = importlib.metadata.version("pytest")
    path = tmp_path / "uv.lock"
    assert read(path, lock("pytest", here, "git")) == ([f"pytest=={here}"], True)
    assert read(path, lock("nowhere", "1", "registry")) == (["nowhere==1"], True)
    for kind in ("git", "path", "directory", "url"):
        with pytest.raises(ValueError, match=rf"pytest 0\.1 comes from no index .*{kind}"):
            read(path, lock("pytest", "0.1", kind))
    with pytest.raises(ValueError, match="nowhere 1 comes from no index"):
        read(path, lock("nowhere", "1", "git"))


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
