"""The house stands as it was drawn: imports point one way, pure modules are pure, and importing costs nothing."""

import ast
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import feedback_etl

PACKAGE = Path(feedback_etl.__file__).parent
HEAVY = {
    *("boto3", "connectorx", "duckdb", "jinja2", "narwhals", "pandas", "pandera", "polars", "polars_hash", "psycopg"),
    *("obstore", "pyarrow", "pydantic_settings", "pymysql", "sklearn", "sqlalchemy"),
}

FLOORS = [
    {"clock", "errors"},
    {"columns"},
    {"storage", "transform"},
    {"database", "exports", "options", "privacy", "results", "settings_checks", "settings_file"},
    {"settings"},
    {"pipeline"},
    {"compliance", "demo", "integrations", "processor", "report", "training"},
    {"__main__", "cli"},
]
"""The rooms, from the ground up. A module imports from its own floor and from those below, in no circle."""

STOPWATCHES = {
    "cli.console",
    "exports.lock",
    "pipeline.estimate",
    "pipeline.export",
    "pipeline.partitioned",
    "pipeline.write",
}
"""Who may measure how long something takes."""

TALKERS = ["__main__", "cli.", "database.reader_process"]
"""Who may write to stdout and stderr: modules by the beginnings of their names."""

ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}
CLOCKS = {"now", "utcnow", "today", "time_ns", "localtime", "gmtime"}

PURE = [
    "transform.batch",
    "transform.expressions",
    "transform.identifiers",
    "transform.json_lists",
    "transform.transforms",
    "training.features",
    "training.splits",
]
PURE_LIBRARIES = {"math", "polars", "polars.selectors", "polars_hash", "warnings"}
IMPURE = {"open", "Path", "collect", "collect_all", "fetch", "item", "map_elements", "map_batches", "iter_rows", "rows"}
IMPURE_BEGINNINGS = ("read_", "scan_", "write_", "sink_")


WRITERS = {"write_text", "write_bytes", "fdopen", "FileIO"}
"""What opens a file for writing, or writes one."""


@functools.cache
def module_names() -> list[str]:
    """All modules of the package, by their names in it."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


@functools.cache
def nodes_of(module: str, *, without_script: bool = False) -> list[ast.AST]:
    """Every node of a module's syntax tree, or those outside of `if __name__ == "__main__"`."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kept = [node for node in body if not (without_script and isinstance(node, ast.If) and is_script(node.test))]
    return [inner for outer in kept for inner in ast.walk(outer)]


