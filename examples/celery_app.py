"""Run a worker with two tasks: celery --app celery_app worker --beat; bulk.delay() exports everything."""

import os

from celery import Celery

from feedback_etl.integrations.celery import register

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("application", broker=REDIS, backend=REDIS)
daily, bulk = register(app, hour=2)
