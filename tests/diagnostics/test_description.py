"""The words agree with the graph: for every variant of the zoo, and for models nobody labelled."""

import numpy as np
import pymc as pm
import pytest

import hbm_zoo as hz
from hbm_zoo.diagnostics.description import describe_pooling
from hbm_zoo.model import HierarchicalModel

FEW = {"hospital_readmission": {"hospitals": 5}, "spike_slab_genes": {"genes": 5}}
VARIANTS = [
    (name, pooling, form)
    for name, module in hz.MODELS.items()
    for pooling, forms in module.MODEL.variants.items()
    for form in forms
]
#: What each site has of its own under every pooling, and is said of it.
OF_ITS_OWN = "sigma_E is drawn for each site alone, with a prior fixed in advance: no pooling."
#: What the points of a rig have in common under every pooling of its specimens.
OF_THE_RIG = "delta, made of z, is pooled over point through ell and a: partial pooling, centered."
#: What the graph tells of a form that it has no word for.
IN_THE_GRAPH = {"indicator": "centered"}


def built(name, *variant, **options):
    record = hz.MODELS[name].MODEL
    frame, _ = record.simulate(np.random.default_rng(0), **FEW.get(name, {}))
    return record.build(frame, *variant, **record.extras.simulated | options)


@pytest.mark.parametrize(("name", "pooling", "form"), VARIANTS)
def test_every_variant_of_the_zoo_is_described_as_what_it_is(name, pooling, form):
    record = hz.MODELS[name].MODEL
    said = describe_pooling(built(name, pooling, form))
    said = said if pooling == "none" else said.replace(OF_ITS_OWN, "")
    said = said.replace(OF_THE_RIG, "")
    assert [p for p in ("no", "complete", "partial") if f"{p} pooling" in said] == [pooling.removesuffix("ne")]
    assert record.group in said
    if pooling == "partial":
        assert f", {form}." in said
        assert record.heterogeneity in said
    else:
        assert record.heterogeneity not in said.replace(",", "").replace(".", "").split()


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name, pooling, form in VARIANTS if pooling == "partial" and form != "marginalized"],
)
def test_the_graph_alone_tells_a_form_as_it_was_recorded(name, form):
    model = built(name, "partial", form)
    del model.written
    assert f", {IN_THE_GRAPH.get(form, form)}." in describe_pooling(model)


def eight(form, dims="school"):
    """Eight schools by hand, in names the zoo does not have."""
    y, se = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    with pm.Model(coords={"school": np.arange(8)}) as model:
        if form == "alone":
            effect = pm.Normal("effect", 0, 20, dims=dims)
        elif form == "one":
            effect = pm.Normal("common", 0, 20)
        else:
            common, width = pm.Normal("common", 0, 20), pm.HalfNormal("width", 10)
            if form == "centered":
                effect = pm.Normal("effect", common, width, **({"dims": dims} if dims else {"shape": 8}))
            else:
                score = pm.Normal("score", dims=dims)
                effect = common + width * score
                effect = pm.Deterministic("effect", effect, dims=dims) if form == "noncentered" else effect
        pm.Normal("y", effect, se, observed=y, dims="school")
    return model


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("alone", "effect is drawn for each school alone, with a prior fixed in advance: no pooling."),
        ("centered", "effect is pooled over school through common and width: partial pooling, centered."),
        (
            "noncentered",
            "effect, made of score, is pooled over school through common and width: partial pooling, noncentered.",
        ),
    ],
)
def test_a_model_with_no_label_at_all_is_read_from_its_graph(form, said):
    assert describe_pooling(eight(form)) == said


def test_a_false_label_does_not_deceive():
    """What is registered as centered partial pooling but written without pooling is described as written."""

    def alone(data, prior):
        lam = pm.Gamma("lam", 2, 2, dims="hospital")
        pm.Poisson("O", data.expected * lam, observed=data.observed, dims="hospital")

    record = hz.hospital_readmission.MODEL
    liar = HierarchicalModel(**{**vars(record), "variants": {**record.variants, "partial": {"centered": alone}}})
    assert describe_pooling(liar.build(hz.load_data("three_hospitals"))).endswith("no pooling.")


def test_a_hyperparameter_that_the_groups_ignore_is_not_named():
    with pm.Model(coords={"school": np.arange(3)}) as model:
        common, width = pm.Normal("common"), pm.HalfNormal("width")
        sigma = pm.HalfNormal("sigma")
        pm.HalfNormal("unused")
        effect = pm.Normal("effect", common, width, dims="school")
        pm.Normal("y", effect, sigma, observed=np.zeros(3), dims="school")
    assert describe_pooling(model) == (
        "effect is pooled over school through common and width: partial pooling, centered. "
        "sigma is shared by all in the likelihood of y."
    )


def two_outcomes():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", mu, observed=0.0)
        pm.Normal("z", mu, observed=0.0)
    return model


def with_potential():
    with pm.Model(coords={"school": [0, 1]}) as model:
        effect = pm.Normal("effect", dims="school")
        pm.Normal("y", effect, observed=np.zeros(2), dims="school")
        pm.Potential("extra", -(effect**2).sum())
    return model


def chain():
    with pm.Model(coords={"district": [0, 1], "school": [0, 1, 2]}) as model:
        above = pm.Normal("above", pm.Normal("mu"), 1, dims="district")
        effect = pm.Normal("effect", above[np.array([0, 0, 1])], 1, dims="school")
        pm.Normal("y", effect, observed=np.zeros(3), dims="school")
    return model


def named_like_the_zoo():
    """Complete pooling whose noise has the name of a spread, and whose groups and data those of clinics."""
    with pm.Model(coords={"clinic": ["A", "B", "C"]}) as model:
        pm.Data("x", np.arange(3.0))
        pm.Normal("y", pm.Normal("mu"), pm.HalfNormal("tau"), observed=[1.0, 2.0, 3.0], dims="clinic")
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (named_like_the_zoo, "no variable has the dim of a group and the zoo did not build it"),
        (lambda: eight("one"), "complete pooling cannot be told from groups that are integrated out"),
        (lambda: eight("unnamed"), "score meets common and width in the likelihood"),
        (lambda: eight("centered", dims=None), "effect has 1 axes without dims"),
        (two_outcomes, "expected one observed variable, got y and z"),
        (with_potential, "extra adds to the density outside any variable"),
        (chain, "effect is drawn given above, by group too"),
        (pm.Model, "expected one observed variable, got none"),
    ],
    ids=["named like the zoo", "one", "unnamed", "no dims", "two outcomes", "potential", "chain", "empty"],
)
def test_an_unknown_structure_is_refused_in_one_sentence(model, said):
    with pytest.raises(ValueError, match=r"^The structure is not known: [^.]*\.?[^.]*\.$") as refusal:
        describe_pooling(model())
    assert said in str(refusal.value)
