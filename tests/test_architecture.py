"""The architecture: imports point one way, pure modules are pure, and importing the package is cheap."""

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
from types import ModuleType
from typing import get_type_hints

import pytest

import feedback_etl

PACKAGE = Path(feedback_etl.__file__).parent
HEAVY = {
    *("boto3", "connectorx", "duckdb", "jinja2", "narwhals", "pandas", "pandera", "polars", "polars_hash", "psycopg"),
    *("obstore", "pyarrow", "pydantic_settings", "pymysql", "sklearn", "sqlalchemy"),
}

CLASSIC_NAME = re.compile(
    r"\b(helpful_rating|product_satisfaction|routine_completion_pct|would_recommend|conditions_\w+|rules_applied"
    r"|timeframe)\b"
)
"""The columns of the classic schema that another schema need not have."""

LAYERS = [
    {"clock", "errors", "lazy_names", "plurals"},
    {"schema"},
    {"storage", "transform"},
    {"data_files", "database", "exports", "options", "privacy", "records", "results"},
    {"settings"},
    {"pipeline"},
    {"compliance", "demo", "integrations", "processor", "report", "training"},
    {"__main__", "cli"},
]
"""Top-level modules and packages, lowest layer first. A module imports from its own layer and lower ones."""

MEASURING_TIME = {
    "cli.console",
    "storage.locks",
    "pipeline.commit",
    "pipeline.estimate",
    "pipeline.export",
}
"""Modules that may measure durations."""

PRINTING = ["__main__", "cli.", "database.reader_process"]
"""Prefixes of the modules that may write to stdout and stderr."""

ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}
CLOCKS = {"now", "utcnow", "today", "time_ns", "localtime", "gmtime"}

PUBLIC = ["exports", "privacy", "report", "training", "transform"]
"""Packages that have public names."""

PURE = [
    "transform.batch",
    "transform.column_transforms",
    "transform.expressions",
    "transform.identifiers",
    "transform.json_lists",
    "transform.transforms",
    "training.feature_matrix",
    "training.labels",
    "training.splits",
    "training.time_splits",
]
PURE_LIBRARIES = {"math", "polars", "polars.selectors", "polars_hash", "warnings"}
IMPURE = {"open", "Path", "collect", "collect_all", "fetch", "item", "map_elements", "map_batches", "iter_rows", "rows"}
IMPURE_BEGINNINGS = ("read_", "scan_", "write_", "sink_")


MAX_MODULE_LINES = 250
MAX_FUNCTION_LINES = 40

WRITERS = {"write_text", "write_bytes", "fdopen", "FileIO"}
"""Functions that write files."""


@functools.cache
def list_modules() -> list[str]:
    """Return the modules of the package by their names in it."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


@functools.cache
def get_nodes(module: str, *, without_script: bool = False) -> list[ast.AST]:
    """Return all nodes of a module's syntax tree, optionally without `if __name__ == "__main__"`."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kept = [node for node in body if not (without_script and isinstance(node, ast.If) and is_script(node.test))]
    return [inner for outer in kept for inner in ast.walk(outer)]


