"""What the exit status of each of our programs means, said once."""

EXIT_OK = 0
EXIT_FAILED = 1  # the job failed, or one machine or more
EXIT_USAGE = 2  # as click and argparse have it
EXIT_UNREACHABLE = 69  # sysexits.h EX_UNAVAILABLE: no cluster answers, or there is none
EXIT_BUSY = 75  # sysexits.h EX_TEMPFAIL: it may work later
EXIT_NOT_AUTHORISED = 77  # sysexits.h EX_NOPERM: the key may not do that
EXIT_CONFIG = 78  # sysexits.h EX_CONFIG: a setting or file says something impossible
EXIT_INTERRUPTED = 130  # as a shell says of a process that Ctrl-C ended
