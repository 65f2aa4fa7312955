"""The house stands as it was drawn: imports point one way, pure modules are pure, and importing costs nothing."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import feedback_etl

PACKAGE = Path(feedback_etl.__file__).parent
HEAVY = {
    *("boto3", "connectorx", "duckdb", "jinja2", "narwhals", "pandas", "pandera", "polars", "polars_hash", "psycopg"),
    *("obstore", "pyarrow", "pydantic_settings", "pymysql", "sklearn", "sqlalchemy"),
}

COMMAND_LINE = {"__main__", "cli", "cli_config", "cli_folder", "cli_keys", "cli_plan", "cli_privacy", "cli_report"}
COMMAND_LINE |= {"cli_audit", "cli_classic", "cli_group", "cli_selection", "console"}

FLOORS = [
    {"clock", "errors", "forks", "private_files"},
    {"columns", "expressions", "frames", "ids_in_texts", "timestamps"},
    {"demo_data", "duplicates", "exports", "overrides", "pairs", "privacy", "rejection", "results", "rules", "schema"}
    | {"source", "steps", "training", "transforms"},
    {"configured", "contracts", "croissant", "custom_model", "demo", "settings", "settings_file"},
    {"arguments", "distributed", "loading", "making", "pipeline", "processing"},
    {"checklist", "integrations", "processor", "report"},
    COMMAND_LINE,
]
"""The rooms, from the ground up. A module imports from its own floor and from those below, in no circle."""

STOPWATCHES = {"console", "distributed.export", "distributed.planning", "exports.lock", "making", "pipeline"}
"""Who may measure how long something takes."""

TALKERS = COMMAND_LINE | {"source.reader_process"}
"""Who may write to stdout and stderr."""


def module_names() -> list[str]:
    """All modules of the package, by their names in it."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


