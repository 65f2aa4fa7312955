"""Export new rows every night at two: python apscheduler_daily.py."""

import logging

from apscheduler.schedulers.blocking import BlockingScheduler

from feedback_etl.integrations.apscheduler import add_daily_export

logging.basicConfig(level=logging.INFO)
scheduler = BlockingScheduler()
add_daily_export(scheduler, hour=2, timezone="UTC", days_back=90)  # the first export covers 90 days

if __name__ == "__main__":
    scheduler.start()
