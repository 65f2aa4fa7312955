"""`feedback-etl`, also as `python -m feedback_etl`: one command, and then the process ends.

Therefore nothing is done for a future that there is not: cycles of objects are not looked for (a batch leaves three),
and the libraries' hundred thousands of objects are not freed one by one. Together that is a quarter of a second.
"""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end."""
    gc.disable()
    from feedback_etl.cli.app import main as run

    code = 1
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # whoever read it is gone, or never was there
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
