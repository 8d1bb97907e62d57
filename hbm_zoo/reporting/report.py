"""Write a report: one folder with everything that a decision needs to be defended."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

import hbm_zoo as hz
from hbm_zoo.inference.fits import LABEL, Fits, in_words
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.funnel import beyond_limits
from hbm_zoo.reporting import definitions, tables
from hbm_zoo.reporting.answers import Answer, answers_of
from hbm_zoo.reporting.findings import Findings, findings
from hbm_zoo.reporting.folder import check_target, whole
from hbm_zoo.reporting.html import html
from hbm_zoo.zoo import pages

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["escaped"] = tables.escaped
TEMPLATES.globals["html"] = html
DOTS_PER_INCH = 130
#: Of numbers in files for people.
DIGITS = "%.6g"
QUESTIONS = {
    "new_group": "A new {group}",
    "new_observation": "The same {group}, again",
}


def report(
    fits: Fits,
    folder: str | Path,
    threshold: float | None = None,
    overwrite: bool = False,
    model: HierarchicalModel | None = None,
) -> Path:
    """Write what fits show, how it was found and what it rests on, to be handed on.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them.
    folder : str or Path
        Where to. It appears whole or not at all; its parent must exist.
    threshold : float, optional
        Adds P(estimand > threshold) to the groups.
    overwrite : bool
        Replace an earlier report, as a whole. Anything else that exists is refused.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pathlib.Path
        The folder: ``report.html`` (self-contained, printable), ``report.md``,
        ``comparison.csv`` (its column ``question`` keeps the two questions apart),
        ``groups.csv``, ``model_checks.csv`` if the model has checks, ``discoveries.csv`` if it has a
        null group, a table of each verb of the model's own, the pictures ``*.png``, and the fits as
        netCDF in ``fits/``.

    Raises
    ------
    FileExistsError, FileNotFoundError, PermissionError
        If the folder may not be written; nothing is changed.
    ValueError
        If fits do not belong together.
    """
    target = check_target(folder, overwrite)
    return write(findings(fits, threshold, model), target)


def write(found: Findings, target: Path) -> Path:
    """Write findings to a folder that `check_target` has allowed."""
    pictures = {name: _png(figure) for name, figure in _figures(found).items()}
    context = _context(found)
    with whole(target) as draft:
        for name, content in pictures.items():
            (draft / f"{name}.png").write_bytes(content)
        inline = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
        for template in ("report.html", "report.md"):
            text = TEMPLATES.get_template(f"{template}.j2").render(**context, pictures=inline, tables=tables)
            (draft / template).write_text(text, encoding="utf-8")
        compared = {q: table for q, table in found.comparisons.items() if isinstance(table, pd.DataFrame)}
        if compared:
            pd.concat(compared, names=["question", "pooling"]).to_csv(draft / "comparison.csv", float_format=DIGITS)
        found.groups.to_csv(draft / "groups.csv", float_format=DIGITS)
        if found.discoveries is not None:
            found.discoveries.to_csv(draft / "discoveries.csv", float_format=DIGITS)
        if isinstance(found.fit_to_data, pd.DataFrame):
            found.fit_to_data.to_csv(draft / "model_checks.csv", float_format=DIGITS)
        for answer, table in _answered(found):
            table.to_csv(draft / f"{answer.verb}.csv", float_format=DIGITS)
        (draft / "fits").mkdir()
        for name, fit in found.fits.items():
            fit.to_netcdf(draft / "fits" / f"{name}.nc")
    return target


def _figures(found: Findings) -> dict[str, Figure]:
    """The pictures that these fits and this model have."""
    kept = found.certain | set(beyond_limits(found.fits, found.record))
    figures = {"poolings": hz.plot_poolings(found.fits, kept)}
    if found.discoveries is None and any("rank" in fit["group_summary"] for fit in found.fits.values()):
        figures["ranks"] = hz.plot_ranks(found.fits, kept)
    if "partial" in found.fits and found.record.group_level.reliability is not None:
        figures["shrinkage"] = hz.plot_shrinkage(found.fits, found.record)
    one_target = found.record.extras.control_limits is not None and not found.record.group_level.placed
    if one_target and {"complete", "partial"} <= set(found.fits):
        figures["funnel"] = hz.plot_funnel(found.fits, found.record)
    if found.discoveries is not None:
        figures["volcano"] = hz.plot_volcano(found.leading, model=found.record)
        figures["local_fdr"] = hz.plot_local_fdr(found.leading, model=found.record)
    if found.record.extras.curve is not None:
        figures["fits"] = hz.plot_fits(found.fits, kept, found.record)
    if "partial" in found.fits and "none" in found.fits and _has_pairs(found):
        figures["coefficients"] = hz.plot_coefficients(found.fits, found.record)
    level = found.record.group_level
    of_groups = level.tails is not None and found.leading.attrs["pooling"] != "none"
    if isinstance(found.fit_to_data, pd.DataFrame) and (of_groups or level.row_tails is not None):
        figures["calibration"] = hz.plot_calibration(found.leading, model=found.record)
    drawn = [answer for answer, _ in _answered(found) if answer.picture]
    return figures | {answer.verb: answer.figure(found.leading, found.record) for answer in drawn}


def _has_pairs(found: Findings) -> bool:
    """Whether groups have several coefficients and a population, and draws of them were kept."""
    draws = [fit["posterior"].dataset.get(found.record.estimand) for fit in found.fits.values()]
    known = found.record.group_level.population is not None
    return known and len(found.parts) > 1 and all(each is not None for each in draws)


def _answered(found: Findings) -> list[tuple[Answer, pd.DataFrame]]:
    """The answers of the model's own verbs that are tables."""
    named = [(answer, found.answers[answer.verb]) for answer in answers_of(found.record)]
    return [(answer, table) for answer, table in named if isinstance(table, pd.DataFrame)]


