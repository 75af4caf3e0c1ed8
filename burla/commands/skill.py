"""`burla skill`: a page that teaches a coding agent to use and operate burla."""

import click

PAGE = "skill.md"


@click.command()
def skill() -> None:
    """Print a page for coding agents: how to call, look at jobs, run clusters, mend errors.

    It is markdown. Agents that have a folder of skills read it there: `burla skill >
    .claude/skills/burla/SKILL.md`; others read what the command prints.
    """
    from importlib.resources import files

    click.echo(files("burla.commands").joinpath(PAGE).read_text("utf-8"), nl=False)
