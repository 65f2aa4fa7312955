"""A custom pandera model validates the rows to be written, and changes nothing."""

from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest
from databases import Database
from folders import NOW, exported, people, visible
from frames import all_said
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.transform.model_loader import load_model

EXAMPLE = Path(__file__).parents[1] / "schemas" / "custom_model.py"


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Three users with three rows each."""
    sqlite_database.fill(**people(3))
    return sqlite_database


class Helpful(pa.DataFrameModel):
    """Only good feedback."""

    helpful_rating: pl.Int8 = pa.Field(ge=5, nullable=True)


class Useless(pa.DataFrameModel):
    """No feedback at all."""

    helpful_rating: pl.Int8 = pa.Field(lt=5)


def test_what_fits_is_written_as_it_is(app: Database, tmp_path: Path) -> None:
    """Also where the model would change types."""

    class Coercing(pa.DataFrameModel):
        helpful_rating: pl.Float64 = pa.Field(coerce=True)

    plain = exported(app, tmp_path / "plain")
    for name, model in (("model", Helpful), ("schema", Helpful.to_schema()), ("coercing", Coercing)):
        report = exported(app, tmp_path / name, row_model=model)
        assert Path(report.export_filename).read_bytes() == Path(plain.export_filename).read_bytes()


def test_what_does_not_fit_publishes_nothing(app: Database, tmp_path: Path) -> None:
    """The message names the rule, its column and the rows."""
    with pytest.raises(ValidationError, match=r"helpful_rating less_than \(9 rows\)"):
        exported(app, tmp_path / "exports", row_model=Useless)
    assert visible(tmp_path / "exports") == []
    with pytest.raises(ValidationError, match="less_than"):
        fe.load_training(app.url, days_back=-1, now=NOW, key=KEY, row_model=Useless)


def test_it_does_not_replace_the_gate(app: Database) -> None:
    """Both validate, and all broken rules are reported at once."""
    pairs = fe.load_training(app.url, days_back=-1, now=NOW, key=KEY)
    broken = pairs.with_columns(analysis_hash=pl.lit("42"))
    with pytest.raises(ValidationError, match=r"analysis_hash str_matches \(9 rows\), helpful_rating less_than"):
        fe.validate(broken, row_model=Useless)


def test_the_example(app: Database) -> None:
    """A file with a model, from the command line: one row has a timeframe that it does not know."""
    done = feedback_etl(
        *("export", "--days", "-1", "--database-url", app.url, "--row-model", f"{EXAMPLE}:CustomPair"),
        env={"FEEDBACK_ETL_KEY": KEY},
    )
    assert done.returncode == 4
    assert "timeframe isin" in done.stderr
    assert "quoted" not in done.stderr
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = '2_weeks'")
    done = feedback_etl(
        *("export", "--days", "-1", "--database-url", app.url, "--row-model", f"{EXAMPLE}:CustomPair", "--quiet"),
        env={"FEEDBACK_ETL_KEY": KEY},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_its_file_may_use_schemas_of_pandas_frames(app: Database, tmp_path: Path) -> None:
    """The command line hides pandas from pandera only where no model is loaded."""
    file = tmp_path / "checks.py"
    file.write_text(f"import pandera.pandas\n{EXAMPLE.read_text()}")
    done = feedback_etl(
        *("export", "--days", "-1", "--database-url", app.url, "--row-model", f"{file}:CustomPair"),
        env={"FEEDBACK_ETL_KEY": KEY},
    )
    assert done.returncode == 4
    assert "timeframe isin" in done.stderr


class Casting(pa.DataFrameModel):
    """What fails in it shows values."""

    recommendation_id: str

    @pa.dataframe_check
    def fails(cls, data: pa.PolarsData) -> pl.LazyFrame:  # type: ignore[misc]  # noqa: N805
        """Polars' errors contain the values that it cannot cast."""
        return data.lazyframe.select(pl.col("recommendation_id").cast(pl.Int64) > 0)

    @pa.check("recommendation_id")
    def shows(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805
        """So does Python."""
        raise ValueError(str(data.lazyframe.collect()))


class Leaving(pa.DataFrameModel):
    """A check that ends the program."""

    @pa.dataframe_check
    def leaves(cls, data: pa.PolarsData) -> pl.LazyFrame:  # type: ignore[misc]  # noqa: ARG002, N805
        """As a script might."""
        raise SystemExit(0)


class Dropping(Useless):
    """What does not fit would be dropped."""

    class Config:
        """Of pandera."""

        drop_invalid_rows = True


@pytest.mark.parametrize("model", [Casting, Leaving, Dropping])
def test_models_that_fail(app: Database, tmp_path: Path, model: type[pa.DataFrameModel]) -> None:
    """Nothing is published, and no value is shown."""
    with pytest.raises(ValidationError) as caught:
        exported(app, tmp_path / "exports", row_model=model)
    assert "rec_1" not in all_said(caught.value)
    assert visible(tmp_path / "exports") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Model", "does not name a row model"),
        ("nowhere.py:Model", "no file nowhere.py"),
        ("no_such_module:Model", r"could not be loaded \(ModuleNotFoundError\)"),
        ("leaving.py:Model", r"could not be loaded \(SystemExit\)"),
        (f"{EXAMPLE}:Other", "has no pandera model Other"),
        ("feedback_etl.transform.training_schema:validate", "has no pandera model validate"),
        ("broken.py:Model", r"could not be loaded \(ValueError\)"),
    ],
)
def test_name_of_no_model_is_refused(name: str, message: str) -> None:
    """Each is a sentence; what the file itself says is not repeated."""
    Path("leaving.py").write_text("raise SystemExit(0)")
    Path("broken.py").write_text("raise ValueError('canary-4711')")
    with pytest.raises(UsageError, match=message) as caught:
        load_model(name)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