def tree_of(module: str) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def imports_of(module: str) -> set[str]:
    """The package's modules that a module imports, at its top or later, for types alone or not.

    What it does when it is run as a script (`if __name__ == "__main__"`) is the command line's.
    """
    names = set(module_names())
    found = set()
    body = [node for node in tree_of(module).body if not (isinstance(node, ast.If) and is_script(node.test))]
    for node in (inner for outer in body for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "feedback_etl":
            inside = node.module.removeprefix("feedback_etl").removeprefix(".")
            found |= {inside} if inside in names else {f"{inside}.{alias.name}".strip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("feedback_etl.") for alias in node.names if "feedback_etl" in alias.name}
    return found & names


def is_script(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"


def floor_of(module: str) -> int:
    room = module.split(".")[0]
    floors = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"{room} is new: say in FLOORS where in the house it belongs"
    return floors[0]


def dotted(node: ast.AST) -> str:
    """A name such as `os.environ.get`; the calls and subscripts on the way left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_in(module: str) -> Iterator[str]:
    """Every plain or dotted name that a module uses."""
    return (dotted(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Name | ast.Attribute))


class TestImports:
    """Faces, then the pipeline, then source, exports, schema and transforms, then expressions, then errors."""

    @pytest.mark.parametrize("module", module_names())
    def test_they_point_downwards(self, module: str) -> None:
        """Nothing imports from a floor above its own."""
        assert {other for other in imports_of(module) if floor_of(other) > floor_of(module)} == set()

    def test_they_go_in_no_circle(self) -> None:
        """Not even for types: otherwise modules could not be understood one after the other."""
        graph = {module: imports_of(module) - {module} for module in module_names()}
        assert len(list(TopologicalSorter(graph).static_order())) == len(graph)

    def test_the_walk_sees_imports(self) -> None:
        """What is known to be there is found, at the top of a module and inside a function."""
        assert {"errors"} == imports_of("expressions")
        assert {"pipeline", "settings"} <= imports_of("cli")
        assert {"source.selection", "steps", "exports.files"} <= imports_of("making")

    @pytest.mark.parametrize("room", ["exports", "source"])
    def test_the_doors_do_not_know_each_other(self, room: str) -> None:
        """The way to a database and the way to a folder meet in the pipeline alone."""
        other = {"exports": "source", "source": "exports"}[room]
        modules = [module for module in module_names() if module.startswith(f"{room}.")]
        assert modules
        assert [name for module in modules for name in imports_of(module) if name.startswith(other)] == []


class TestPurity:
    """What a module may touch."""

    @pytest.mark.parametrize("module", module_names())
    def test_only_settings_read_the_environment(self, module: str) -> None:
        """What a reader process inherits is handed on as it is, not read."""
        uses = [name for name in names_in(module) if name.split(".")[-1] in ("environ", "environb", "getenv", "putenv")]
        if module == "source.waiting":
            copies = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Dict) and None in node.keys]
            assert [
                dotted(value) for node in copies for key, value in zip(node.keys, node.values, strict=True) if not key
            ] == uses
            assert uses == ["os.environ"]
        elif module != "settings":
            assert uses == []

    @pytest.mark.parametrize("module", sorted(set(module_names()) - {"clock"}))
    def test_nothing_but_the_clock_looks_at_the_clock(self, module: str) -> None:
        """`now` is a parameter, or comes from `clock.instant`."""
        clocks = {"now", "utcnow", "today", "time_ns", "localtime", "gmtime"}
        clocks |= set() if module in STOPWATCHES else {"perf_counter", "monotonic"}
        calls = [dotted(node.func) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
        assert [name for name in calls if name.split(".")[-1] in clocks or name == "time.time"] == []

    @pytest.mark.parametrize(
        "module", ["expressions", "ids_in_texts", "training.features", "training.splits", "transforms"]
    )
    def test_pure_modules_touch_no_file_and_never_collect(self, module: str) -> None:
        """And call no Python for each row."""
        imported = {
            alias.name for node in ast.walk(tree_of(module)) if isinstance(node, ast.Import) for alias in node.names
        }
        assert imported <= {"math", "polars", "polars.selectors", "polars_hash", "warnings"}
        last = [name.split(".")[-1] for name in names_in(module)]
        impure = {
            "open",
            "Path",
            "collect",
            "collect_all",
            "fetch",
            "item",
            "map_elements",
            "map_batches",
            "iter_rows",
            "rows",
        }
        assert [name for name in last if name in impure or name.startswith(("read_", "scan_", "write_", "sink_"))] == []

    @pytest.mark.parametrize("module", sorted(set(module_names()) - TALKERS))
    def test_only_the_command_line_prints(self, module: str) -> None:
        """The library logs, counts only; the reader process writes to its pipes."""
        talk = {"print", "sys.stdout", "sys.stderr", "typer.echo", "warnings.showwarning"}
        assert [name for name in names_in(module) if name in talk] == []

    @pytest.mark.parametrize("module", sorted(set(module_names()) - {"private_files"}))
    def test_files_are_written_by_one_module_alone(self, module: str) -> None:
        """Where write(2) takes a part, it goes on or fails; the reader process writes to pipes."""
        calls = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
        names = [dotted(call.func).split(".")[-1] for call in calls]
        pipes = ["fdopen", "fdopen"] if module == "source.reader_process" else []
        assert [name for name in names if name in {"write_text", "write_bytes", "fdopen", "FileIO"}] == pipes
        modes = [argument for call, name in zip(calls, names, strict=True) if name == "open" for argument in call.args]
        assert [mode.value for mode in modes if isinstance(mode, ast.Constant) and {*str(mode.value)} & {*"wax+"}] == []
        assert "os.write" not in names_in(module)


class TestPublicNames:
    """What `import feedback_etl` gives."""

    def test_all_is_what_can_be_imported(self) -> None:
        """Each name, and `dir` lists the same."""
        for name in feedback_etl.__all__:
            assert getattr(feedback_etl, name) is not None
        assert dir(feedback_etl) == sorted(feedback_etl.__all__) == sorted(set(feedback_etl.__all__))

    def test_type_checkers_see_the_same_names(self) -> None:
        """The imports for them and the table of lazy imports cannot drift apart."""
        blocks = [node for node in ast.parse(inspect.getsource(feedback_etl)).body if isinstance(node, ast.If)]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        seen = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        assert sorted([*seen, "__version__"]) == sorted(feedback_etl.__all__)
        for name, place in seen.items():
            module, _, attribute = place.rpartition(".")
            if name != "errors":
                assert getattr(importlib.import_module(module), attribute) is getattr(feedback_etl, name)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        """As with any module."""
        with pytest.raises(AttributeError, match=r"^module 'feedback_etl' has no attribute 'anonymise'$"):
            feedback_etl.anonymise  # noqa: B018

    @pytest.mark.parametrize("name", sorted(set(feedback_etl.__all__) - {"__version__"}))
    def test_each_is_documented(self, name: str) -> None:
        """In a sentence at least; a function with an example, but for those that only a database can show."""
        value = getattr(feedback_etl, name)
        documentation = inspect.getdoc(value)
        assert documentation
        assert documentation.splitlines()[0].endswith((".", ":"))
        if inspect.isfunction(value) and name not in ("find_key", "load_feedback", "load_training"):
            assert ">>> " in documentation


class TestImportTime:
    """Heavy libraries are imported when they are first needed."""

    @pytest.mark.parametrize(
        "program",
        [
            "import feedback_etl; dir(feedback_etl); feedback_etl.__version__; feedback_etl.errors.UsageError",
            "import sys; sys.argv[1:] = ['--help']; from feedback_etl.cli import main; main()",
            "import sys; sys.argv[1:] = ['--version']; from feedback_etl.cli import main; main()",
            "import sys; sys.argv[1:] = ['export', '--help']; from feedback_etl.cli import main; main()",
            "import sys; sys.argv[1:] = ['keys', '--help']; from feedback_etl.cli import main; main()",
        ],
        ids=["import", "--help", "--version", "export --help", "keys --help"],
    )
    def test_what_needs_no_library_imports_none(self, program: str) -> None:
        """The package alone, and the command line's help."""
        told = "import atexit, sys; atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr)); "
        done = subprocess.run([sys.executable, "-c", told + program], capture_output=True, text=True, check=True)
        loaded = done.stderr.partition("loaded ")[2].split()
        assert "feedback_etl" in loaded
        assert HEAVY & {*loaded} == set()


@pytest.mark.parametrize("module", ["", *(name for name in module_names() if name != "__main__")])
def test_examples_in_docstrings_are_true(module: str) -> None:
    """Every module's, in a folder of their own, since some write files."""
    found = doctest.testmod(importlib.import_module(f"feedback_etl.{module}".rstrip(".")))
    assert found.failed == 0


def test_packages_hold_no_code_of_their_own() -> None:
    """The rooms are folders of modules; what a package gives is imported from where it is made."""
    rooms = [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg]
    assert rooms
    assert [room for room in rooms if (PACKAGE / room / "__init__.py").read_text(encoding="utf-8").strip()] == []
