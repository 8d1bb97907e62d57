"""What the table of a verb of one model says, in a sentence."""

import pandas as pd

from hbm_zoo.reporting.formatting import aligned, number

CERTAIN, MOST_NAMED = 0.9, 5
#: Sd of a log that is known within a factor of 2, in two of three cases and on either side of the middle by its root.
KNOWN = 0.35
#: Modules whose best told direction is said.
MOST_TOLD = 3


def bounds(table: pd.DataFrame) -> str:
    """The bound, its error and its promise, and the numbers that it is not to be taken for."""
    bound, *others = aligned(table["lower"], digits=4)
    apart = [f"{name} {value}" for name, value in zip(table.index[1:], others, strict=True)]
    return (
        f"{bound} (mcse {number(table['mcse'].iloc[0], 2)}): {table['promise'].iloc[0]}. "
        f"Not to be taken for {' or '.join(apart)}"
    )


def odds(table: pd.DataFrame) -> str:
    """Odds of the mirror, their error, and what they mean."""
    odds, mcse = (number(table[name].iloc[0], 2) for name in ("odds", "mcse"))
    stand = "CL and the area under the curve do not depend on it, ka, V and peaks do"
    return f"odds {odds} (mcse {mcse}) that absorption is the slower of the two rates: {stand}"


def inherited(table: pd.DataFrame) -> str:
    """Heritabilities over sites, where they are not small, and what is known where the classical estimate is 0."""
    h2, above = table["h2"], table.index[table["p_h2_above_0.2"] > CERTAIN]
    said = f"h2 {h2.iloc[0]:.2f}" if len(table) == 1 else f"h2 {h2.min():.2f} to {h2.max():.2f} over {len(table)} sites"
    said += f", beyond 0.2 with probability above {CERTAIN} at {len(above)}{some(above)}"
    zero = table[table["reml_sigma_A"] == 0]
    if zero.empty:
        return said
    (upper,) = (name for name in table if str(name).startswith("h2_eti") and str(name).endswith("ub"))
    return f"{said}. REML is exactly 0 at {len(zero)}{some(zero.index)}, where h2 may reach {zero[upper].max():.2f}"


def some(names: pd.Index) -> str:
    """The first few names, in brackets."""
    first = ", ".join(map(str, names[:MOST_NAMED]))
    return f" ({first}{', ...' if len(names) > MOST_NAMED else ''})" if len(names) else ""


def selection(table: pd.DataFrame) -> str:
    """Of each trait its mean gradient, what is left of its scatter, how often its sign turns, and the next year."""
    said = []
    for trait, of in table.groupby(level="trait", sort=False):
        rows = of.droplevel("trait")
        mean, low, high = (rows.loc["mean gradient"].iloc[k] for k in range(3))
        of_mean = rows["mean"]
        said.append(
            f"{trait}: mean gradient {mean:.2f} ({low:.2f} to {high:.2f}); {of_mean['share that is error']:.0%} of the "
            f"variance of estimates is error; opposite in {of_mean['years of opposite sign']:.0%} of years, naively "
            f"{of_mean['years of opposite sign, naive']:.0%}; P(next year < 0) = {of_mean['P(next year < 0)']:.2f}"
        )
    return ". ".join(said)


def surviving(table: pd.DataFrame) -> str:
    """Gradients over years, how many have a sign that is known, and what regressions year by year have none of."""
    beta, low = table["beta"], table["p_negative"]
    sure = f"above 0 with probability above {CERTAIN} in {(low < 1 - CERTAIN).sum()} of {len(table)} years, below in "
    said = f"gradients {beta.min():.2f} to {beta.max():.2f}, {sure}{(low > CERTAIN).sum()}"
    none = table.index[table["own"].isna()]
    return f"{said}. Regressions year by year have none of {len(none)}{some(none)}" if len(none) else said


def modulus(table: pd.DataFrame) -> str:
    """What is known of E, what the prior knew, and what a discrepancy that all share leaves alone."""
    first, name = table.iloc[0], table.index[0]
    (low, high), (least, most) = ([first[c] for c in table if c.startswith(f"{what}_eti")] for what in ("E", "prior"))
    said = (
        f"E of {name} {first['E']:.3g} GPa ({low:.3g} to {high:.3g}), {first['model_alone']:.3g} were the simulator "
        f"the truth; the prior held {least:.3g} to {most:.3g}"
    )
    apart = table.get("sd_of_difference", pd.Series(dtype=float)).dropna()
    if apart.empty or apart.median() > table["sd"].median() / 2:
        return said
    return (
        f"{said}. How specimens differ is known to {apart.median():.1%}, free of a discrepancy that all share; their "
        f"mean only to {table['sd'].iloc[0]:.0%}, and there the prior of m decides with it"
    )


