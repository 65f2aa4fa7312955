"""Errors of this package, with the exit codes of the command line.

    FeedbackError
    ├── UsageError         2   an argument or a setting is wrong
    │   ├── KeyMissingError     2   no pseudonym key is configured
    │   └── KeyUnusableError    2   the configured pseudonym key cannot be used
    ├── SourceError        3   the database cannot be reached, or is not as expected
    ├── ValidationError    4   rows or frames break the rules; nothing was published
    │   └── AllRejectedError  4   every row with enough ratings was rejected
    ├── ExportFileError    5   a file or a folder cannot be read or written
    ├── FolderLockedError       6   another program uses the folder
    ├── CheckFailedError        1   a check failed
    └── CheckSkippedError       7   no check failed, and something could not be checked

A message states what is wrong, where, how many rows are affected and what to do next. It never contains a row's value,
a key, or a URL with its password.
"""

from typing import Any, ClassVar


class FeedbackError(Exception):
    """Base class of all errors of this package; it is not raised itself."""

    exit_code: ClassVar[int] = 1


class UsageError(FeedbackError, ValueError):
    """An argument or a setting is wrong; the message names the allowed values."""

    exit_code = 2


class KeyMissingError(UsageError):
    """No pseudonym key is configured."""


class KeyUnusableError(UsageError):
    """The pseudonym key is too short, its file cannot be read, or others can write to it."""


class SourceError(FeedbackError):
    """The database cannot be reached, or its tables or columns are not as expected."""

    exit_code = 3


class ValidationError(FeedbackError):
    """Rows or frames break the rules. `reasons` maps the name of each broken rule to the number of rows."""

    exit_code = 4

    def __init__(self, message: str, reasons: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.reasons = reasons or {}


class AllRejectedError(ValidationError):
    """Every row with enough ratings was rejected. `report` contains the statistics of the run, if known."""

    def __init__(self, message: str, reasons: dict[str, int] | None = None, report: Any = None) -> None:
        super().__init__(message, reasons)
        self.report = report


class ExportFileError(FeedbackError):
    """A file or a folder cannot be read or written."""

    exit_code = 5


class FolderLockedError(FeedbackError):
    """Another program (an export, an erasure or `prune`) has used the folder for longer than the lock timeout."""

    exit_code = 6


class CheckFailedError(FeedbackError):
    """A check failed."""

    exit_code = 1


class CheckSkippedError(FeedbackError):
    """No check failed, and something could not be checked."""

    exit_code = 7
