"""The one exception tree; the command line prints it in one place."""

from __future__ import annotations


class NumatraceError(Exception):
    """Something the user can act on.

    `what` failed, `why` (with the value that shows it) and `todo`, the next thing to do.
    `exit_code` is 1 for a failure, 2 for a usage error and 4 where a question has no answer.
    """

    exit_code = 1

    def __init__(self, what: str, why: str, todo: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why
        self.todo = todo


class UsageError(NumatraceError):
    """The call itself is wrong: an unknown pid, an output that exists, a bad option."""

    exit_code = 2


class CapabilityError(NumatraceError):
    """This machine or this user lacks something that recording needs."""


class TraceError(NumatraceError):
    """A trace file that cannot be read at all, or cannot be written."""


class ComparisonError(NumatraceError):
    """Two recordings whose comparison would mean nothing."""

    exit_code = 4
