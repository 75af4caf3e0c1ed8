"""Installers: what they are told, what they say, and which packages they cannot have."""

import hashlib
import sys
from pathlib import Path

import pytest
from loops import in_loop
from packages import make_wheel

from burla.nodelet.core.sources import Sources
from burla.nodelet.shell import installing
from burla.nodelet.shell.installing import Installer, InstallError, LackingError, settings_of_pip

UV, PIP = "uv", "pip"


@pytest.fixture(params=[UV, PIP])
def installer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installer:
    """Return one that has nothing but a folder of tiny wheels."""
    links = tmp_path / "links"
    make_wheel(links, "tiny-a", "1.0", {"tiny_a.py": "V = 1"}, ["tiny-b"])
    make_wheel(links, "tiny-b", "2.0", {"tiny_b/__init__.py": "V = 2"})
    (links / "tiny_source-1.0.tar.gz").write_bytes(b"")
    for name in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setattr(installing, "TRIES_MAX", 50)
    installing._program.cache_clear()
    if request.param == PIP:
        monkeypatch.setattr(installing, "find_uv", lambda: "")
    return Installer(str(tmp_path / "cache"))


async def install(
    installer: Installer, target: Path, *requirements: str, is_whole: bool = True
) -> list[str]:
    said: list[str] = []
    target.parent.mkdir()
    try:
        await installer.install(requirements, str(target), said.append, is_whole=is_whole)
    finally:
        installing._program.cache_clear()
    return said


@in_loop
async def test_wheels_are_installed_and_it_is_said(installer: Installer, tmp_path: Path) -> None:
    target = tmp_path / "made" / "site-packages"
    said = await install(installer, target, "tiny-a==1.0", "tiny-b==2.0")
    assert said[0] == "installing tiny-a 1.0, tiny-b 2.0"
    assert (target / "tiny_a.py").read_text() == "V = 1"
    assert (target / "tiny_b" / "__init__.py").exists()
    assert (target / "tiny_a.py").stat().st_mode & 0o044 == 0o044  # jobs have other user ids


@in_loop
async def test_nothing_is_run_or_read_that_lies_about(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "pip.py").write_text("raise SystemExit(9)")
    for place in (here, tmp_path):
        (place / "uv.toml").write_text("=")
    monkeypatch.chdir(here)
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    target = tmp_path / "made" / "site-packages"
    await install(installer, target, "tiny-a==1.0")
    assert (target / "tiny_a.py").exists()


def test_uv_reads_what_an_administrator_has_set(tmp_path: Path) -> None:
    told = {"HOME": str(tmp_path)}
    file = tmp_path / ".config" / "uv" / "uv.toml"
    assert str(file) not in installing._settings_of_uv(told)
    file.parent.mkdir(parents=True)
    file.touch()
    assert installing._settings_of_uv(told) == ["--config-file", str(file)]
    assert installing._settings_of_uv({**told, "UV_CONFIG_FILE": "/x"}) == []


@in_loop
async def test_nothing_is_installed_that_was_not_asked_for(
    installer: Installer, tmp_path: Path
) -> None:
    target = tmp_path / "made" / "site-packages"
    await install(installer, target, "tiny-a==1.0")
    assert not (target / "tiny_b").exists()


@in_loop
async def test_no_index_is_asked_where_pip_is_told_to_ask_none(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, nowhere)
    with pytest.raises(LackingError) as caught:
        await install(installer, tmp_path / "a/site-packages", "no-such-package==1")
    assert caught.value.names == ["no-such-package"]
    assert "127.0.0.1" not in str(caught.value)


@in_loop
async def test_files_have_the_hashes_that_are_asked_for(
    installer: Installer, tmp_path: Path
) -> None:
    wheel = tmp_path / "links/tiny_b-2.0-py3-none-any.whl"
    digest, wrong = hashlib.sha256(wheel.read_bytes()).hexdigest(), "0" * 64
    hashed = f"tiny-b==2.0 --hash=sha256:{wrong} --hash=sha256:{digest}"
    said = await install(installer, tmp_path / "a/site-packages", hashed)
    assert said[0] == "installing tiny-b 2.0"
    assert (tmp_path / "a/site-packages/tiny_b/__init__.py").exists()
    other = f"tiny-b==2.0 --hash=sha256:{wrong}"
    with pytest.raises(InstallError, match=r"the hashes are of: (?s:.*)tiny-b==2.0"):
        await install(installer, tmp_path / "b/site-packages", other)
    assert not (tmp_path / "b/site-packages/tiny_b").exists()


