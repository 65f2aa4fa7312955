"""Clients of object stores: URLs, opening, and translation of errors.

Error texts of a store contain key ids, signatures and request URLs, so messages never include them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from feedback_etl.errors import ExportFileError, UsageError

_SCHEME = "s3"
RETRIES = 4
TIMEOUT_SECONDS = 120.0
"""The time limit of one request, which allows for a whole part over a slow connection."""

POLARS_OPTIONS = {"allow_http": "true"}
"""Storage options for Polars, which reads the endpoint from the environment, as obstore does."""

_NOT_INSTALLED = "{} is in an object store, which needs more packages: pip install 'feedback-etl[s3]'."
_CONNECT_SECONDS = 5
_MAX_SECONDS = 180
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=100), timedelta(seconds=5)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_MANGLED = re.compile(rf"({_SCHEME}):/(?!/)", re.IGNORECASE)


class AmbiguousRequestError(ExportFileError):
    """Report a request whose outcome is unknown: the connection broke, it timed out, or the store failed."""


def is_object_store(where: str) -> bool:
    """Return whether a location is in an object store; a URL that lost a slash as a `Path` is recognised too.

    >>> [is_object_store(location) for location in ("s3://bucket/exports", "s3:/bucket/exports", "ml/exports")]
    [True, True, False]
    """
    return where.lower().startswith(f"{_SCHEME}:/")


def refuse_unsupported_url(where: str) -> None:
    """Refuse a URL that is not supported, so that it is not used as the name of a folder.

    Raises:
        UsageError: The location is such a URL; the message does not repeat it, since it may contain a password.

    >>> refuse_unsupported_url("ml/feedback_training")
    """
    if _URL.match(where) and not is_object_store(where):
        raise UsageError(
            "Exports are in a folder or in an object store that speaks S3 (s3://bucket/prefix); this is another URL. "
            "gs:// and az:// are not supported."
        )


def normalize_url(url: str) -> str:
    """Return the URL of a prefix without a trailing slash.

    Raises:
        UsageError: The URL names no bucket, or contains credentials, options or unusual names.

    >>> normalize_url("s3://bucket/exports/")
    's3://bucket/exports'
    """
    parts = urlsplit(_MANGLED.sub(r"\1://", url, count=1))
    if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "The URL of an object store must consist of a bucket and a prefix, such as s3://bucket/exports: pass "
            "credentials by the environment, a profile or the machine's role."
        )
    if not parts.netloc:
        raise UsageError("The URL of an object store names no bucket: pass one such as s3://bucket/exports.")
    names = parts.path.removeprefix("/").rstrip("/").split("/")
    if names != [""] and any(name in ("", ".", "..") or "%" in name for name in names):
        raise UsageError("The prefix in an object store must consist of plain names, without %, .., . and empty names.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def open_client(url: str, retries: int, timeout: float) -> Any:
    """Open a client for a prefix, without sending a request.

    Raises:
        UsageError: The client library is not installed.
        ExportFileError: There are no credentials.
    """
    try:
        from obstore.store import from_url
    except ModuleNotFoundError:
        raise UsageError(_NOT_INSTALLED.format(url)) from None
    options: dict[str, Any] = {
        "credential_provider": _create_credentials(url),
        # The endpoint of the environment may be http://.
        "client_options": {
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=min(timeout, _CONNECT_SECONDS)),
            "allow_http": True,
        },
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=max(timeout, _MAX_SECONDS)),
            "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
        },
    }
    with translate_errors(url):
        return from_url(url, **options)


def _create_credentials(url: str) -> Any:
    """Return a provider of the credentials that boto3 finds (environment, profile, role) and renews."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise UsageError(_NOT_INSTALLED.format(url)) from None
    from botocore.exceptions import BotoCoreError

    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError):
        raise ExportFileError(
            f"There are no credentials for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or "
            "give the machine a role."
        ) from None


_DENIED = ("403 Forbidden", "401 Unauthorized")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_WRONG_REGION = "incorrectly configured region"
_FAILURES = {
    "kind: Connect": "the store cannot be reached",
    "kind: Timeout": "the store did not answer in time",
    "TimedOut": "the store did not answer in time",
    "Server returned non-2xx status code: 5": "the store failed repeatedly",
    "kind: ": "the connection broke repeatedly",
}
"""Signs in error texts of the client and their meanings; the first match counts."""


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translate an error of the client into one sentence.

    Raises:
        FileNotFoundError: The object does not exist.
        FileExistsError: The object exists, or is not the version that was read.
        AmbiguousRequestError: The store may or may not have executed the request.
        ExportFileError: The store refused the request.
    """
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise FileExistsError(f"an object in {url}") from None
    except (exceptions.BaseError, FileNotFoundError) as error:
        failure = _translate_error(url, error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # raised by the client, which is written in Rust
            raise
        failure = ExportFileError(f"The client for {url} cannot be configured: check that AWS_ENDPOINT_URL is a URL.")
    else:
        return
    raise failure


def _translate_error(url: str, error: Exception) -> Exception:
    text, bucket = str(error), "/".join(url.split("/")[:3])
    if any(sign in text for sign in _NO_BUCKET):
        return ExportFileError(f"There is no bucket {bucket}.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"an object in {url}")
    name = type(error).__name__
    if name in ("PermissionDeniedError", "UnauthenticatedError") or any(sign in text for sign in _DENIED):
        return ExportFileError(f"{bucket} denies access: check the permissions of these credentials.")
    if _WRONG_REGION in text:
        return ExportFileError(f"{bucket} is in another region: set AWS_REGION.")
    for sign, reason in _FAILURES.items():
        if sign in text:
            return AmbiguousRequestError(f"{bucket}: {reason}. Run again when the store is available.")
    return ExportFileError(f"{bucket} refused a request ({name}).")
