"""The evaluator: scores of known sets, averages, files, the summary table."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from foleylib import evaluation, metrics, paths
from foleylib.params_schema import Evaluate

LABELS = ("DogBark", "Rain", "GunShot")
SETTINGS = Evaluate(split="test", bootstrap=20, level=0.9, splits=4, seed=0)


def heard(seed=0, per_class=12, shift=0.0, labels=LABELS):
    """Clips whose logits favour their class; `shift` moves the embeddings."""
    rng, names = np.random.default_rng(seed), np.repeat(labels, per_class)
    n, target = len(names), np.array([LABELS.index(label) for label in names])
    logits = rng.standard_normal((n, 3)) + 2.0 * np.eye(3)[target]
    clap, text = rng.standard_normal((n, 4)) + shift, rng.standard_normal((3, 4))[target]
    return evaluation.Heard(names, rng.standard_normal((n, 5)) + shift, logits, clap, text)


def table(reference, made):
    rows = evaluation.score(reference, made, judge_labels=LABELS, settings=SETTINGS)
    frame = pd.DataFrame(rows)
    assert not frame.duplicated(["class", "metric"]).any()
    return frame.set_index(["class", "metric"])


def test_equal_sets():
    found = table(heard(), heard())
    for name in ("all", *LABELS, "average"):
        assert found.value[name, "fad"] == pytest.approx(0, abs=1e-6)
        assert found.value[name, "fd"] == pytest.approx(0, abs=1e-6)
        assert found.value[name, "kl"] == pytest.approx(0, abs=4e-6)  # 1e-6 a class inside its logarithm


def test_rows_of_the_table():
    found = table(heard(), heard(1))
    metrics_of = {name: set(found.loc[name].index) for name in ("all", *LABELS, "average")}
    shared = {"fad", "fd", "clap_score", "judge_accuracy", "kl"}
    assert metrics_of == {"all": shared | {"is"}, **dict.fromkeys(LABELS, shared), "average": shared}
    assert found.embedder["all"].to_dict() == {
        "fad": "clap", "fd": "judge", "clap_score": "clap", "judge_accuracy": "judge", "kl": "judge", "is": "judge"}  # fmt: skip
    assert (found.low <= found.value + 1e-9).all() and (found.value <= found.high + 1e-9).all()
    assert found.n["all", "fad"] == found.n["average", "fad"] == 36 and found.n["Rain", "fad"] == 12


def test_average_is_the_mean_over_classes():
    found = table(heard(), heard(1, shift=0.5))
    for metric in ("fad", "fd", "clap_score", "judge_accuracy", "kl"):
        classes = found.loc[list(LABELS)].xs(metric, level="metric")
        average = found.loc["average", metric]
        assert average.value == pytest.approx(classes.value.mean())
        error = 1.6448536 * np.sqrt((classes.sd**2).sum()) / 3
        assert (average.low, average.high) == pytest.approx((average.value - error, average.value + error))
    assert found.value["all", "kl"] == found.value["average", "kl"]
    assert found.value["all", "judge_accuracy"] == pytest.approx(found.value["average", "judge_accuracy"])


def test_values_are_those_of_the_metrics():
    reference, made = heard(), heard(1, shift=0.5)
    found = table(reference, made)
    cosine = metrics.clap_score(made.clap, made.text)
    assert found.value["all", "clap_score"] == pytest.approx(cosine)
    hits = made.logits.argmax(1) == np.repeat([0, 1, 2], 12)
    assert found.value["all", "judge_accuracy"] == pytest.approx(hits.mean())
    rows = made.labels == "Rain"
    q, p = (evaluation.softmax(h.logits[rows]).mean(0) for h in (reference, made))
    assert found.value["Rain", "kl"] == pytest.approx(np.sum(q * np.log(q / p)), rel=1e-3)
    far = table(reference, heard(1, shift=5.0))
    assert far.value["all", "fad"] > found.value["all", "fad"] + 4 * 4.5**2 - 4 * 0.5**2


def test_reference_may_have_more_classes():
    made = heard(1, labels=LABELS[:2])
    found = table(heard(), made)
    assert set(found.index.get_level_values(0)) == {"all", "DogBark", "Rain", "average"}


def test_order_of_clips_does_not_matter():
    reference, made = heard(), heard(1)
    order = np.random.default_rng(2).permutation(36)
    mixed = evaluation.Heard(*(values[order] for values in vars(made).values()))
    ours, theirs = table(reference, made).value, table(reference, mixed).value
    kept = [i for i in ours.index if i[1] != "is"]  # its splits are of the order
    assert np.allclose(ours[kept], theirs[kept])


def test_unknown_class_is_named():
    made = heard(1)
    made.labels = np.where(made.labels == "Rain", "Cat", made.labels)
    with pytest.raises(ValueError, match=r"\['Cat'\] are none of the judge's: DogBark, Rain, GunShot"):
        evaluation.score(heard(), made, judge_labels=LABELS, settings=SETTINGS)


def test_judge_of_another_rate_is_refused():
    with pytest.raises(ValueError, match="judge hears 32000 Hz, the clips are at 16000 Hz"):
        evaluation.hear(np.zeros((2, 10)), [], [], judge=SimpleNamespace(rate=32000), clap=None, rate=16000)


def save(path, run, scores, seed=7):
    evaluation.save(path / f"{run}.json", {"run": run}, [{**row, "seed": seed} for row in scores])
    return path / f"{run}.json"


def test_file_of_a_run(tmp_path):
    scores = evaluation.score(heard(), heard(1), judge_labels=LABELS, settings=SETTINGS)
    found = json.loads(save(tmp_path / "deep", "ldm", scores).read_text())
    assert set(found["headline"]) == {"fad", "fad_average", "fd", "clap_score", "judge_accuracy", "kl", "is"}
    assert len(found["scores"]) == len(scores) and found["card"] == {"run": "ldm"}
    whole = {row["metric"]: row for row in scores if row["class"] == "all"}
    assert found["headline"]["fad"] == pytest.approx(whole["fad"]["value"], abs=1e-6)
    for _ in range(2):  # the second time over what is there
        evaluation.save_headlines([tmp_path / "deep" / "ldm.json"], tmp_path / "metrics")
        assert json.loads((tmp_path / "metrics" / "ldm.json").read_text()) == found["headline"]


def test_summary_joins_published_numbers(tmp_path):
    scores = evaluation.score(heard(), heard(1), judge_labels=LABELS, settings=SETTINGS)
    files = [save(tmp_path / "results" / "evaluate", run, scores) for run in ("ldm", "foundation")]
    runs = {"ldm": ["paper:1:LDM-S", "paper:2:LDM-S"], "foundation": []}
    columns = ["paper", "table", "row", "class", "metric", "value"]
    published = pd.DataFrame(
        [["paper", 1, "LDM-S", "Rain", "fad", 3.5], ["paper", 2, "LDM-S", "Rain", "fad", 9.0],
         ["paper", 1, "Other", "DogBark", "fad", 8.0]], columns=columns)  # fmt: skip
    summary = evaluation.summarise(files, runs, published, tmp_path)
    assert list(summary.columns) == evaluation.COLUMNS and len(summary) == 3 * len(scores)
    known = summary[summary.published.notna()]
    assert known[["run", "table", "class", "metric", "published"]].values.tolist() == [
        ["ldm", "1", "Rain", "fad", 3.5],
        ["ldm", "2", "Rain", "fad", 9.0],
    ]
    with pytest.raises(ValueError, match="scores the run 'ldm', which params.yaml no longer has"):
        evaluation.summarise(files, {}, published, tmp_path)
    assert set(summary.run) == {"ldm", "foundation"} and (summary.seed == 7).all() and not summary.comparable.any()
    assert set(summary[summary.run == "ldm"].paper) == {"paper"}
    assert set(summary.protocol) == {"results/evaluate/ldm.json", "results/evaluate/foundation.json"}


def test_headline_is_the_mean_over_seeds(tmp_path):
    one, two = (evaluation.score(heard(), heard(i), judge_labels=LABELS, settings=SETTINGS) for i in (1, 2))
    rows = [{**row, "seed": seed} for seed, found in enumerate((one, two)) for row in found]
    values = [row["value"] for row in rows if (row["class"], row["metric"]) == ("average", "fad")]
    assert evaluation.headline_of(rows)["fad_average"] == pytest.approx(np.mean(values), abs=1e-6)


def test_what_was_heard_is_kept(tmp_path):
    one = heard(1)
    one.save(tmp_path / "run" / "0.npz")
    same = evaluation.load_heard(tmp_path / "run" / "0.npz")
    assert np.array_equal(same.clap, one.clap) and np.array_equal(same.labels, one.labels)
    with pytest.raises(ValueError, match="run the evaluate stage"):
        evaluation.load_heard(tmp_path / "run" / "1.npz")


def test_quick_scores_are_those_of_the_table():
    reference, made = heard(), heard(1)
    found, whole = evaluation.quick(reference, made, LABELS), table(reference, made).value
    assert found["fad"] == pytest.approx(whole["average", "fad"])
    assert found["judge_accuracy"] == pytest.approx(whole["all", "judge_accuracy"])
    assert found["clap_score"] == pytest.approx(whole["all", "clap_score"])


def test_paired_difference():
    reference, near, far = heard(), heard(1), heard(1, shift=1.0)
    reference = {label: reference.only(label).clap for label in LABELS}
    found = evaluation.paired_difference(reference, far, near, SETTINGS)
    assert found.low <= found.estimate <= found.high and found.low > 0
    back = evaluation.paired_difference(reference, near, far, SETTINGS)
    assert back.estimate == pytest.approx(-found.estimate)
    same = evaluation.paired_difference(reference, near, near, SETTINGS)
    assert same.low == same.estimate == same.high == 0
    with pytest.raises(ValueError, match="differ in classes or clips"):
        evaluation.paired_difference(reference, near, near.only("Rain"), SETTINGS)


def test_summary_of_nothing_has_its_columns():
    published = pd.DataFrame(columns=["paper", "table", "row", "class", "metric", "value"])
    assert list(evaluation.summarise([], {}, published, paths.ROOT).columns) == evaluation.COLUMNS


def test_card_names_what_a_number_depends_on():
    one, same, other = (pd.DataFrame({"id": ids}) for ids in (["a", "b"], ["b", "a"], ["a", "c"]))

    def card(manifest):
        return evaluation.card("ldm", {0: manifest}, {"steps": 4}, models={0: {"unet": "1"}}, reference="2", judge="3",
                               clap="4", rate=16000, device="cpu", settings=SETTINGS)  # fmt: skip

    assert card(one) == card(same) and card(one)["clips"] != card(other)["clips"]
    assert card(one)["n"] == {0: 2} and card(one)["embedders_sha256"] == {"judge": "3", "clap": "4"}
    json.dumps(card(one))