@in_loop
async def test_requirements_bring_what_they_require(installer: Installer, tmp_path: Path) -> None:
    target = tmp_path / "made" / "site-packages"
    await install(installer, target, "tiny-a>=0.5", is_whole=False)
    assert (target / "tiny_b").exists()


@in_loop
async def test_all_that_cannot_be_had_is_named(installer: Installer, tmp_path: Path) -> None:
    target = tmp_path / "made" / "site-packages"
    wanted = ("tiny-a==1.0", "tiny-b==9.9", "tiny-none==1.0", "tiny-source==1.0")
    with pytest.raises(LackingError, match="tiny") as caught:
        await install(installer, target, *wanted)
    assert sorted(caught.value.names) == ["tiny-b", "tiny-none", "tiny-source"]


def test_settings_of_pip_are_told_to_uv(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://one.invalid/simple\nextra-index-url =\n  https://two.invalid\n"
        "  https://three.invalid\n[install]\nfind-links = /a /b\ntrusted-host = one.invalid\n"
    )
    told = settings_of_pip({"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path), "PIP_CERT": "/c"})
    assert told == {
        "UV_DEFAULT_INDEX": "https://one.invalid/simple",
        "UV_INDEX": "https://two.invalid https://three.invalid",
        "UV_FIND_LINKS": "/a,/b",
        "UV_INSECURE_HOST": "one.invalid",
        "SSL_CERT_FILE": "/c",
    }
    assert settings_of_pip({"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "true"}) == {
        "UV_NO_INDEX": "1"
    }
    assert settings_of_pip({"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "0"}) == {}


def test_what_uv_says_is_told_in_our_words() -> None:
    said: list[str] = []
    hearer = installing._Said(["numpy==2.1", "pandas==2.3.1", "six==1", "x==1"], said.append)
    for line in (
        "Resolved 4 packages in 3ms",
        "Downloading numpy (15.8MiB)",
        " Downloaded numpy",
        "Downloading pandas (12.0MiB)",
        "  Downloading x-1-py3-none-any.whl (20 kB)",  # as pip has it
    ):
        hearer.hear(line)
    assert said == [
        "installing numpy 2.1, pandas 2.3.1, six 1 and 1 more",
        "installing numpy 2.1, 1 of 4",
        "installing pandas 2.3.1, 2 of 4",
        "installing x 1, 2 of 4",
    ]


def test_an_index_that_cannot_be_reached_is_told_from_one_that_lacks_something() -> None:
    for text in (
        "error: Failed to fetch: `https://example.invalid/simple/numpy/`",
        "WARNING: Retrying (Retry(total=4)) after connection broken by NewConnectionError",
        "  Caused by: dns error: failed to lookup address",
    ):
        assert installing._UNREACHABLE.search(text)
    assert not installing._UNREACHABLE.search("there is no version of numpy==99")
    assert installing._named_in("Because numpy-x was not found", ["numpy==1", "numpy-x==2"]) == [
        "numpy-x"
    ]
    assert sys.executable


@in_loop
async def test_of_a_wheelhouse_all_that_it_lacks_is_known_without_an_installer(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "run", None)
    alone = Installer(str(tmp_path / "cache"), Sources(wheelhouse=str(tmp_path / "links")))
    with pytest.raises(
        LackingError, match=r"the wheelhouse of this node has no tiny-b==9\.9"
    ) as no:
        await alone.install(
            ["tiny-a==1.0", "tiny-b==9.9", "six==1.0"], str(tmp_path / "t"), print, is_whole=True
        )
    assert no.value.names == ["tiny-b", "six"]


@in_loop
async def test_a_wheelhouse_is_all_that_there_is(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    alone = Installer(str(tmp_path / "cache"), Sources(wheelhouse=str(tmp_path / "links")))
    target = tmp_path / "made" / "site-packages"
    await install(alone, target, "tiny-a", is_whole=False)
    assert (target / "tiny_b").exists()


def test_an_index_that_is_named_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://other")
    monkeypatch.setenv("UV_INDEX", "http://other")
    monkeypatch.setenv("PIP_CERT", "/etc/cert.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    named = Installer(str(tmp_path), Sources(index="https://i/simple"))
    told = named._environment()
    assert not {"UV_INDEX", "PIP_EXTRA_INDEX_URL"} & set(told)
    assert told["SSL_CERT_FILE"] == "/etc/cert.pem"
    assert named._sources.options() == ["--index-url", "https://i/simple"]
