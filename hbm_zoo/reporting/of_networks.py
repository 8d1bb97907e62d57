"""What the tables of reaction networks say, in a sentence each."""

from __future__ import annotations

import pandas as pd

#: Sd of a log that is known within a factor of 2, in two of three cases and on either side of the middle by its root.
KNOWN = 0.35
#: The share of what the others leave of a variance, beyond which a module's own data tell next to nothing; names given.
NOTHING, MOST_NAMED = 0.9, 5


def known(table: pd.DataFrame) -> str:
    """How many rates of modules are known alone and together, and where a module's own data tell next to nothing."""
    rates = table[[not set("+*/") & set(name) for name in table.index.get_level_values("function")]]
    alone, together = ((rates[column] < KNOWN).sum() for column in ("alone", "all"))
    nothing = (rates["all"] / rates["others"]) ** 2 > NOTHING
    modules = [str(name) for name in rates.index.get_level_values("module")[nothing].unique()]
    said = f"of {len(rates)} rates of modules {alone} are known within a factor of 2 alone, {together} with all modules"
    if not modules:
        return said
    some = ", ".join(modules[:MOST_NAMED]) + (", ..." if len(modules) > MOST_NAMED else "")
    return (
        f"{said}. Of {nothing.sum()} a module's own data take less than a tenth of the variance that the others leave"
        f" ({some}): there what is typical of modules is as good a guess"
    )


def resolved(table: pd.DataFrame) -> str:
    """Down to which spreads the nodes that were made once do."""
    spreads = [name for name in table if name.startswith("omega_")]
    error = f"the log likelihood is known within {table['error'].max():.2f} nats"
    if not table["resolved"].any():
        return f"the nodes that were made once resolve no spread of modules; on those that move {error}"
    least = table[table["resolved"]].iloc[-1]
    down_to = ", ".join(f"{name} {least[name]:.2g}" for name in spreads)
    return f"nodes that were made once resolve spreads of modules down to {down_to}; below, they move, and {error}"
