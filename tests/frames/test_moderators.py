"""Columns that say beforehand in what groups differ: what is made of them, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hbm_zoo.frames.labels import text
from hbm_zoo.frames.moderators import Moderator, again, design, kinds, of_frame, slopes, told_by_one
from hbm_zoo.frames.rules import FrameError

FRAME = pd.DataFrame(
    {
        "site": ["A", "A", "B", "C", "D", "E", "E"],
        "latitude": [10.0, 10.0, 20.0, 30.0, 60.0, 80.0, 80.0],
        "kind": ["old", "old", "new", "old", "new", "far", "far"],
    }
)


def read(*columns, frame=FRAME):
    return of_frame(frame, columns, text(frame["site"]), "site", "sites")


def test_a_number_is_centred_over_groups_and_a_category_over_their_shares():
    assert read("latitude") == (Moderator("latitude", 40.0),)
    (kind,) = read("kind")
    assert kind == Moderator("kind", (("far", 0.2), ("new", 0.4), ("old", 0.4)))
    assert slopes([kind]) == {"beta_kind[new]": "kind[new]", "beta_kind[old]": "kind[old]"}


def test_the_design_is_that_of_a_regression_with_its_columns_centred():
    x = design(FRAME, read("latitude", "kind"), text(FRAME["site"]), np.array(["E", "A", "D"]), "site", "sites")
    assert x.dims == ("site", "moderator")
    assert x.moderator.values.tolist() == ["latitude", "kind[new]", "kind[old]"]
    np.testing.assert_allclose(x, [[40.0, -0.4, -0.4], [-30.0, -0.4, 0.6], [20.0, 0.6, -0.4]])
    latitude, kind = read("latitude", "kind")
    np.testing.assert_allclose(latitude.values(x.values[:, :1]), [80.0, 10.0, 60.0])
    np.testing.assert_allclose(kind.values(x.values[:, 1:]), [0, 2, 1])


def test_the_first_category_of_a_categorical_is_the_reference_and_levels_that_no_group_has_are_none():
    kind = pd.Categorical(FRAME["kind"], ["old", "lost", "far", "new"])
    (found,) = read("kind", frame=FRAME.assign(kind=kind))
    assert found.levels == ["old", "far", "new"]


def test_numbers_of_a_categorical_and_truths_are_levels():
    (stars,) = read("stars", frame=FRAME.assign(stars=pd.Categorical([1, 1, 2, 1, 3, 2, 2])))
    (northern,) = read("northern", frame=FRAME.assign(northern=FRAME["latitude"] > 25))
    assert stars.contrasts == ["stars[2]", "stars[3]"]
    assert northern.contrasts == ["northern[True]"]


def test_moderators_are_the_same_after_json():
    found = read("latitude", "kind")
    assert again(json.loads(json.dumps(found))) == found


REFUSED = {
    "a name that is not there": (["lattitude"], {}, "Did you mean 'latitude'"),
    "an empty cell": (["latitude"], {"latitude": [10, 10, None, 30, 60, 80, 80]}, "an empty cell in row 2"),
    "text among numbers": (["latitude"], {"latitude": [10, 10, "20 N", 30, 60, 80, 80]}, "'20 N' in row 2"),
    "numbers as text": (["latitude"], {"latitude": [*map(str, FRAME["latitude"])]}, "are a Categorical"),
    "no number": (["latitude"], {"latitude": [10, 10, np.inf, 30, 60, 80, 80]}, "got inf in row 2"),
    "a group of two minds": (
        ["latitude"],
        {"latitude": [10, 11, 20, 30, 60, 80, 90]},
        "expected one value for each site, got 10 and 11 in A; 80 and 90 in E",
    ),
    "one value": (["latitude"], {"latitude": 10.0}, "'latitude' is 10.0 for every site"),
    "one level": (["kind"], {"kind": "old"}, "'kind' is 'old' for every site"),
    "another unit": (["latitude", "F"], {"F": FRAME["latitude"] * 1.8 + 32}, "'F' says nothing that 'latitude' does"),
    "a coarser category": (["kind", "far"], {"far": FRAME["kind"] == "far"}, "'far' says nothing that 'kind' does"),
    "as many as groups": (["name"], {"name": FRAME["site"]}, "5 sites tell at most 3 slopes, got 4: 4 of name"),
    "one slope of two": (
        ["c[q]", "c"],
        {"c[q]": FRAME["latitude"], "c": [*"pppqqqq"]},
        "and 'c' would both have",
    ),
    "a slash": (["a/b"], {"a/b": FRAME["latitude"]}, "'beta_a/b' has a slash"),
    "a level with a slash": (["k"], {"k": [*"pppqq", "q/r", "q/r"]}, r"'beta_k\[q/r\]' has a slash"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_moderator_is_refused_in_words(what):
    columns, changed, said = REFUSED[what]
    with pytest.raises((FrameError, ValueError), match=said):
        read(*columns, frame=FRAME.assign(**changed))


def test_a_column_whose_name_is_a_number_is_no_column_of_that_text():
    with pytest.raises(ValueError, match="Unknown column for a moderator .* '7'"):
        read("7", frame=FRAME.rename(columns={"latitude": 7}))


def test_a_column_that_is_there_twice_is_refused():
    with pytest.raises(FrameError, match="expected one column 'latitude', got 2"):
        read("latitude", frame=pd.concat([FRAME, FRAME[["latitude"]]], axis=1))


def test_a_level_that_the_fit_has_not_seen_is_refused_by_its_rule():
    (kind,) = read("kind")
    assert kind.rule.holds(pd.Series(["far", "coin"])).tolist() == [True, False]
    assert kind.rule.expected == "a level of the fit, 'far', 'new' and 'old'"


def test_text_of_a_file_is_of_numbers_if_most_of_its_cells_are():
    file = pd.DataFrame({"a": ["1", "2,5", "x"], "b": ["x", "y", "3"]})
    assert {name: rule.label for name, rule in kinds(file, ["a", "b", "c"]).items()} == {"a": False, "b": True}


def alone_by_rank(x):
    """Groups without which the columns, an intercept among them, have a lower rank."""
    full = np.column_stack([np.ones(len(x)), x])
    rank = np.linalg.matrix_rank
    return [j for j in range(len(x)) if rank(np.delete(full, j, axis=0)) < rank(full)]


@pytest.mark.parametrize(
    "x", [[[1.0], [2], [3], [4]], [[0.0], [0], [0], [1]], [[0.0, 1], [0, 2], [1, 5], [0, 4]], [[0.0], [1], [1], [1]]]
)
def test_a_group_that_alone_tells_of_a_slope_is_named(x):
    x = np.array(x) - np.mean(x, axis=0)
    sites = [f"site{j}" for j in range(len(x))]
    said = told_by_one(xr.DataArray(x, {"site": sites}, ("site", "moderator")), "site")
    assert [j for j, site in enumerate(sites) if site in said] == alone_by_rank(x)
