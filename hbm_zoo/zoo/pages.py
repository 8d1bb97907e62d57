"""The page of a model, read from its module's source: PyMC need not be loaded."""

import ast
import textwrap
from collections.abc import Iterable
from functools import cache
from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
WITH_MODERATORS = "With moderators"


@cache
def _tree(model: str) -> ast.Module:
    path = MODELS / f"{model}.py"
    return ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")


def page(model: str) -> str:
    """The docstring of a model's module; empty for a model that is not in the zoo.

    Examples
    --------
    >>> page("hospital_readmission").splitlines()[0]
    'Hospital readmission: whose rate is high, and whose is only noisy?'
    """
    return ast.get_docstring(_tree(model)) or ""


def headline(model: str) -> str:
    """The first line of a page: the model in words and its question."""
    return page(model).partition("\n")[0]


def options(model: str) -> dict[str, str]:
    """What a model takes beside the frame: each option and its default, or the values it may have, as written.

    Examples
    --------
    >>> options("spike_slab_genes"), options("reaction_norms")
    ({'null': 'theoretical or empirical', 'slab': 'normal or unimodal', 'unit': 'effect or z'}, {'center': 'None'})
    """
    return _alternatives(model) | _asked_by_prepare(model)


def takes_moderators(model: str) -> bool:
    """Whether a page says what moderators change."""
    return bool(section(model, WITH_MODERATORS))


def _alternatives(model: str) -> dict[str, str]:
    """The options that change the model, from the dict of that name; the first value is the default."""
    for node in _tree(model).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ALTERNATIVES":
            names, values = node.value.keys, node.value.values  # type: ignore[attr-defined]
            return {
                name.value: " or ".join(str(value.value) for value in _values(which))
                for name, which in zip(names, values, strict=True)
            }
    return {}


def _values(which: ast.expr) -> list:
    """The keys of a dict, or the first argument of `Freely`."""
    return which.keys if isinstance(which, ast.Dict) else which.args[:1]  # type: ignore[attr-defined]


def _asked_by_prepare(model: str) -> dict[str, str]:
    """The arguments of ``prepare`` beside the frame, and their defaults."""
    prepare = next((n for n in _tree(model).body if isinstance(n, ast.FunctionDef) and n.name == "prepare"), None)
    if prepare is None:
        return {}
    positional = prepare.args.args[1:]
    defaults = prepare.args.defaults[-len(positional) :] if positional else []
    pairs = [
        *zip(positional, defaults, strict=False),
        *zip(prepare.args.kwonlyargs, prepare.args.kw_defaults, strict=True),
    ]
    return {name.arg: ast.unparse(value) if value is not None else "" for name, value in pairs}


def section(model: str, title: str) -> str:
    """The text under a heading of a page, up to the next heading; empty if there is none.

    Examples
    --------
    >>> section("hospital_readmission", "What it assumes").splitlines()[0]
    '* Expected counts are known without error, and the case mix is in them.'
    """
    lines = page(model).splitlines()
    starts = [i for i in range(len(lines) - 1) if lines[i] and set(lines[i + 1]) == {"-"}]
    for start, end in zip(starts, [*starts, len(lines)][1:], strict=True):
        if lines[start].strip() == title:
            return "\n".join(lines[start + 2 : end]).strip("\n")
    return ""


def formula(model: str, moderators: Iterable = (), **chosen: str | bool) -> str:
    """The model in symbols: the first indented block of its section.

    That is "With moderators" if it has some, "With option=value" if an option changes the formula, else "The model".

    Examples
    --------
    >>> formula("success_rates", population="logit-normal").splitlines()[1]
    'alpha_j | mu, tau  ~ N(mu, tau^2)                        the units'
    """
    titles = [WITH_MODERATORS] * bool(moderators) + [f"With {name}={value}" for name, value in chosen.items()]
    changed = (section(model, title) for title in titles)
    block: list[str] = []
    for line in (next(filter(None, changed), "") or section(model, "The model")).splitlines():
        if line.startswith("    "):
            block.append(line)
        elif block and line.strip():
            break
    return textwrap.dedent("\n".join(block)).strip()


def assumptions(model: str) -> list[str]:
    """The limits of a model, one sentence or more each, as its page lists them."""
    items: list[str] = []
    for line in section(model, "What it assumes").splitlines():
        if line.startswith("* "):
            items.append(line[2:].strip())
        elif line.strip() and items:
            items[-1] += " " + line.strip()
    return items