def wrong(table: pd.DataFrame) -> str:
    """How far the simulator is off at the last sensor, and where that is told from nothing."""
    low, high = (table[c] for c in table if c.startswith("discrepancy_eti"))
    mean, least, most, x = table["discrepancy"].iloc[-1], low.iloc[-1], high.iloc[-1], table.index[-1]
    told = ((low > 0) | (high < 0)).sum()
    said = f"{mean:.2f} mm ({least:.2f} to {most:.2f}) at the last sensor, {x:g} m, under the typical load; told from "
    said += f"0 at {told} of {len(table)} sensors"
    if least < 0 < most:
        said += ", at the last not, for a softer material would do the same"
    error = table["simulator_error"].max()
    return f"{said}; between its runs the simulator itself is known to {error:.2g} mm" if error > 0 else said


def predicted(table: pd.DataFrame) -> str:
    """What is expected at each place, with a discrepancy and without, and what that rests on."""
    ends = [c for c in table if str(c).startswith("reality_eti")]
    said = []
    for (_, x, load), row in table.iterrows():
        low, high = (number(row[end]) for end in ends)
        said.append(
            f"{row['where']}, at {x:g} m under {load:g} N, {number(row['reality'])} mm ({low} to {high}), were the "
            f"simulator the truth {number(row['without'])}"
        )
    said.append(
        "beyond the data they rest on the kind of discrepancy that is assumed (docs/discrepancy.md of the package)"
    )
    return "; ".join(said)


def known(table: pd.DataFrame) -> str:
    """How many rates of modules are known alone and together, and where a module's own data tell next to nothing."""
    rates = table[[not set("+*/") & set(name) for name in table.index.get_level_values("function")]]
    alone, together = ((rates[column] < KNOWN).sum() for column in ("alone", "all"))
    nothing = (rates["all"] / rates["others"]) ** 2 > CERTAIN
    modules = rates.index.get_level_values("module")[nothing].unique()
    said = f"of {len(rates)} rates of modules {alone} are known within a factor of 2 alone, {together} with all modules"
    if not nothing.any():
        return said
    return (
        f"{said}. Of {nothing.sum()} a module's own data take less than a tenth of the variance that the others leave"
        f"{some(modules)}: there what is typical of modules is as good a guess"
    )


def told_best(table: pd.DataFrame) -> str:
    """The sum of log rates that each module's data tell best, of the modules that tell most, and that it is local."""
    rates = [name for name in table if name not in ("left", "ordered")]
    best = table.xs(1, level="direction").sort_values("left", kind="stable").head(MOST_TOLD)
    said = []
    for module, row in best.iterrows():
        signed = {name: ("- " if row[name] < 0 else "+ ", abs(row[name])) for name in rates}
        parts = [f"{sign}{'' if w == 1 else f'{w:.2g} '}log {name}" for name, (sign, w) in signed.items()]
        of_both = f" ({row['ordered']})" if row["ordered"] else ""
        said.append(
            f"{module} {' '.join(parts).removeprefix('+ ')}{of_both}, of whose variance {row['left']:.2g} is left"
        )
    return f"a module's own data tell best: {'; '.join(said)}; {table.attrs['note']}"


def resolved(table: pd.DataFrame) -> str:
    """Down to which spreads the nodes that were made once do."""
    spreads = [name for name in table if name.startswith("omega_")]
    error = f"the log likelihood is known within {table['error'].max():.2f} nats"
    if not table["resolved"].any():
        return f"the nodes that were made once resolve no spread of modules; on those that move {error}"
    least = table[table["resolved"]].iloc[-1]
    down_to = ", ".join(f"{name} {least[name]:.2g}" for name in spreads)
    return f"nodes that were made once resolve spreads of modules down to {down_to}; below, they move, and {error}"


def moderated(table: pd.DataFrame) -> str:
    """What is left of the heterogeneity, and the share explained, beside their priors; slopes stand with the others."""
    ends, of_prior = ([c for c in table if str(c).startswith(f"{of}eti")] for of in ("", "prior_"))

    def said(row: pd.Series, mean: str, ends: list[str]) -> str:
        low, high = (number(row[end]) for end in ends)
        return f"{number(row[mean])} ({low} to {high})"

    shares = [k for k, name in enumerate(table.index) if str(name).startswith("R2")]
    each = [
        f"{row.name} {said(row, 'mean', ends)}, a priori {said(row, 'prior_mean', of_prior)}"
        for k in shares
        for row in (table.iloc[k - 1], table.iloc[k])
    ]
    note = f". {table.attrs['note'].removesuffix('.')}" if table.attrs["note"] else ""
    left, explained = "; ".join(each[::2]), "; ".join(each[1::2])
    return f"what they leave: {left}; share of variance explained: {explained}{note}"
