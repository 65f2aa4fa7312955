"""Train a baseline from the database: predict whether a user finds a recommendation helpful.

    python examples/train_baseline.py                                  # on sample data, into sample_exports
    FEEDBACK_ETL_DATABASE_URL=... python examples/train_baseline.py    # on your database, into exports
    python examples/train_baseline.py FOLDER                           # into another folder

Needs scikit-learn: pip install 'feedback-etl[train]'.
"""

import os
import sys
from contextlib import nullcontext
from datetime import datetime

from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import feedback_etl as fe
from feedback_etl.demo.sample import DEMO_KEY, sample_database
from feedback_etl.training import FeedbackFeatures, label, split_by_hash

SEED = 7
SAMPLED = datetime(2025, 10, 25, 12)  # fixed, so that the sample is reproducible


def main(folder: str | None = None) -> None:
    """Export, split, train, and compare with the majority baseline."""
    url = os.environ.get("FEEDBACK_ETL_DATABASE_URL")
    key = fe.find_key().key if url else DEMO_KEY
    folder = folder or ("exports" if url else "sample_exports")  # one key per folder
    now = None if url else SAMPLED
    with nullcontext(url) if url else sample_database(rows=5_000, seed=SEED, now=now) as database:
        fe.export_feedback(database, days_back=180, now=now, key=key, output_dir=folder, include_subject_hash=True)

    pairs = fe.scan_training(folder).collect()
    pairs = pairs.pipe(label, "helpful", threshold=4).drop_nulls("label")  # all answers: how helpful after how long?
    parts = split_by_hash(pairs, {"train": 0.8, "test": 0.2}, by="subject_hash", seed=SEED)
    train, test = parts["train"], parts["test"]

    baseline = DummyClassifier(strategy="prior")
    encoder = FeedbackFeatures(min_rows=5, include=["timeframe"])  # would leak among last answers, see LeakWarning
    model = make_pipeline(encoder, StandardScaler(), LogisticRegression(random_state=SEED))
    share = test["label"].sum() / test.height
    print(f"{train.height:,} rows to learn from, {test.height:,} to test; {share:.0%} of these are helpful")
    print(f"{'':<10}{'balanced accuracy':>18}{'ROC AUC':>10}{'Brier score':>13}")
    for name, learner in {"majority": baseline, "model": model}.items():
        chance = learner.fit(train, train["label"]).predict_proba(test)[:, 1]
        accuracy = balanced_accuracy_score(test["label"], chance >= 0.5)
        area, brier = roc_auc_score(test["label"], chance), brier_score_loss(test["label"], chance)
        print(f"{name:<10}{accuracy:>18.3f}{area:>10.3f}{brier:>13.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
