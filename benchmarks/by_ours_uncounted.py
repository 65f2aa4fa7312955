"""Our export without counting people, which nobody can choose: what measuring k costs."""

import sys

from feedback_etl.database.reader_pool import prestart

prestart()  # first of all, as the command line does

from feedback_etl.__main__ import main  # noqa: E402
from feedback_etl.privacy.k_anonymity import ClassCounter  # noqa: E402


def _nothing(*_: object) -> None:
    pass


ClassCounter.add = _nothing  # type: ignore[method-assign, assignment]

if __name__ == "__main__":
    sys.argv = ["feedback-etl", "export", "--days", "-1", "--output", sys.argv[1], "--json", "--quiet"]
    main()