def find_offenders(modules: Iterable[str], offences: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    """Return the modules that break a rule, each with its violations."""
    found = {module: sorted(offences(module)) for module in modules}
    return {module: broken for module, broken in found.items() if broken}


@functools.cache
def find_imports(module: str) -> set[str]:
    """Return the package's modules that a module imports, at its top or in functions, also for types only.

    Imports below `if __name__ == "__main__"` do not count.
    """
    names = set(list_modules())
    found = set()
    for node in get_nodes(module, without_script=True):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "feedback_etl":
            inside = node.module.removeprefix("feedback_etl").removeprefix(".")
            found |= {inside} if inside in names else {f"{inside}.{alias.name}".strip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("feedback_etl.") for alias in node.names if "feedback_etl" in alias.name}
    return found & names


def is_script(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"


def get_layer(module: str) -> int:
    top = module.split(".")[0]
    layers = [number for number, names in enumerate(LAYERS) if top in names]
    assert layers, f"{top} is new: add it to LAYERS"
    return layers[0]


def dotted(node: ast.AST) -> str:
    """Return a name such as `os.environ.get`, without calls and subscripts."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def find_names(module: str) -> list[str]:
    """Return all plain and dotted names that a module uses."""
    return [dotted(node) for node in get_nodes(module) if isinstance(node, ast.Name | ast.Attribute)]


class TestStorage:
    """The kinds of storage are distinguished in `storage` alone; everything else uses the interface."""

    def test_nothing_outside_storage_asks_for_the_class_of_a_storage(self) -> None:
        """No `isinstance` of a storage class in any other package."""

        def class_checks(module: str) -> list[str]:
            calls = [ast.unparse(node) for node in get_nodes(module) if isinstance(node, ast.Call)]
            return [call for call in calls if re.match(r"(isinstance|issubclass|type)\(", call) and "Storage" in call]

        others = [module for module in list_modules() if not module.startswith("storage.")]
        assert find_offenders(others, class_checks) == {}


class TestImports:
    """Directions of imports."""

    def test_imports_point_from_upper_layers_to_lower_ones(self) -> None:
        """No module imports from a layer above its own."""

        def upwards(module: str) -> list[str]:
            return [other for other in find_imports(module) if get_layer(other) > get_layer(module)]

        assert find_offenders(list_modules(), upwards) == {}

    def test_imports_have_no_cycles(self) -> None:
        """Not even for types, so that modules can be understood one after the other."""
        graph = {module: find_imports(module) - {module} for module in list_modules()}
        assert len(list(TopologicalSorter(graph).static_order())) == len(graph)

    def test_known_imports_are_found(self) -> None:
        """At the top of a module and inside a function."""
        expected = {"errors", "schema.feedback_columns", "transform.key_strength", "transform.keyed_digest"}
        assert find_imports("transform.expressions") == expected
        assert {"pipeline.export", "cli.options"} <= find_imports("cli.export")
        assert "settings.model" in find_imports("cli.options")
        assert {"database.read", "pipeline.batch_processor", "exports.transaction"} <= find_imports("pipeline.write")

    @pytest.mark.parametrize(
        ("package", "others"),
        [
            ("database", ("records", "data_files", "exports")),
            ("records", ("database", "data_files", "exports")),
            ("data_files", ("database", "exports")),
            ("exports", ("database",)),
        ],
    )
    def test_packages_of_one_layer_do_not_import_each_other(self, package: str, others: tuple[str, ...]) -> None:
        """Only the pipeline imports the database and exports; exports import data files, and both import records."""
        modules = [module for module in list_modules() if module.startswith(f"{package}.")]
        assert modules
        imported = {name.split(".")[0] for module in modules for name in find_imports(module)}
        assert imported & {*others} == set()


class TestNames:
    """Names of functions, which begin with a verb."""

    def test_functions_that_create_an_error_build_it(self) -> None:
        """`raise build_query_error(reason)`, not `raise query_error(reason)`."""

        def find_other_names(module: str) -> list[str]:
            functions = [node for node in get_nodes(module) if isinstance(node, ast.FunctionDef) and node.returns]
            creating = [node.name for node in functions if dotted(node.returns or node).endswith("Error")]
            return [name for name in creating if not name.lstrip("_").startswith("build_")]

        assert find_offenders(list_modules(), find_other_names) == {}


class TestClassicNames:
    """The classic schema is a declaration like any other."""

    def test_only_its_declaration_and_the_classic_api_name_its_columns(self) -> None:
        """In texts of the code; docstrings may explain them."""

        def find_classic_names(module: str) -> list[str]:
            nodes = get_nodes(module)
            expressions = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            texts = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in expressions]
            return [text.value for text in texts if isinstance(text.value, str) and CLASSIC_NAME.search(text.value)]

        modules = [name for name in list_modules() if not name.startswith("demo.")]
        offenders = find_offenders(modules, find_classic_names)
        assert {*offenders} <= {"schema.classic", "processor", "database.tables"}
        assert "schema.classic" in offenders


class TestPurity:
    """Side effects of modules."""

    def test_only_settings_read_the_environment(self) -> None:
        """The environment of a reader process is copied, not read."""

        def uses(module: str) -> list[str]:
            return [name for name in find_names(module) if name.split(".")[-1] in ENVIRONMENT]

        assert find_offenders([name for name in list_modules() if not name.startswith("settings.")], uses) == {
            "database.reader_pool": ["os.environ"]
        }
        copies = [
            node for node in get_nodes("database.reader_pool") if isinstance(node, ast.Dict) and None in node.keys
        ]
        copied = [value for node in copies for key, value in zip(node.keys, node.values, strict=True) if not key]
        assert [dotted(value) for value in copied] == ["os.environ"]

    def test_only_the_clock_module_reads_the_clock(self) -> None:
        """`now` is a parameter, or comes from `clock.resolve_now`."""

        def clocks(module: str) -> list[str]:
            measuring = set() if module in MEASURING_TIME else {"perf_counter", "monotonic"}
            calls = [dotted(node.func) for node in get_nodes(module) if isinstance(node, ast.Call)]
            return [name for name in calls if name.split(".")[-1] in CLOCKS | measuring or name == "time.time"]

        assert find_offenders([name for name in list_modules() if name != "clock"], clocks) == {}

    def test_pure_modules_touch_no_file_and_never_collect(self) -> None:
        """Nor call Python for each row."""

        def impure(module: str) -> list[str]:
            imported = [
                alias.name for node in get_nodes(module) if isinstance(node, ast.Import) for alias in node.names
            ]
            last = [name.split(".")[-1] for name in find_names(module)]
            touching = [name for name in last if name in IMPURE or name.startswith(IMPURE_BEGINNINGS)]
            return touching + [name for name in imported if name not in PURE_LIBRARIES]

        assert find_offenders(PURE, impure) == {}

    def test_only_the_command_line_prints(self) -> None:
        """The library logs counts; the reader process writes to its pipes."""
        talk = {"print", "sys.stdout", "sys.stderr", "typer.echo", "warnings.showwarning"}
        silent = [name for name in list_modules() if not name.startswith(tuple(PRINTING))]
        assert find_offenders(silent, lambda module: [name for name in find_names(module) if name in talk]) == {}

    def test_known_offences_are_found(self) -> None:
        """So that no rule holds only because nothing is inspected."""
        assert "sys.stderr" in find_names("cli.console")
        assert "os.environ" in find_names("settings.model")
        assert find_offenders(["settings.model", "errors"], lambda module: {"os.environ"} & {*find_names(module)}) == {
            "settings.model": ["os.environ"]
        }

    def test_one_module_writes_files(self) -> None:
        """It completes short writes or fails; the reader process writes to pipes."""

        def writes(module: str) -> list[str]:
            calls = [(dotted(node.func), node.args) for node in get_nodes(module) if isinstance(node, ast.Call)]
            opened = [argument for name, arguments in calls if name.split(".")[-1] == "open" for argument in arguments]
            modes = [str(mode.value) for mode in opened if isinstance(mode, ast.Constant)]
            names = [name for name, _ in calls if name.split(".")[-1] in WRITERS] + ["os.write"] * (
                "os.write" in find_names(module)
            )
            return names + [mode for mode in modes if {*mode} & {*"wax+"}]

        others = sorted(set(list_modules()) - {"storage.whole_files"})
        assert find_offenders(others, writes) == {"database.reader_process": ["os.fdopen", "os.fdopen"]}


PUBLIC_PACKAGES = ["feedback_etl", *(f"feedback_etl.{name}" for name in PUBLIC)]


@pytest.fixture(params=PUBLIC_PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Return each of the packages that have public names."""
    return importlib.import_module(request.param)


class TestSizes:
    """Packages, modules and functions that fit on a few screens."""

    def test_exports_has_at_most_16_modules(self) -> None:
        """Records of exports belong to `records`, the content of files to `data_files`."""
        assert len([module for module in list_modules() if module.startswith("exports.")]) <= 16

    def test_no_module_has_more_than_250_lines(self) -> None:
        lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
        assert {
            str(path.relative_to(PACKAGE)): count for path, count in lines.items() if count > MAX_MODULE_LINES
        } == {}

    def test_no_function_has_more_than_40_lines(self) -> None:
        """Signature and docstring do not count: they document the options of public functions and commands."""

        def long_functions(module: str) -> list[str]:
            functions = [node for node in get_nodes(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            return [node.name for node in functions if count_body_lines(node) > MAX_FUNCTION_LINES]

        assert find_offenders(list_modules(), long_functions) == {}

    def test_lines_of_a_function_are_counted_without_signature_and_docstring(self) -> None:
        source = """def f(
    a,
):
    '''Summary.

    Details.
    '''
    # A comment.

    return [
        a,
    ]
"""
        documented, bare = source, source.replace("    '''Summary.\n\n    Details.\n    '''\n", "")
        assert [count_body_lines(ast.parse(text).body[0]) for text in (documented, bare)] == [3, 3]


def count_body_lines(function: ast.AST) -> int:
    """Return the number of lines from the first statement after the docstring to the end of a function."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


class TestPublicNames:
    """Public names of `feedback_etl` and of its packages."""

    def test_all_is_what_can_be_imported(self, package: ModuleType) -> None:
        """Each name, and `dir` lists the same."""
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert dir(package) == sorted(package.__all__) == sorted(set(package.__all__))

    def test_type_checkers_see_the_same_names(self, package: ModuleType) -> None:
        """The imports for them and the table of lazy imports cannot drift apart."""
        blocks = [node for node in ast.parse(inspect.getsource(package)).body if isinstance(node, ast.If)]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
        version = ["__version__"] if package is feedback_etl else []
        assert sorted([*map(str, seen), *version]) == sorted(package.__all__)
        for name, (module, attribute) in seen.items():
            assert name == attribute  # `import x as x` is public to type checkers, `import x` is not
            assert getattr(importlib.import_module(str(module)), attribute) is getattr(package, name)

    def test_no_module_has_the_name_of_a_function(self, package: ModuleType) -> None:
        """Importing the module would replace the function."""
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert {name for name in package.__all__ if name in modules} == ({*PUBLIC, "errors"} & {*package.__all__})

    def test_unknown_name_is_an_attribute_error(self, package: ModuleType) -> None:
        """The message equals that of any module."""
        with pytest.raises(AttributeError, match=rf"^module '{package.__name__}' has no attribute 'anonymise'$"):
            package.anonymise  # noqa: B018

    def test_every_public_name_is_documented(self, package: ModuleType) -> None:
        """In a sentence at least; functions with an example, except those that need a database."""
        public = {name: getattr(package, name) for name in package.__all__ if name != "__version__"}
        documentation = {name: inspect.getdoc(value) or "" for name, value in public.items()}
        summaries = {name: text.partition("\n")[0] for name, text in documentation.items()}
        assert {name: line for name, line in summaries.items() if not line.endswith((".", ":"))} == {}
        functions = {name for name, value in public.items() if inspect.isfunction(value)}
        assert functions
        without_example = {name for name in functions if ">>> " not in documentation[name]}
        assert without_example <= {"find_key", "load_feedback", "load_training"}

    def test_annotations_of_the_public_functions_can_be_evaluated(self) -> None:
        """As libraries do that derive something from a signature."""
        packages = [feedback_etl, *(getattr(feedback_etl, name) for name in PUBLIC)]
        public = [getattr(package, name) for package in packages for name in package.__all__]
        functions = [
            value for value in public if inspect.isfunction(value) and value is not feedback_etl.training.features
        ]
        assert len(functions) > 20
        for function in [*functions, feedback_etl.FeedbackProcessor.__init__]:
            assert get_type_hints(function)  # `features` returns a matrix of SciPy, which is optional

    def test_the_names_for_everyday_use_are_few(self) -> None:
        """So that they can be learned; a name of the other packages has one home among them."""
        modules = {*PUBLIC, "errors", "__version__"}
        assert len({*feedback_etl.__all__} - modules) <= 20
        names = [name for package in PUBLIC for name in getattr(feedback_etl, package).__all__]
        assert len(names) == len({*names})


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
        report_modules = "import atexit, sys; atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr)); "
        done = subprocess.run(
            [sys.executable, "-c", report_modules + program], capture_output=True, text=True, check=True
        )
        loaded = done.stderr.partition("loaded ")[2].split()
        assert "feedback_etl" in loaded
        assert HEAVY & {*loaded} == set()

    def test_an_export_begins_without_pandera(self) -> None:
        """Its import, which takes longest, runs while the database executes the query; only a Session needs an ORM."""
        heavy = {"pandera", "pandas", "sqlalchemy.orm"}
        program = f"import sys, feedback_etl.pipeline.export; print({heavy} & {{*sys.modules}})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    def test_the_command_line_exports_without_pandas(self, tmp_path: Path) -> None:
        """Pandera would import it, if it finds it, for other schemas than ours."""
        command = [sys.executable, "-X", "importtime", "-m", "feedback_etl", "demo", "--output", str(tmp_path / "demo")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert {"pandera.polars", "pandas.core"} & imported == {"pandera.polars"}


@pytest.mark.parametrize("part", range(3))
def test_examples_in_docstrings_are_true(part: int) -> None:
    """Every module's, in a folder of their own, since some write files."""
    names = ["feedback_etl", *(f"feedback_etl.{name}" for name in list_modules() if name != "__main__")][part::3]
    modules = [importlib.import_module(name) for name in names]
    results = {module.__name__: doctest.testmod(module) for module in modules}
    assert {name: result for name, result in results.items() if result.failed} == {}
    written = {module.__name__: count_examples(inspect.getsource(module)) for module in modules}
    assert {name: result.attempted for name, result in results.items()} == written


def test_docstrings_have_examples() -> None:
    """All parts together, so that a lost example is noticed, as is one that is not executed."""
    assert sum(count_examples(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")) >= 150


def count_examples(source: str) -> int:
    return len(re.findall(r"^ *>>> ", source, re.MULTILINE))


def test_package_inits_are_empty_or_import_lazily() -> None:
    """Within the package, names are imported from the modules that define them."""
    packages = [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg]
    sources = {name: (PACKAGE / name / "__init__.py").read_text(encoding="utf-8") for name in packages}
    assert {*PUBLIC} <= {*packages}
    assert [name for name, source in sources.items() if source.strip()] == PUBLIC
    for name in PUBLIC:
        statements = [node for node in ast.parse(sources[name]).body if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {node.module for node in statements if isinstance(node, ast.ImportFrom)}
        assert len(imported) == len(statements)
        assert imported <= {"importlib.util", "typing", "feedback_etl.lazy_names"}
