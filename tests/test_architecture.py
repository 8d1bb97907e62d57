"""The import law, the size of things, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hbm_zoo

PACKAGE = Path(hbm_zoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]
LAYERS = {
    # effect_sizes makes frames out of tables, as a reader does.
    "models": {"model", "models", "conjugacy", "priors", "frames", "effect_sizes"},
    "conjugacy": {"conjugacy"},
}


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
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_models_and_closed_forms_import_only_what_is_below_them(layer):
    for path in (PACKAGE / layer).glob("*.py"):
        above = {name for name in imported(path) if name.split(".")[0] not in LAYERS[layer]}
        assert not above, f"{path.name} imports {above}"


@pytest.mark.parametrize("layer", ["diagnostics", "plots", "reporting"])
def test_diagnostics_and_plots_never_import_a_model(layer):
    for path in (PACKAGE / layer).rglob("*.py"):
        models = {name for name in imported(path) if name.split(".")[0] in ("models", "zoo")}
        assert not models, f"{path.name} imports {models}"


def test_the_command_line_imports_no_model_and_no_diagnostic():
    inside = {name.split(".")[0] for name in imported(PACKAGE / "cli.py")}
    assert not inside & {"models", "conjugacy", "diagnostics", "plots", "zoo", "model"}


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
