"""What each of our errors means to a program: a stable kind, an exit code, a remedy. Said once.

`burla ... --json` prints them on stdout, as `{"schema": 1, "kind": "error", "error": {"kind",
"text", "remedy", "exit_code"}}`.
Kinds are promised: one may be added, none is renamed.
"""

import errno

from burla.system.exit_codes import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_NOT_AUTHORISED,
    EXIT_UNREACHABLE,
)
from burla.system.failure import (
    INTERNAL as INTERNAL,
    INTERRUPTED as INTERRUPTED,
    SYSTEM as SYSTEM,
    USAGE as USAGE,
    Failure as Failure,
    as_json as as_json,
)

_AGAIN = "fix what the text says and run the same command again: it does the rest"
_SETTING = "correct the setting that the text names"
# By class; rooms that are not loaded have raised nothing. A class that is not here is as its base.
FAILURES = {
    "burla.errors.BurlaError": Failure("failed", EXIT_FAILED, "do what the text says"),
    "burla.errors.BadSetting": Failure("bad_setting", EXIT_CONFIG, _SETTING),
    "burla.errors.ClusterError": Failure("cluster_failed", EXIT_FAILED, "look at `burla status`"),
    "burla.errors.ClusterUnreachable": Failure(
        "cluster_unreachable", EXIT_UNREACHABLE, "`burla doctor` finds out what is wrong"
    ),
    "burla.errors.ClusterLost": Failure(
        "cluster_lost", EXIT_FAILED, "look at `burla status`, and start the job again"
    ),
    "burla.errors.Refused": Failure("refused", EXIT_FAILED, "`burla doctor` finds out why"),
    "burla.errors.VersionMismatch": Failure(
        "version_mismatch",
        EXIT_FAILED,
        "install the same versions of burla and Python on both sides",
    ),
    "burla.errors.NotAuthorised": Failure(
        "not_authorised",
        EXIT_NOT_AUTHORISED,
        "run `burla login ADDRESS`, and let an administrator run the command that it prints",
    ),
    "burla.errors.Unsatisfiable": Failure(
        "unsatisfiable", EXIT_FAILED, "ask for less, or add a node that is big enough"
    ),
    "burla.errors.JobFailed": Failure("job_failed", EXIT_FAILED, "do what the text says"),
    "burla.commands.admin.NoJob": Failure(
        "no_job", EXIT_FAILED, "`burla jobs list` shows which there are"
    ),
    "burla.commands.resume.NothingKept": Failure(
        "nothing_kept", EXIT_FAILED, "`burla resume list` shows what there is"
    ),
    "burla.errors.CallFailed": Failure(
        "call_failed", EXIT_FAILED, "mend the function, or leave out the input that the text names"
    ),
    "burla.provisioning.core.machines.ProvisioningError": Failure(
        "provisioning_failed", EXIT_FAILED, _AGAIN
    ),
    "burla.provisioning.core.machines.BadConfig": Failure("bad_config", EXIT_CONFIG, _SETTING),
    "burla.provisioning.core.machines.Unreachable": Failure(
        "host_unreachable", EXIT_FAILED, "see whether `ssh HOST` works; then run the command again"
    ),
    "burla.provisioning.core.machines.ConnectionLost": Failure(
        "connection_lost", EXIT_FAILED, "run the same command again: it continues from there"
    ),
    "burla.provisioning.core.machines.StepFailed": Failure("step_failed", EXIT_FAILED, _AGAIN),
    "burla.provisioning.ssh.known_hosts.HostKeyRefused": Failure(
        "host_key_refused", EXIT_FAILED, "compare the fingerprints, and run what the text says"
    ),
    "burla.provisioning.keys.NoKeys": Failure("no_keys", EXIT_FAILED, _AGAIN),
    "burla.provisioning.clusters.NoCluster": Failure(
        "no_cluster",
        EXIT_UNREACHABLE,
        "name one that there is by --cluster, or make one: `burla up`",
    ),
}


# What a machine may have no more of, whatever was done.
SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def failure_of(error: BaseException) -> Failure | None:
    """Return what an error means; None: it is neither one of ours nor the machine's."""
    if isinstance(error, OSError) and (error.filename is not None or error.errno in SHORTAGES):
        return SYSTEM
    for kind in type(error).__mro__:
        if found := FAILURES.get(f"{kind.__module__}.{kind.__qualname__}"):
            return found
    return None
