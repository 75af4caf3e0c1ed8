"""A program `podman` that has the images it is given, as archives, and can reach no registry.

For nodes of tests: what a node asks a runtime for, and no more.
"""

import json
import stat
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

PROGRAM = """#!{python} -I
import json, os, shutil, sys, time

DIRECTORY = {directory!r}
IMAGES = json.load(open(os.path.join(DIRECTORY, "images.json")))
words = sys.argv[1:]
with open(os.path.join(DIRECTORY, "asked"), "a") as log:
    log.write(" ".join(words) + "\\n")


def of(name):
    if name not in IMAGES:
        sys.exit("Error: " + name + ": image not known")
    return IMAGES[name]


if words[0] in ("--version", "rmi"):
    pass
elif words[0] == "ps":
    print(*[name for name in os.listdir(DIRECTORY) if name.startswith("burla-")], sep="\\n")
elif words[0] == "rm":
    os.unlink(os.path.join(DIRECTORY, words[2]))
elif words[0] == "image":
    print(json.dumps([{{"Id": of(words[2])["id"], "Config": {{"Env": of(words[2])["env"]}}}}]))
elif words[0] == "pull":
    sys.exit("Trying to pull " + words[1] + "...\\nError: no such host")
elif words[0] == "create":
    with open(os.path.join(DIRECTORY, words[2]), "w") as file:
        file.write(words[3])
elif words[0] == "export":
    wanted = open(os.path.join(DIRECTORY, words[1])).read()
    archive = next(one["archive"] for one in IMAGES.values() if one["id"] == wanted)
    with open(archive, "rb") as source:
        shutil.copyfileobj(source, sys.stdout.buffer)
else:
    sys.exit("not known: " + words[0])
"""


def make_runtime(directory: Path, images: Mapping[str, tuple[Path, list[str]]]) -> Path:
    """Write it into a directory, for the front of PATH; return that.

    `images`: the archive and the environment of each, by name.
    """
    directory.mkdir()
    directory.chmod(0o777)  # the nodes may be those of another user
    listed = {
        name: {"id": sha256(name.encode()).hexdigest(), "archive": str(archive), "env": environment}
        for name, (archive, environment) in images.items()
    }
    (directory / "images.json").write_text(json.dumps(listed))
    program = directory / "podman"
    program.write_text(PROGRAM.format(python=sys.executable, directory=str(directory)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return directory
