"""What `burla-nodelet` is told of packages, and `burla-nodelet install`."""

import argparse
import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from json import dumps
from pathlib import Path

from burla.nodelet.core.sources import Sources
from burla.nodelet.shell.installing import InstallError
from burla.nodelet.shell.standing import read_requirements, standing
from burla.system import daemon
from burla.system.exit_codes import EXIT_OK
from burla.system.failure import BAD_CONFIG, FAILED, Complaint, Parser, add_json
from burla.system.paths import PACKAGES, cache_directory
from burla.system.preparing import prepare

from .config import NodeletConfig

log = logging.getLogger(__name__)

INSTALL_DESCRIPTION = """\
Install the packages that a nodelet with the same options is to have for all jobs, and end.

A nodelet that runs is not disturbed. What is there already is not installed again."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a nodelet be told where packages are, and come from."""
    parser.add_argument(
        "--packages",
        metavar="FILE",
        help="a requirements file: these packages are installed before this node joins, and all "
        "jobs find them; what a job needs in another version is installed for it besides",
    )
    parser.add_argument(
        "--index",
        metavar="URL",
        default="",
        help="the package index (default: as pip on this machine is configured)",
    )
    parser.add_argument(
        "--wheelhouse",
        metavar="DIR",
        default="",
        help="a folder of wheels, instead of a package index",
    )
    parser.add_argument(
        "--packages-directory",
        metavar="DIR",
        default="",
        help="where packages that functions need are installed, and beside it, in DIR-cache, what "
        "was fetched for that (default: packages in burla's cache directory)",
    )


def with_options(config: NodeletConfig, options: argparse.Namespace) -> NodeletConfig:
    """Return settings with what options say.

    Raises:
        ValueError: one of them cannot be.
    """
    if options.wheelhouse and not os.path.isdir(options.wheelhouse):
        raise ValueError(f"argument --wheelhouse: {options.wheelhouse} is no folder")
    house = os.path.abspath(options.wheelhouse) if options.wheelhouse else ""
    directory = options.packages_directory
    if os.pathsep in directory:
        raise ValueError(f"argument --packages-directory: no {os.pathsep!r} may be in it")
    return replace(
        config,
        packages=os.path.abspath(directory) if directory else config.packages,
        sources=Sources("" if house else options.index, house),
        standing=_requirements(options),
    )


def _requirements(options: argparse.Namespace) -> tuple[str, ...]:
    try:
        return read_requirements(options.packages) if options.packages else ()
    except ValueError as error:
        raise ValueError(f"argument --packages: {error}") from None


@asynccontextmanager
async def given(config: NodeletConfig) -> AsyncIterator[NodeletConfig]:
    """Have there what the operator gives this node; yields the settings with its place.

    Raises:
        Complaint: it cannot be had.
    """
    if not config.standing:
        yield config
        return
    if not config.packages:
        raise Complaint(BAD_CONFIG, "packages of this node: there is no place for them")
    async with AsyncExitStack() as stack:
        tell = functools.partial(log.info, "%s")
        held = standing(config.packages, config.sources, config.standing, tell)
        try:
            place = await stack.enter_async_context(held)
        except InstallError as error:
            raise Complaint(FAILED, str(error)) from None
        yield replace(config, standing_place=place)


def install(words: list[str]) -> int:
    """Install what a nodelet is to have for all jobs, and print where; return the exit code."""
    parser = Parser(
        prog="burla-nodelet install",
        description=INSTALL_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    daemon.add_log_level(parser)
    add_json(parser, "where the packages are")
    parser.as_json = "--json" in words
    options = parser.parse_args(words[1:])
    prepare("burla-nodelet install", daemon.log_level(options))
    blank = NodeletConfig("ipc:///none", 1, 1, "install")  # it has no scheduler
    try:
        config = with_options(blank, options)
    except ValueError as error:
        parser.error(str(error))
    if not config.standing:
        parser.error("argument --packages: a file that names packages is needed")
    config = replace(config, packages=directory_of_packages(config.packages))
    place = asyncio.run(_install(config))
    print(dumps({"place": place}) if options.json else place)
    return EXIT_OK


async def _install(config: NodeletConfig) -> str:
    async with given(config) as made:
        return made.standing_place


def directory_of_packages(named: str) -> str:
    """Return where packages are installed, made if need be; empty: nowhere."""
    directory = named or os.path.join(cache_directory() or "", PACKAGES)
    try:
        if not os.path.isabs(directory):
            raise OSError("there is no HOME; pass --packages-directory")
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o755)  # user ids of jobs read what is in it
    except OSError as error:
        log.warning("packages that a function needs are not installed here: %s", error)
        return ""
    return directory


def remove_if_empty(packages: str) -> None:
    """Leave no empty directory behind: that of packages, of burla's cache, of all caches."""
    path = Path(packages)
    with contextlib.suppress(OSError):  # there are some
        for directory in (path, *path.parents[:2]):
            directory.rmdir()
