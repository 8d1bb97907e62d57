"""The import law, the size of things, and what importing costs."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hbm_zoo

PACKAGE = Path(hbm_zoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]
#: From the ground up; a room imports from the floors below its own. On the ground all may use the words.
FLOORS = [
    {"group_level", "frames", "priors", "words"},
    {"fields"},
    {"model"},
    {"models"},
    {"zoo"},
    {"workers"},
    {"inference"},
    {"diagnostics"},
    {"plots"},
    {"reporting"},
    {"command_line"},
]
#: By `import_module`: a page hands on the verbs of its model, which take fits and are loaded when one is asked for.
LATE = {"model": {"diagnostics"}}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(path):
    """Modules of the package that a file imports, below ``hbm_zoo.``, anywhere in it but for type checking."""
    tree = ast.parse(path.read_text())
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hbm_zoo":
            inside = node.module.removeprefix("hbm_zoo").lstrip(".")
            found |= {inside} if inside else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("hbm_zoo.") for a in node.names if a.name.startswith("hbm_zoo")}
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            (name, *_) = [text.value for text in ast.walk(node.args[0]) if isinstance(text, ast.Constant)] or [""]
            found |= {name.removeprefix("hbm_zoo.").rstrip(".")} if name.startswith("hbm_zoo.") else set()
    return found


def room(name):
    return name.split(".")[0].removesuffix(".py")


def rooms_above(path):
    """What a file imports from its own floor or above it, its own room and the words aside."""
    own = room(str(path.relative_to(PACKAGE)).replace("/", "."))
    others = {name for name in imported(path) if room(name) in FLOOR and room(name) != own}
    ground = {"words"} if FLOOR[own] == 0 else set()
    return {name for name in others if FLOOR[room(name)] >= FLOOR[own] and room(name) not in ground}


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=str)
def test_no_arrow_runs_back_up(path):
    assert rooms_above(path) <= LATE.get(module_of(path), set())


@pytest.mark.parametrize(
    ("line", "above"),
    [
        ("from hbm_zoo.plots.style import colour", {"plots.style"}),
        ("import_module('hbm_zoo.plots.style')", {"plots.style"}),
        ("importlib.import_module(f'hbm_zoo.plots.{name}')", {"plots"}),
    ],
)
def test_an_arrow_that_runs_back_up_is_seen(tmp_path, monkeypatch, line, above):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "inference").mkdir()
    planted = tmp_path / "inference" / "planted.py"
    planted.write_text(f"def late(name):\n    {line}\n")
    assert rooms_above(planted) == above


def test_the_one_arrow_that_may_is_there():
    """An exception that nothing needs any more would let another through."""
    assert rooms_above(PACKAGE / "model.py") == LATE["model"]


def test_the_rooms_are_those_of_the_law():
    assert {room(module_of(path)) for path in FILES} - {"__init__"} == set(FLOOR)


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def test_no_circle_within_a_room():
    """Sorting the files so that each comes after those it imports would fail in a circle."""
    modules = {module_of(path): path for path in FILES if path != PACKAGE / "__init__.py"}
    TopologicalSorter({name: imported(path) & set(modules) - {name} for name, path in modules.items()}).prepare()


@pytest.mark.parametrize("name", ["inference", "diagnostics", "plots"])
def test_what_takes_fits_never_imports_a_model(name):
    for path in (PACKAGE / name).rglob("*.py"):
        assert not {other for other in imported(path) if room(other) == "models"}


def test_the_public_names_are_for_reports_and_the_command_line():
    def takes_public_names(path):
        nodes = ast.walk(ast.parse(path.read_text()))
        return any(alias.name == "hbm_zoo" for node in nodes if isinstance(node, ast.Import) for alias in node.names)

    users = {room(module_of(path)) for path in FILES if takes_public_names(path)}
    assert users <= {"reporting", "command_line"}


def test_the_command_line_imports_no_model_and_no_diagnostic():
    inside = {room(name) for name in imported(PACKAGE / "command_line" / "cli.py")}
    assert not inside & {"models", "group_level", "diagnostics", "plots", "model", "inference"}


def lines_of_code(node_or_tree, source):
    """Lines that are neither blank, nor comment, nor inside a docstring."""
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    prose = set()
    for node in ast.walk(node_or_tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    first = getattr(node_or_tree, "lineno", 1)
    last = getattr(node_or_tree, "end_lineno", None) or len(source)
    return [
        n
        for n in range(first, last + 1)
        if n not in prose and source[n - 1].strip() and not source[n - 1].lstrip().startswith("#")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_are_short(name):
    """About 250 lines of code a file and 25 a function at most, docstrings, comments and blank lines aside."""
    text = (PACKAGE / name).read_text()
    tree, source = ast.parse(text), text.splitlines()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    bodies = {
        node.name: len([n for n in lines_of_code(node, source) if n >= node.body[0].lineno]) for node in functions
    }
    long = {function: lines for function, lines in bodies.items() if lines > 30}
    total = len(lines_of_code(tree, source))
    assert not long, f"functions far longer than 25 lines: {long}"
    assert total <= 280, f"{total} lines of code"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


HEAVY = "[n for n in ('pymc', 'pytensor', 'arviz', 'pandas', 'matplotlib', 'nutpie') if n in sys.modules]"


def test_import_loads_nothing_heavy():
    assert python(f"import sys, hbm_zoo; print({HEAVY})").strip() == "[]"


#: What brings pictures and documents, and who may import it.
FOR_PICTURES = {"arviz", "arviz_plots", "matplotlib", "great_tables", "jinja2"}
DRAWS_OR_WRITES = ("plots.", "reporting.html", "reporting.report")


def packages(path):
    """Packages that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_pictures_and_reports_import_what_draws_them(path):
    if not module_of(path).startswith(DRAWS_OR_WRITES):
        assert not packages(path) & FOR_PICTURES


@pytest.mark.parametrize("line", ["import arviz as az", "import matplotlib.pyplot as plt", "from arviz import ess"])
def test_an_import_of_pictures_is_seen(tmp_path, line):
    planted = tmp_path / "planted.py"
    planted.write_text(f"def late():\n    {line}\n")
    assert packages(planted) & FOR_PICTURES


@pytest.mark.long
def test_a_comparison_loads_neither_pictures_of_ours_nor_documents(tmp_path):
    """No pooling is drawn in closed form: this is quick."""
    compare = ["hbm-zoo", "compare", "hospital_readmission", "--dataset=three_hospitals", "--pooling=none", "--seed=1"]
    loaded = "[n for n in ('great_tables', 'hbm_zoo.plots', 'hbm_zoo.reporting.report') if n in sys.modules]"
    code = (
        "import sys\n"
        "from hbm_zoo.command_line.cli import main\n"
        f"for line in {[compare[1:], [*compare[1:], f'--out={tmp_path / "report"}']]}:\n"
        "    assert not main(line)\n"
        f"    print('loaded', len({loaded}))"
    )
    printed = [line for line in python(code).splitlines() if line.startswith("loaded")]
    assert printed == ["loaded 0", "loaded 3"], "a report loads all three, or this test sees nothing"


def test_help_does_not_load_pymc():
    code = (
        "import sys\n"
        "from hbm_zoo.command_line.cli import main\n"
        "sys.argv = ['hbm-zoo', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print([n for n in ('pymc', 'pytensor', 'nutpie') if n in sys.modules])"
    )
    out = python(code)
    assert "hbm-zoo" in out
    assert out.strip().splitlines()[-1] == "[]"


def test_every_public_name_exists():
    for name in hbm_zoo.__all__:
        assert getattr(hbm_zoo, name) is not None, name