def offenders(modules: Iterable[str], offences: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    """Modules that break a rule, each with what breaks it."""
    found = {module: sorted(offences(module)) for module in modules}
    return {module: broken for module, broken in found.items() if broken}


@functools.cache
def imports_of(module: str) -> set[str]:
    """The package's modules that a module imports, at its top or later, for types alone or not.

    What it does when it is run as a script (`if __name__ == "__main__"`) is the command line's.
    """
    names = set(module_names())
    found = set()
    for node in nodes_of(module, without_script=True):
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


@functools.cache
def names_in(module: str) -> list[str]:
    """Every plain or dotted name that a module uses."""
    return [dotted(node) for node in nodes_of(module) if isinstance(node, ast.Name | ast.Attribute)]


class TestImports:
    """Faces, then the pipeline, then source, exports, schema and transforms, then expressions, then errors."""

    def test_they_point_downwards(self) -> None:
        """Nothing imports from a floor above its own."""

        def upwards(module: str) -> list[str]:
            return [other for other in imports_of(module) if floor_of(other) > floor_of(module)]

        assert offenders(module_names(), upwards) == {}

    def test_they_go_in_no_circle(self) -> None:
        """Not even for types: otherwise modules could not be understood one after the other."""
        graph = {module: imports_of(module) - {module} for module in module_names()}
        assert len(list(TopologicalSorter(graph).static_order())) == len(graph)

    def test_the_walk_sees_imports(self) -> None:
        """What is known to be there is found, at the top of a module and inside a function."""
        assert {"columns", "errors"} == imports_of("transform.expressions")
        assert {"pipeline.export", "cli.options"} <= imports_of("cli.export")
        assert "settings" in imports_of("cli.options")
        assert {"database.read", "pipeline.batch_processor", "exports.local_transaction"} <= imports_of(
            "pipeline.write"
        )

    @pytest.mark.parametrize("room", ["exports", "database"])
    def test_the_doors_do_not_know_each_other(self, room: str) -> None:
        """The way to a database and the way to a folder meet in the pipeline alone."""
        other = {"exports": "database", "database": "exports"}[room]
        modules = [module for module in module_names() if module.startswith(f"{room}.")]
        assert modules
        assert [name for module in modules for name in imports_of(module) if name.startswith(other)] == []


class TestPurity:
    """What a module may touch."""

    def test_only_settings_read_the_environment(self) -> None:
        """What a reader process inherits is handed on as it is, not read."""

        def uses(module: str) -> list[str]:
            return [name for name in names_in(module) if name.split(".")[-1] in ENVIRONMENT]

        assert offenders([name for name in module_names() if name != "settings"], uses) == {
            "database.reader_pool": ["os.environ"]
        }
        copies = [node for node in nodes_of("database.reader_pool") if isinstance(node, ast.Dict) and None in node.keys]
        copied = [value for node in copies for key, value in zip(node.keys, node.values, strict=True) if not key]
        assert [dotted(value) for value in copied] == ["os.environ"]

    def test_nothing_but_the_clock_looks_at_the_clock(self) -> None:
        """`now` is a parameter, or comes from `clock.resolve_now`."""

        def clocks(module: str) -> list[str]:
            measuring = set() if module in STOPWATCHES else {"perf_counter", "monotonic"}
            calls = [dotted(node.func) for node in nodes_of(module) if isinstance(node, ast.Call)]
            return [name for name in calls if name.split(".")[-1] in CLOCKS | measuring or name == "time.time"]

        assert offenders([name for name in module_names() if name != "clock"], clocks) == {}

    def test_pure_modules_touch_no_file_and_never_collect(self) -> None:
        """And call no Python for each row."""

        def impure(module: str) -> list[str]:
            imported = [alias.name for node in nodes_of(module) if isinstance(node, ast.Import) for alias in node.names]
            last = [name.split(".")[-1] for name in names_in(module)]
            touching = [name for name in last if name in IMPURE or name.startswith(IMPURE_BEGINNINGS)]
            return touching + [name for name in imported if name not in PURE_LIBRARIES]

        assert offenders(PURE, impure) == {}

    def test_only_the_command_line_prints(self) -> None:
        """The library logs, counts only; the reader process writes to its pipes."""
        talk = {"print", "sys.stdout", "sys.stderr", "typer.echo", "warnings.showwarning"}
        silent = [name for name in module_names() if not name.startswith(tuple(TALKERS))]
        assert offenders(silent, lambda module: [name for name in names_in(module) if name in talk]) == {}

    def test_the_rules_see_offences(self) -> None:
        """What is known to be there is found, so that no rule holds because nothing is looked at."""
        assert "sys.stderr" in names_in("cli.console")
        assert "os.environ" in names_in("settings")
        assert offenders(["settings", "errors"], lambda module: {"os.environ"} & {*names_in(module)}) == {
            "settings": ["os.environ"]
        }

    def test_files_are_written_by_one_module_alone(self) -> None:
        """Where write(2) takes a part, it goes on or fails; the reader process writes to pipes."""

        def writes(module: str) -> list[str]:
            calls = [(dotted(node.func), node.args) for node in nodes_of(module) if isinstance(node, ast.Call)]
            opened = [argument for name, arguments in calls if name.split(".")[-1] == "open" for argument in arguments]
            modes = [str(mode.value) for mode in opened if isinstance(mode, ast.Constant)]
            names = [name for name, _ in calls if name.split(".")[-1] in WRITERS] + ["os.write"] * (
                "os.write" in names_in(module)
            )
            return names + [mode for mode in modes if {*mode} & {*"wax+"}]

        others = sorted(set(module_names()) - {"storage.whole_files"})
        assert offenders(others, writes) == {"database.reader_process": ["os.fdopen", "os.fdopen"]}


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

    def test_each_is_documented(self) -> None:
        """In a sentence at least; a function with an example, but for those that only a database can show."""
        public = {name: getattr(feedback_etl, name) for name in feedback_etl.__all__ if name != "__version__"}
        documentation = {name: inspect.getdoc(value) or "" for name, value in public.items()}
        summaries = {name: text.partition("\n")[0] for name, text in documentation.items()}
        assert {name: line for name, line in summaries.items() if not line.endswith((".", ":"))} == {}
        functions = {name for name, value in public.items() if inspect.isfunction(value)}
        assert functions
        without_example = {name for name in functions if ">>> " not in documentation[name]}
        assert without_example <= {"find_key", "load_feedback", "load_training"}


class TestImportTime:
    """Heavy libraries are imported when they are first needed."""

    @pytest.mark.sample("import", "keys --help")
    @pytest.mark.parametrize(
        "program",
        [
            "import feedback_etl; dir(feedback_etl); feedback_etl.__version__; feedback_etl.errors.UsageError",
            "import sys; sys.argv[1:] = ['--help']; from feedback_etl.cli.app import main; main()",
            "import sys; sys.argv[1:] = ['--version']; from feedback_etl.cli.app import main; main()",
            "import sys; sys.argv[1:] = ['export', '--help']; from feedback_etl.cli.app import main; main()",
            "import sys; sys.argv[1:] = ['keys', '--help']; from feedback_etl.cli.app import main; main()",
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


@pytest.mark.parametrize("part", range(3))
def test_examples_in_docstrings_are_true(part: int) -> None:
    """Every module's, in a folder of their own, since some write files."""
    names = ["feedback_etl", *(f"feedback_etl.{name}" for name in module_names() if name != "__main__")][part::3]
    modules = [importlib.import_module(name) for name in names]
    results = {module.__name__: doctest.testmod(module) for module in modules}
    assert {name: result for name, result in results.items() if result.failed} == {}
    written = {module.__name__: count_examples(inspect.getsource(module)) for module in modules}
    assert {name: result.attempted for name, result in results.items()} == written


def test_docstrings_have_examples() -> None:
    """All parts together: an example that is lost shows, as one does that is not executed."""
    assert sum(count_examples(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")) >= 150


def count_examples(source: str) -> int:
    return len(re.findall(r"^ *>>> ", source, re.MULTILINE))


def test_packages_hold_no_code_of_their_own() -> None:
    """The rooms are folders of modules; what a package gives is imported from where it is made."""
    rooms = [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg]
    assert rooms
    assert [room for room in rooms if (PACKAGE / room / "__init__.py").read_text(encoding="utf-8").strip()] == []
