"""What a function needs, as it travels, and what nodes do not follow."""

import pytest

from burla.protocol import package_messages as pm


def test_what_is_packed_is_unpacked() -> None:
    packages = pm.Packages(("numpy==2.1.0", 'six>=1; python_version < "4"'), is_whole=False)
    assert pm.unpack(pm.pack(packages)) == packages


@pytest.mark.parametrize(
    "requirement",
    [
        "numpy",
        "numpy==2.1.0",
        "torch==2.3.0+cpu",
        "pandas[excel]>=2,<3",
        "a.b-c_d ~= 1.4",
        'six==1.16; sys_platform == "linux"',
        "pandas (>=2)",
        "numpy==2.*",
        f"numpy==2.1 --hash=sha256:{'a' * 64} --hash=sha512:{'0' * 128}",
        "six; (python_version < '4' or platform_machine == \"x86-64\") and extra != 'a_b'",
    ],
)
def test_names_with_versions_are_taken(requirement: str) -> None:
    assert pm.checked(requirement) == requirement


@pytest.mark.parametrize(
    "requirement",
    [
        "",
        "-r/etc/passwd",
        "--index-url=http://x",
        "numpy --index-url x",
        "evil @ https://example.invalid/evil.whl",
        "evil@file:///etc/passwd",
        "./evil",
        "/evil.whl",
        "a\n-e evil",
        "numpy==1\n",
        "six; x == '\n--pre'",
        "a; b @ c",
        "a; x == '${HOME}'",
        "a; x == '$HOME'",
        "a; x == 'b' # c",
        "a; x == 'b' --pre",
        "a == 1 -e",
        "-e. --hash=sha256:00",
    ],
)
def test_what_no_index_gives_by_name_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="no name of a package"):
        pm.unpack(pm.pack(pm.Packages((requirement,))))


@pytest.mark.parametrize("more", ["", "sha256:00", "md5:00", f"sha256:{'a' * 64} -e ."])
def test_what_is_no_hash_is_refused(more: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        pm.unpack(pm.pack(pm.Packages((f"six==1 --hash={more}",))))


def test_a_requirement_with_hashes_is_of_its_package_and_version() -> None:
    hashed = f"Six==1.16 --hash=sha256:{'a' * 64}"
    assert (pm.name_of(hashed), pm.exact_version(hashed)) == ("six", "1.16")


@pytest.mark.parametrize("packed", [b"", b"\x00", b"\x92\xa1a\xc3", b"\xff" * 9])
def test_other_bytes_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of packages"):
        pm.unpack(packed)


@pytest.mark.parametrize(
    ("requirement", "name", "version"),
    [
        ("Foo_Bar==1.0", "foo-bar", "1.0"),
        ("foo == 1.0+cpu", "foo", "1.0+cpu"),
        ("foo>=1", "foo", ""),
        ("foo==1.*", "foo", ""),
        ("foo==1,!=2", "foo", ""),
        ("foo[x]==1", "foo", ""),
        ('foo==1; os_name == "nt"', "foo", ""),
    ],
)
def test_a_requirement_is_read(requirement: str, name: str, version: str) -> None:
    assert (pm.name_of(requirement), pm.exact_version(requirement)) == (name, version)