def _in_text(found: Findings) -> list[tuple[Answer, str, pd.DataFrame]]:
    """The same, each with its sentence and its table for reading."""
    return [(a, a.sentence(table), tables.plain(table, a.own_units)) for a, table in _answered(found)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def _context(found: Findings) -> dict:
    """What the templates say, as text and frames of text."""
    fit, name = found.leading, found.record.name
    answered = {question: table for question, table in found.comparisons.items() if isinstance(table, pd.DataFrame)}
    compared = [
        (
            QUESTIONS[question].format(group=found.group),
            table.attrs["question"],
            tables.comparison(table, deviance=question == next(iter(answered))),
            tables.notes(table),
        )
        for question, table in answered.items()
    ]
    shown, left_out = tables.groups(found)
    return {
        "found": found,
        "title": pages.headline(name) or name,
        "formula": pages.formula(name, **found.record.chosen),
        "limits": [limit.replace("``", "") for limit in pages.assumptions(name)],
        "compared": compared,
        "answers": _in_text(found),
        "refused": [reason for reason in found.comparisons.values() if isinstance(reason, str)],
        "groups": shown,
        "left_out": left_out,
        "attributes": fit.attrs,
        "draws": _draws(fit.attrs),
        "options": in_words(fit),
        "versions": json.loads(fit.attrs["versions"]),
        "definitions": _definitions(
            found, {"question", "pooling", *(str(name) for table in answered.values() for name in table.columns)}
        ),
    }


def _draws(attributes: Mapping[str, Any]) -> str:
    """How many draws there are, and whose."""
    drawn = f"{attributes['chains']} chains of {attributes['draws']} draws"
    if attributes.get("engine") == "nuts":
        return f"{drawn} after {attributes['tune']} of warm-up, by NUTS ({attributes['why_nuts']})"
    return f"{drawn}, independent of one another"


def _definitions(found: Findings, compared: set[str]) -> dict[str, dict[str, str]]:
    """What each figure of each table and file means; `compared` are the columns of the comparisons."""
    volume, kappa = found.volume, found.record.group_level.kappa
    columns = {LABEL if name == found.label else str(name): str(name) for name in found.groups.columns}
    meanings = {
        "Words": definitions.WORDS,
        "Comparison of poolings": {c: definitions.COMPARISON[c] for c in definitions.COMPARISON if c in compared},
        "Groups": {name: definitions.define(c, volume, kappa) for c, name in columns.items()},
        "Checks": definitions.CHECKS,
    }
    if isinstance(found.fit_to_data, pd.DataFrame):
        meanings["Does the model fit the data?"] = definitions.FIT_TO_DATA
    if found.discoveries is not None:
        meanings["Discoveries"] = definitions.DISCOVERIES
    return meanings | {
        answer.heading: {str(c): answer.meanings.get(c) or definitions.define(str(c), volume, kappa) for c in table}
        for answer, table in _answered(found)
    }
