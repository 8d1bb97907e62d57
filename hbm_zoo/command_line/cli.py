"""The command line: from a file to a report, without writing Python.

Nothing here loads PyMC before a command needs it: help, list and describe answer at once.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbm_zoo import __version__
from hbm_zoo.command_line.errors import BadInput
from hbm_zoo.zoo import NAMES, pages

Model = Literal[NAMES]  # type: ignore[valid-type]
Pooling = Literal["none", "complete", "partial"]
Engine = Literal["auto", "independent", "nuts"]


def _whole(_, tokens):
    """A whole number, not one that is rounded."""
    text = tokens[0].value
    if not text.strip().lstrip("+-").isdigit():
        raise ValueError(f"expected a whole number, got {text!r}")
    return int(text)


def _finite(_, tokens):
    """A number that is one."""
    text = tokens[0].value
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text!r}")
    return value


AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1), converter=_whole)]
Repeated = Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)]

app = App(
    name="hbm-zoo",
    help="Bayesian hierarchical models: no, complete and partial pooling, fitted and compared.",
    help_epilogue="With --debug after any command an error shows where it arose.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


@app.command(name="list")
def list_models() -> None:
    """Name the models of the zoo, each with its question."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in NAMES:
        table.add_row(Text(name, style="bold"), Text(pages.headline(name)))
    Console().print(table)


@app.command
def describe(model: Model, /) -> None:
    """Print the page of a model: its question, formula, symbols and what it assumes.

    Parameters
    ----------
    model
        A model that `hbm-zoo list` names.
    """
    print(pages.page(model))
    for name, default in pages.options(model).items():
        print(f"\nOption: --option {name}=..." + (f" ({default})" if default else ""))
    if pages.takes_moderators(model):
        print("\nModerators: --moderator COLUMN")
    print(f"\nCompare its poolings: hbm-zoo compare {model}")


@app.command
def data(name: str | None = None, /, *, out: Path | None = None, model: Model | None = None) -> None:
    """Show a shipped data set: where it comes from, and its first rows. Without a name, list them.

    Parameters
    ----------
    name
        A data set.
    out
        Save it as CSV in this file, which must not exist.
    model
        Whose columns it is shown in, where several models use it.
    """
    from hbm_zoo.command_line.commands import show_data

    show_data(name, out, model)


@app.command
def compare(
    model: Model,
    /,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    columns: Repeated = None,
    reader: str | None = None,
    label: str | None = None,
    drop_unusable: Annotated[bool, Parameter(negative="")] = False,
    option: Repeated = None,
    moderator: Repeated = None,
    prior: Repeated = None,
    pooling: Annotated[list[Pooling] | None, Parameter(negative="")] = None,
    threshold: Annotated[float | None, Parameter(converter=_finite)] = None,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0), converter=_whole)] = None,
    draws: AtLeastOne = 1000,
    tune: AtLeastOne | None = None,
    engine: Engine = "auto",
    chains: AtLeastOne = 4,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Fit no, complete and partial pooling, compare them, and say what the data show.

    Exit code 0; 1 if a fit or its check failed (the report says so); 2 for bad input.

    Parameters
    ----------
    model
        A model that `hbm-zoo list` names.
    data
        Your file, CSV or parquet. Without it a shipped data set is used.
    dataset
        Which shipped data set; the model's first if not given.
    columns
        What your file calls the columns of the model, or of the reader: observed=deaths,expected=exp.
    reader
        Read a file in a format of its own, e.g. hrrp.
    label
        A column with the name of each group beside its identifier, for pictures and sentences.
    drop_unusable
        Leave out rows that are a summary of the others, or that the model cannot use; they are counted and listed.
    option
        An option of the model, its reader or the sampler: gene=MAML1. May be repeated.
    moderator
        A column, of numbers or of names, by which groups differ beforehand: latitude; slope=latitude where they have
        several coefficients. May be repeated.
    prior
        Another prior: 'cv=HalfNormal(sigma=0.5)'. May be repeated.
    pooling
        Fit only this pooling. May be repeated.
    threshold
        Add the probability that a group lies above this value.
    seed
        Seed of the random numbers; drawn and printed if not given.
    draws
        Draws a chain.
    tune
        Warm-up draws a chain of NUTS; 1000 if not given.
    engine
        Independent draws where they are proved, else NUTS: auto. Or one of them.
    chains
        Chains.
    out
        Write a report into this new folder.
    overwrite
        Let the report replace an earlier one.
    quiet
        Print the verdict alone, with what was noted in reading the data and the seed.
    """
    from hbm_zoo.command_line.commands import compare_poolings
    from hbm_zoo.command_line.source import Source

    how = tuple(columns or ()), tuple(option or ()), tuple(moderator or ())
    source = Source(data, dataset, reader, *how, drop_unusable, label)
    settings = {"draws": draws, "tune": tune, "engine": engine, "chains": chains, "random_seed": seed}
    return compare_poolings(model, source, pooling or [], prior or [], settings, threshold, out, overwrite, quiet)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; every error becomes one sentence and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        return app(given, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except KeyboardInterrupt:
        return _say("Interrupted: nothing was written.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (BadInput, CycloptsError) as error:
        if debug:
            raise
        if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            unknown = error.unused_tokens[0]
            return _say(f"{unknown!r} was not expected: a file is given by --data, an option by name.", 2)
        if isinstance(error, CycloptsError):
            error.verbose = False
        return _say(str(error), 2)
    except Exception as error:
        if debug:
            raise
        return _say(f"This went wrong: {_first_line(error)} (--debug shows where).", 1)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no reason given'}"


def _say(sentence: str, code: int) -> int:
    Console(stderr=True).print(Text(f"hbm-zoo: {sentence}"), soft_wrap=True)
    return code
