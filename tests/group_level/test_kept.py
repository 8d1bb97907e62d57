"""The last answer is given again to whom asks the same, and to nobody else."""

import numpy as np
import xarray as xr

from hbm_zoo.group_level import integrated
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.models.success_rates import MODEL

UNITS = MODEL.under(population="logit-normal")


def test_another_object_another_number_or_another_owner_is_another_question():
    asked = []

    class Owner:
        @last_kept
        def answer(self, values, j):
            asked.append((values, j))
            return values[j]

    one, values = Owner(), [1, 2]
    assert (one.answer(values, 0), one.answer(values, np.int64(0)), len(asked)) == (1, 1, 1)
    assert (one.answer(values, 1), len(asked)) == (2, 2)
    assert (one.answer([1, 2], 1), len(asked)) == (2, 3)
    assert (Owner().answer(values, 1), len(asked)) == (2, 4)


def test_what_is_asked_of_some_groups_in_turn_is_tabulated_once(monkeypatch):
    seen = []

    def tabulated(*arguments):
        seen.append(arguments)
        return "what is known", xr.DataArray(0.0)

    monkeypatch.setattr(integrated, "tabulated", tabulated)
    frame, _ = UNITS.simulate(np.random.default_rng(1), units=3)
    data, level = UNITS.data(frame), UNITS.group_level
    h, other = (xr.Dataset({"mu": ("sample", [0.0]), "tau": ("sample", [1.0])}) for _ in "ab")
    assert level.conditional(h, data) == level.conditional(h, data) == "what is known"
    level.log_left_out(h, data)
    assert len(seen) == 1
    level.log_left_out(other, data)
    assert len(seen) == 2
