"""Recipes of the documentation find nothing in data without a signal.

Happiness is pure chance, but unhappy people stop answering sooner: for how long a person answers reveals something
about the last answer, and nothing that is known when the recommendation is given does.
"""

import ast
import json
import random
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from frames import PAIR_SCHEMA, fitted_features
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import feedback_etl as fe
from feedback_etl.training import LeakWarning, features, label, latest_per_recommendation, one_horizon, split_by_hash

ROOT = Path(__file__).parents[1]
TIMEFRAMES = ("1_week", "2_weeks", "4_weeks", "8_weeks")
START = datetime(2025, 1, 6, tzinfo=UTC)


def answers(draw: random.Random, people: int) -> Iterator[dict[str, Any]]:
    """Yield the answers of people, who stop after most unhappy answers and after few happy ones."""
    for person in range(people):
        known = {
            "subject_hash": f"{person:016x}",
            "analysis_hash": f"{person:016x}",
            "recommendation_id": f"rec_{draw.randrange(50)}",
            "conditions_detected": draw.choice(["acne", "acne,dry", "rosacea"]),
            "rules_applied": draw.choice(["r001", "r002"]),
            "age_range": draw.choice(["<18", "18-25", "25-35", "35-50", "50+"]),
            "export_date": START,
        }
        for week, timeframe in zip((1, 2, 4, 8), TIMEFRAMES, strict=True):
            is_happy = draw.random() < 0.5
            time = START + timedelta(weeks=week, minutes=draw.randrange(10_000))
            rating = draw.choice([4, 5] if is_happy else [1, 2, 3])
            yield known | {"timeframe": timeframe, "helpful_rating": rating, "feedback_timestamp": time}
            if draw.random() < (0.05 if is_happy else 0.6):
                break


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    """The answers of 40,000 people."""
    schema = {"subject_hash": pl.String, **PAIR_SCHEMA}
    return pl.DataFrame(list(answers(random.Random(7), 40_000)), schema=schema)


def measure(train: Any, y_train: Any, test: Any, y_test: Any) -> float:
    """Return the ROC AUC of a logistic regression; its standard error is below 0.007 for 8,000 rows to test."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, y_train)
    return float(roc_auc_score(y_test, model.predict_proba(test)[:, 1]))


def select_recipe(text: str) -> str:
    """Return the statements of a recipe from the line that selects the answers on, without those that read files."""
    lines = text.splitlines()
    (first,) = [number for number, line in enumerate(lines) if 'drop_nulls("label")' in line]
    return "\n".join(lines[first:])


def recipe_of_docs() -> str:
    """The block of docs/training.md that goes from an export to features."""
    return next(
        select_recipe(block)
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.S)
        if "drop_nulls" in block
    )


def recipe_of_quickstart() -> str:
    """The cell of the quickstart that does the same."""
    cells = json.loads((ROOT / "notebooks/quickstart.ipynb").read_text())["cells"]
    return next(select_recipe(text) for cell in cells if 'drop_nulls("label")' in (text := "".join(cell["source"])))


def test_recipe_of_the_documentation_finds_no_signal(pairs: pl.DataFrame) -> None:
    names: dict[str, Any] = {"fe": fe, "pairs": pairs.lazy()}
    exec("from feedback_etl.training import *\n" + recipe_of_docs(), names)
    parts, vocabulary = names["parts"], names["vocabulary"]
    train = features(parts["train"], vocabulary=vocabulary)
    area = measure(train, parts["train"]["label"], names["X_test"], parts["test"]["label"])
    assert area == pytest.approx(0.5, abs=0.03)


def test_recipe_of_the_tutorial_finds_no_signal(pairs: pl.DataFrame) -> None:
    """All its blocks but the first, which reads exports."""
    reading, *blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tutorials/training.md").read_text(), re.S)
    names: dict[str, Any] = {"training": fe.training, "pairs": pairs}
    exec("\n".join(blocks), names)
    assert "scan_training" in reading
    assert names["auc"] == pytest.approx(0.5, abs=0.03)


def test_recipe_of_the_quickstart_finds_no_signal(pairs: pl.DataFrame) -> None:
    names: dict[str, Any] = {"fe": fe, "pairs": pairs}
    exec(recipe_of_quickstart(), names)
    parts, numbers = names["parts"], names["numbers"]
    area = measure(numbers["train"], parts["train"]["label"], numbers["test"], parts["test"]["label"])
    assert area == pytest.approx(0.5, abs=0.03)


def test_recipe_of_the_notebook_finds_no_signal(pairs: pl.DataFrame) -> None:
    """It uses all answers with their timeframe."""
    cells = json.loads((ROOT / "notebooks/training_a_baseline.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    wanted = ("labelled =", "parts =", "vocabulary =", "def predict(")
    names: dict[str, Any] = {"fe": fe, "pairs": pairs, "np": np, "pl": pl, "SEED": 7}
    for source in sources:
        if any(text in source for text in wanted) and "by_row" not in source:
            exec(source, names)
    area = roc_auc_score(names["test"]["label"], names["predicted"]["logistic regression"])
    assert area == pytest.approx(0.5, abs=0.03)


def test_example_finds_no_signal(pairs: pl.DataFrame) -> None:
    """Its own statements, from the one that selects the answers to the one that makes the model."""
    module = ast.parse((ROOT / "examples/train_baseline.py").read_text())
    (main,) = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    statements = [node for node in main.body if isinstance(node, ast.Assign)]
    chosen = [node for node in statements if ast.unparse(node).split(" = ")[0] not in {"url", "key", "folder", "now"}]
    chosen = [node for node in chosen if "scan_training" not in ast.unparse(node)]
    imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[str, Any] = {"pairs": pairs, "SEED": 7}
    exec(compile(ast.Module([*imports, *chosen], []), "example", "exec"), names)
    model = names["model"].fit(names["train"], names["train"]["label"])
    area = roc_auc_score(names["test"]["label"], model.predict_proba(names["test"])[:, 1])
    assert area == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("include", "is_leak"), [((), False), (("timeframe",), True)])
def test_only_what_is_known_later_leaks_from_last_answers(
    pairs: pl.DataFrame, include: tuple[Any, ...], is_leak: bool
) -> None:
    last = pairs.pipe(label, "helpful").pipe(latest_per_recommendation)
    parts = split_by_hash(last, {"train": 0.8, "test": 0.2}, by="subject_hash")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeakWarning)
        train, test = (fitted_features(parts[name], include=include) for name in ("train", "test"))
    assert [warning.category for warning in caught] == ([LeakWarning] * 2 if include else [])
    area = measure(train, parts["train"]["label"], test, parts["test"]["label"])
    assert area > 0.6 if is_leak else area == pytest.approx(0.5, abs=0.03)


def test_answers_of_one_horizon_do_not_leak_or_warn(pairs: pl.DataFrame) -> None:
    rows = pairs.pipe(label, "helpful").pipe(one_horizon, "1_week")
    assert rows["timeframe"].unique().to_list() == ["1_week"]
    parts = split_by_hash(rows, {"train": 0.8, "test": 0.2}, by="subject_hash")
    train, test = (fitted_features(parts[name], include=["timeframe", "time"]) for name in ("train", "test"))
    assert measure(train, parts["train"]["label"], test, parts["test"]["label"]) == pytest.approx(0.5, abs=0.03)
