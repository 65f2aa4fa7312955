"""`python -m feedback_etl` is `feedback-etl`."""

from feedback_etl.cli import main

main()
