"""The evaluator: scores of known sets, averages, files, the summary table."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from foleylib.evaluation import scores
from foleylib.evaluation.comparable import FACTS
from foleylib.evaluation.distribution import density_coverage, kad
from foleylib.evaluation.embeddings import Embeddings, embed_clips
from foleylib.evaluation.metrics import METRICS, clap_score
from foleylib.evaluation.quick import quick

LABELS = ("DogBark", "Rain", "GunShot")
SETTINGS = SimpleNamespace(split="test", bootstrap=20, level=0.9, splits=4, seed=0)
PUBLISHED = ["paper", "table", "row", "class", "metric", "value"]
PROTOCOLS = ["paper", "table", "metric", *FACTS]


def clips(seed=0, per_class=12, shift=0.0, labels=LABELS):
    """Embeddings of clips whose logits favour their class; `shift` moves the embeddings."""
    rng, names = np.random.default_rng(seed), np.repeat(labels, per_class)
    n, target = len(names), np.array([LABELS.index(label) for label in names])
    arrays = {"logits": rng.standard_normal((n, 3)) + 2.0 * np.eye(3)[target]}
    arrays |= {"clap": rng.standard_normal((n, 4)) + shift, "text": rng.standard_normal((3, 4))[target]}
    return Embeddings(names, arrays | {"judge": rng.standard_normal((n, 5)) + shift})


def score(reference, generated):
    return scores.score(reference, generated, judge_labels=LABELS, settings=SETTINGS)


def table(reference, generated):
    frame = pd.DataFrame(score(reference, generated))
    assert not frame.duplicated(["class", "metric", "embedder"]).any()
    return frame.drop_duplicates(["class", "metric"]).set_index(["class", "metric"])  # the judge's, where both have it


def test_equal_sets():
    rows = table(clips(), clips())
    for name in ("all", *LABELS, "average"):
        assert rows.value[name, "fad"] == pytest.approx(0, abs=1e-6)
        assert rows.value[name, "fd"] == pytest.approx(0, abs=1e-6)
        assert rows.value[name, "kl"] == pytest.approx(0, abs=4e-6)  # 1e-6 a class inside its logarithm
        assert rows.value[name, "coverage"] == 1


def test_rows_of_the_table():
    rows = table(clips(), clips(1))
    metrics_of = {name: set(rows.loc[name].index) for name in ("all", *LABELS, "average")}
    common = {"kad", "coverage", "density", "fad", "fd", "clap_score", "judge_accuracy", "kl"}
    assert metrics_of == {"all": common | {"is"}, **dict.fromkeys(LABELS, common), "average": common}
    embedders = rows.embedder["all"].to_dict()
    assert {metric for metric, embedder in embedders.items() if embedder == "clap"} == {"fad", "clap_score"}
    assert set(embedders.values()) == {"clap", "judge"} and set(embedders) <= set(METRICS)
    assert (rows.low <= rows.value + 1e-9).all() and (rows.value <= rows.high + 1e-9).all()
    assert rows.n["all", "fad"] == rows.n["average", "fad"] == 36 and rows.n["Rain", "fad"] == 12


def test_average_is_the_mean_over_classes():
    rows = table(clips(), clips(1, shift=0.5))
    for metric in ("fad", "fd", "clap_score", "kl"):
        classes = rows.loc[list(LABELS)].xs(metric, level="metric")
        average = rows.loc["average", metric]
        assert average.value == pytest.approx(classes.value.mean())
        error = 1.6448536 * np.sqrt((classes.sd**2).sum()) / 3
        assert (average.low, average.high) == pytest.approx((average.value - error, average.value + error))
    accuracy = rows.xs("judge_accuracy", level="metric")[["value", "low", "high"]].astype(float)
    np.testing.assert_allclose(accuracy.loc["average"], accuracy.loc["all"])
    assert accuracy.high.max() <= 1
    assert rows.value["all", "kl"] == rows.value["average", "kl"]
    assert rows.value["all", "judge_accuracy"] == pytest.approx(rows.value["average", "judge_accuracy"])


def test_values_are_those_of_the_metrics():
    reference, generated = clips(), clips(1, shift=0.5)
    rows = table(reference, generated)
    assert rows.value["all", "clap_score"] == pytest.approx(clap_score(generated["clap"], generated["text"]))
    hits = generated["logits"].argmax(1) == np.repeat([0, 1, 2], 12)
    assert rows.value["all", "judge_accuracy"] == pytest.approx(hits.mean())
    q, p = (softmax(part.only("Rain")["logits"], axis=1).mean(0) for part in (reference, generated))
    assert rows.value["Rain", "kl"] == pytest.approx(np.sum(q * np.log(q / p)), rel=1e-3)
    for name, x, y in [("all", reference, generated), ("Rain", reference.only("Rain"), generated.only("Rain"))]:
        found = density_coverage(x["judge"], y["judge"])
        assert (rows.value[name, "density"], rows.value[name, "coverage"]) == pytest.approx(found)
        assert rows.value[name, "kad"] == pytest.approx(kad(x["judge"], y["judge"]))
    far = table(reference, clips(1, shift=5.0))
    assert far.value["all", "fad"] > rows.value["all", "fad"] + 4 * 4.5**2 - 4 * 0.5**2


def test_reference_may_have_more_classes():
    rows = table(clips(), clips(1, labels=LABELS[:2]))
    assert set(rows.index.get_level_values(0)) == {"all", "DogBark", "Rain", "average"}


def test_order_of_clips_does_not_matter():
    reference, generated = clips(), clips(1)
    order = np.random.default_rng(2).permutation(36)
    mixed = Embeddings(generated.labels[order], {name: values[order] for name, values in generated.arrays.items()})
    ours, theirs = table(reference, generated).value, table(reference, mixed).value
    kept = [i for i in ours.index if i[1] != "is"]  # its splits are of the order
    assert np.allclose(ours[kept], theirs[kept])


def test_unknown_class_is_named():
    generated = clips(1)
    generated.labels = np.where(generated.labels == "Rain", "Cat", generated.labels)
    with pytest.raises(ValueError, match=r"\['Cat'\] are none of the judge's: DogBark, Rain, GunShot"):
        score(clips(), generated)


def test_clips_without_classes_are_scored_as_one_set():
    sets = [clips(), clips(1)]
    one, two = (Embeddings(np.full(36, ""), each.arrays) for each in sets)
    rows, labelled = table(one, two), table(*sets)
    common = {"kad", "coverage", "density", "fad", "fd", "clap_score"}
    assert set(rows.index) == {("all", m) for m in common | {"is"}} | {("average", m) for m in common}
    assert rows.value["all"].equals(labelled.value["all"][rows.value["all"].index])
    assert rows.loc["average"].equals(rows.loc["all"].loc[rows.loc["average"].index])
    headline = scores.headline_of([{**row, "seed": 0} for row in score(one, two)])
    assert headline["kad_average"] == headline["kad"] and "judge_accuracy" not in headline
    quickly = quick(one, two, LABELS)
    assert quickly == pytest.approx({m: rows.value["all", m] for m in common - {"density"}})


class Networks:
    """Stands for the judge and for CLAP: embeds a wave by its first samples, a text by its length."""

    rate = 16000

    def embed(self, waves, *, batch_size):
        return {"embedding": waves[:, :2], "logits": waves[:, :3]}

    def embed_audio(self, waves, rate, *, batch_size):
        return torch.from_numpy(waves[:, :4])

    def embed_text(self, texts):
        assert len(texts) == len(set(texts))
        return torch.tensor([[len(text)] * 4 for text in texts])


def test_clips_are_embedded_by_every_network_and_read_back(tmp_path):
    waves, labels, prompts = np.random.default_rng(0).normal(size=(3, 9)), ["a", "b", "a"], ["x", "rain", "x"]
    embedded = embed_clips(waves, labels, prompts, judge=Networks(), clap=Networks(), rate=16000)
    assert len(embedded) == 3 and embedded["text"][:, 0].tolist() == [1, 4, 1]
    assert np.array_equal(embedded.only("a")["clap"], waves[[0, 2], :4])
    embedded.save(tmp_path / "run" / "0.npz")
    same = Embeddings.load(tmp_path / "run" / "0.npz")
    assert same.labels.tolist() == labels and list(same.arrays) == ["judge", "logits", "clap", "text"]
    assert all(np.array_equal(same[name], values) for name, values in embedded.arrays.items())
    with pytest.raises(ValueError, match="run the evaluate stage"):
        Embeddings.load(tmp_path / "run" / "1.npz")
    with pytest.raises(ValueError, match="judge takes 16000 Hz, the clips are at 8000 Hz"):
        embed_clips(waves, labels, prompts, judge=Networks(), clap=Networks(), rate=8000)


def save(folder, run, rows):
    scores.save(folder / f"{run}.json", {"run": run}, [{**row, "seed": 7} for row in rows])
    return folder / f"{run}.json"


def test_file_of_a_run(tmp_path):
    rows = score(clips(), clips(1))
    file = save(tmp_path / "deep", "ldm", rows)
    content = json.loads(file.read_text())
    averages = {"kad_average", "coverage_average", "fad_average"}
    assert set(content["headline"]) == averages | {row["metric"] for row in rows if row["class"] == "all"}
    assert len(content["scores"]) == len(rows) and content["card"] == {"run": "ldm"}
    whole = {row["metric"]: row for row in reversed(rows) if row["class"] == "all"}
    assert content["headline"]["kad"] == pytest.approx(whole["kad"]["value"], abs=1e-6)  # the judge's
    assert content["headline"]["fad"] == pytest.approx(whole["fad"]["value"], abs=1e-6)


def test_headlines_are_means_of_the_averages_over_seeds(tmp_path):
    written = [
        ("base", "average", "kad", "judge", 1.0, 0),
        ("base", "average", "kad", "judge", 1.0, 0),  # of a second table
        ("base", "average", "kad", "judge", 2.0, 1),
        ("base", "average", "kad", "clap", 9.0, 0),
        ("base", "all", "kad", "judge", 9.0, 0),
        ("base", "average", "clap_score", "clap", 0.123456, 0),
        ("other", "average", "kad", "judge", 3.0, 0),
        ("other", "average", "clap_score", "clap", 0.5, 0),
        ("other", "average", "density", "judge", 9.0, 0),
        ("third", "average", "kad", "judge", 4.0, 0),
    ]
    summary = pd.DataFrame(written, columns=["run", "class", "metric", "embedder", "value", "seed"])
    table = scores.headlines(summary)
    assert list(table.columns) == ["run", "kad", "clap_score"] and table.run.tolist() == ["base", "other", "third"]
    assert table.kad.tolist() == [1.5, 3.0, 4.0] and np.isnan(table.clap_score[2])
    for _ in range(2):  # the second time over what is there
        scores.save_headlines(table, "base", ["other", "base"], tmp_path / "headline.json")
        told = json.loads((tmp_path / "headline.json").read_text())
        assert list(told.items()) == [("base", {"kad": 1.5, "clap_score": 0.1235}), ("other", {"kad": 3.0})]


def test_summary_joins_published_numbers(tmp_path):
    rows = score(clips(), clips(1))
    files = [save(tmp_path / "results" / "evaluate", run, rows) for run in ("ldm", "foundation")]
    runs = {"ldm": ["paper:1:LDM-S", "paper:2:LDM-S"], "foundation": []}
    published = [("1", "LDM-S", "Rain", 3.5), ("2", "LDM-S", "Rain", 9.0), ("1", "Other", "DogBark", 8.0)]
    published = pd.DataFrame([("paper", int(t), r, c, "fad", v) for t, r, c, v in published], columns=PUBLISHED)
    unknown = pd.DataFrame(columns=PROTOCOLS)
    summary = scores.summarise(files, runs, published, unknown, tmp_path)
    assert list(summary.columns) == scores.COLUMNS and len(summary) == 3 * len(rows)
    known = summary[summary.published.notna()]
    assert known[["run", "table", "class", "metric", "published"]].values.tolist() == [
        ["ldm", "1", "Rain", "fad", 3.5],
        ["ldm", "2", "Rain", "fad", 9.0],
    ]
    assert set(summary.run) == {"ldm", "foundation"} and (summary.seed == 7).all() and not summary.comparable.any()
    assert set(summary[summary.run == "ldm"].paper) == {"paper"}
    assert set(summary.protocol) == {"results/evaluate/ldm.json", "results/evaluate/foundation.json"}
    with pytest.raises(ValueError, match="scores the run 'ldm', which params.yaml no longer has"):
        scores.summarise(files, {}, published, unknown, tmp_path)
    assert list(scores.summarise([], {}, published[:0], unknown, tmp_path).columns) == scores.COLUMNS


def test_headline_is_the_mean_over_seeds():
    rows = [{**row, "seed": seed} for seed in (1, 2) for row in score(clips(), clips(seed))]
    values = [row["value"] for row in rows if (row["class"], row["metric"]) == ("average", "fad")]
    assert scores.headline_of(rows)["fad_average"] == pytest.approx(np.mean(values), abs=1e-6)


def test_quick_scores_are_those_of_the_table():
    reference, generated = clips(), clips(1)
    rows = table(reference, generated).value
    expected = {metric: rows["average", metric] for metric in ("kad", "coverage", "fd", "fad")}
    expected |= {metric: rows["all", metric] for metric in ("judge_accuracy", "clap_score")}
    assert quick(reference, generated, LABELS) == pytest.approx(expected)


def test_a_sweep_needs_neither_the_metrics_nor_the_statistics():
    code = "import sys, foleylib.evaluation.quick; print([m for m in sys.modules if m.startswith('foleylib.')])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "foleylib.evaluation.embeddings" in modules
    assert not any(f"foleylib.evaluation.{name}'" in modules for name in ("metrics", "statistics", "scores"))


def test_card_names_what_a_number_depends_on():
    def card(*ids):
        return scores.card(
            "ldm",
            {0: pd.DataFrame({"id": ids})},
            {"steps": 4},
            models={0: {"unet": "1"}},
            reference="2",
            evaluators={"judge": {"network": "judge", "convention": "judge", "sha256": "3"}},
            paired=False,
            rate=16000,
            device="cpu",
            settings=SETTINGS,
        )

    assert card("a", "b") == card("b", "a") and card("a", "b")["clips"] != card("a", "c")["clips"]
    assert card("a", "b")["n"] == {0: 2} and card("a", "b")["evaluators"]["judge"]["sha256"] == "3"
    json.dumps(card("a", "b"))
