"""What the user is told about a job that runs, beside what its calls print."""


def waiting_line(name: str, why: str) -> str:
    """Return the line that says why nothing of a job runs.

    Args:
        name: of the function.
        why: as the scheduler or the session said it.
    """
    return f"burla: {name} waits: {why}"


def line_about(name: str, what: str) -> str:
    """Return the line that says that output is missing, or which calls hang."""
    return f"burla: {name}: {what}"
