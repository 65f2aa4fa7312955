"""Every error this package raises on purpose, with the exit code the command line gives it.

    FeedbackError
    ├── UsageError         2   an argument or a setting is wrong
    │   ├── KeyMissingError     2   no pseudonym key is configured
    │   └── KeyUnusableError    2   the configured pseudonym key cannot be used
    ├── SourceError        3   the database cannot be reached, or is not what was expected
    ├── ValidationError    4   rows or frames break the rules; nothing was published
    │   └── AllRejectedError  4   every row with enough ratings was rejected
    ├── ExportFileError    5   a file or a folder cannot be read or written
    ├── FolderLockedError       6   others use the folder
    └── CheckFailedError        1   what was checked is not as it should be

A message says what is wrong, where, how many rows it concerns and what to do next. It never holds a row's value, a
key, or a URL with its password.
"""

from typing import Any, ClassVar


class FeedbackError(Exception):
    """Base of all errors of this package; never raised itself."""

    exit_code: ClassVar[int] = 1


class UsageError(FeedbackError, ValueError):
    """An argument or a setting is wrong; the message names the allowed values."""

    exit_code = 2


class KeyMissingError(UsageError):
    """No pseudonym key is configured."""


class KeyUnusableError(UsageError):
    """The pseudonym key is too short, its file cannot be read, or others can write to it."""


class SourceError(FeedbackError):
    """The database cannot be reached, or its tables or columns are not what was expected."""

    exit_code = 3


class ValidationError(FeedbackError):
    """Rows or frames break the rules. `reasons` maps the name of a broken rule to the number of rows."""

    exit_code = 4

    def __init__(self, message: str, reasons: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.reasons = reasons or {}


class AllRejectedError(ValidationError):
    """Every row with enough ratings was rejected. `report` has the figures of the run, where it is known."""

    def __init__(self, message: str, reasons: dict[str, int] | None = None, report: Any = None) -> None:
        super().__init__(message, reasons)
        self.report = report


class ExportFileError(FeedbackError):
    """A file or a folder cannot be read or written."""

    exit_code = 5


class FolderLockedError(FeedbackError):
    """Another export, erasure or prune uses the folder, and goes on for longer than one wanted to wait."""

    exit_code = 6


class CheckFailedError(FeedbackError):
    """What was checked is not as it should be."""

    exit_code = 1
