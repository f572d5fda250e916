"""Comparability is computed: true where all facts agree, false where any one differs or is not known."""

import json

import pandas as pd
import pytest

from foleylib.evaluation import scores
from foleylib.evaluation.comparable import FACTS, comparable, facts_of
from foleylib.stages.evaluate import PROTOCOLS, PUBLISHED

FACTS_OF_A_PAPER = {
    "embedder": "vggish",
    "weights_sha256": "a" * 64,
    "evaluation_set_sha256": "b" * 64,
    "n": "700",
    "convention": "fad_dcase",
}
CARD = {
    "run": "ldm",
    "n": {"0": 700, "1": 700},
    "reference_sha256": "b" * 64,
    "evaluators": {"vgg": {"network": "vggish", "convention": "fad_dcase", "sha256": "a" * 64}},
    "conventions": {"is": "10 splits, seed 2020"},
}
SCORE = {
    "class": "average",
    "metric": "fad",
    "embedder": "vgg",
    "value": 5.0,
    "low": 4.0,
    "high": 6.0,
    "n": 700,
    "seed": 1,
}


def test_all_facts_agree():
    assert comparable(facts_of(CARD, SCORE), FACTS_OF_A_PAPER)
    assert set(FACTS) == set(FACTS_OF_A_PAPER)


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("other", ["another", "", None])
def test_one_fact_differs_or_is_unknown_on_either_side(fact, other):
    changed = FACTS_OF_A_PAPER | {fact: other}
    assert not comparable(facts_of(CARD, SCORE), changed)
    assert not comparable(changed, FACTS_OF_A_PAPER)


@pytest.mark.parametrize("fact", FACTS)
def test_what_is_unknown_on_both_sides_does_not_agree(fact):
    unknown = FACTS_OF_A_PAPER | {fact: ""}
    assert not comparable(unknown, unknown)


def test_a_number_that_no_paper_has_is_not_comparable():
    assert not comparable(FACTS_OF_A_PAPER, None)


def test_a_metric_has_a_convention_of_its_own():
    assert facts_of(CARD, SCORE | {"metric": "is"})["convention"] == "fad_dcase; 10 splits, seed 2020"
    assert facts_of({"run": "old"}, SCORE) == dict.fromkeys(FACTS)


def summary(tmp_path, card=CARD, score=SCORE, protocol=FACTS_OF_A_PAPER):
    scores.save(tmp_path / "ldm.json", card, [score])
    published = pd.DataFrame(
        [("paper", "I", "LDM", "average", "fad", 8.74)],
        columns=scores.COLUMNS[:2] + ["row", "class", "metric", "value"],
    )
    protocols = pd.DataFrame([{"paper": "paper", "table": "I", "metric": "fad", **protocol}])
    return scores.summarise([tmp_path / "ldm.json"], {"ldm": ["paper:I:LDM"]}, published, protocols, tmp_path)


def test_the_summary_computes_it(tmp_path):
    rows = summary(tmp_path)
    assert rows.published.tolist() == [8.74] and rows.comparable.tolist() == [True]
    assert not summary(tmp_path, protocol=FACTS_OF_A_PAPER | {"n": "100"}).comparable.any()
    assert not summary(tmp_path, score=SCORE | {"embedder": "clap"}).comparable.any()
    assert not summary(tmp_path, card=CARD | {"reference_sha256": "c" * 64}).comparable.any()
    without = summary(tmp_path, score=SCORE | {"class": "Rain"})
    assert without.published.isna().all() and not without.comparable.any()


def test_a_bound_that_a_score_lacks_is_null(tmp_path):
    rows = summary(tmp_path, score=SCORE | {"low": float("nan"), "high": float("nan")})
    assert rows[["low", "high"]].isna().all(axis=None)
    assert json.loads((tmp_path / "ldm.json").read_text())["scores"][0]["low"] is None


def test_protocols_are_of_published_numbers():
    protocols = pd.read_csv(PROTOCOLS, dtype=str, keep_default_na=False)
    published = pd.read_csv(PUBLISHED, dtype={"table": str})
    assert list(protocols) == ["paper", "table", "metric", *FACTS]
    known = set(published[["paper", "table", "metric"]].itertuples(index=False, name=None))
    assert set(protocols[["paper", "table", "metric"]].itertuples(index=False, name=None)) <= known
