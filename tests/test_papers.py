"""What belongs to the papers alone: sweep of lambda, one class under several texts, tables of what lies on disk."""

import numpy as np
import pandas as pd
import pytest

from foleylib import paths
from foleylib.datasets import samples
from foleylib.evaluation.differences import paired_differences
from foleylib.evaluation.embeddings import Embeddings
from foleylib.papers import latent_clap, pages, text_foley
from foleylib.runtime import write_csv
from foleylib.stages.sample import load_run

SWEEP = [
    "training",
    "sampling",
    "weighting",
    "s_n",
    "steps",
    "tuning",
    "lambda_lclap",
    "seed",
    "kad",
    "coverage",
    "fd",
    "fad",
    "judge_accuracy",
    "clap_score",
]


def test_sweep_has_a_row_for_each_training(project, tiny):
    table = latent_clap.sweep(tiny)
    assert list(table.columns) == SWEEP
    rows = [[tuning, value, 0] for tuning in (False, True) for value in (0, 30)]
    assert table[["tuning", "lambda_lclap", "seed"]].values.tolist() == rows
    assert table.fad.nunique() == 4 and np.isfinite(table[["fad", "judge_accuracy", "clap_score"]]).all(axis=None)
    assert (table.steps == 2).all() and (table.s_n == "noisy").all() and (table.weighting == "min-SNR 5").all()
    assert (table[["training", "sampling"]] == latent_clap.protocol(tiny)).all(axis=None)
    pd.testing.assert_frame_equal(pd.read_csv(paths.RESULTS / "lambda_sweep.csv"), table, rtol=1e-5, check_dtype=False)
    assert not list((paths.SCRATCH / "lambda").glob("*"))


def test_protocol_of_a_sweep(project, tiny):
    def protocol(**values):
        return latent_clap.protocol(tiny.changed(finetune=tiny.finetune.changed(**values)))

    own, lclap, train = protocol(), tiny.finetune.lclap, tiny.finetune.train
    assert (
        own["sampling"] == "dpm++ 4 steps, log_snr, guidance 2, 3 clips a class, seed 0" and len(own["training"]) == 8
    )
    assert own == protocol(lclap=lclap.changed(s_n="previous"), snr_gamma=None)
    assert own == protocol(train=train.changed(steps=99), seeds=[7])
    other = protocol(train=train.changed(lr=0.5))
    assert other["training"] != own["training"] and other["sampling"] == own["sampling"]
    other = latent_clap.protocol(tiny.changed(sampling=tiny.sampling.changed(guidance=9.0, solver="ddim")))
    assert other == own | {"sampling": "ddim 4 steps, eta 1, guidance 9, 3 clips a class, seed 0"}


def test_texts_are_compared(project, tiny):
    texts = {"Label": "Rain", "Rain": "heavy rain"}
    targets = tiny.targets.changed(label="Rain", texts=texts, seeds=[0, 1], clips=2, candidates=8)
    table, boxes = text_foley.compare_texts(tiny.changed(targets=targets))
    rows = ["Label", "Rain", text_foley.TUNED, text_foley.AUDIO]
    keys = [(row, seed, selected) for row in rows for seed in (0, 1) for selected in (False, True)]
    assert list(table[["row", "seed", "selected"]].itertuples(index=False, name=None)) == keys
    assert set(table.text[table.row != "Label"]) == {"heavy rain"} and (table.passed <= 4).all()
    assert np.isfinite(table[["kad", "coverage", "fd", "fad", "judge_accuracy", "clap_score"]]).all(axis=None)
    plain = table[~table.selected].set_index(["row", "seed"]).fad
    assert (
        plain[text_foley.TUNED].tolist() == plain[text_foley.AUDIO].tolist()
    )  # one model's clips, selected in two ways
    assert plain.nunique() == 6
    assert boxes.groupby(["row", "seed"], sort=False).sampling.apply(list).tolist() == [[0, 1, 2, 3]] * 6
    # The unselected clips, too, come from the half that sets no threshold.
    first = boxes[boxes.sampling == 2].set_index(["row", "seed"]).fad
    assert first.to_dict() == pytest.approx(plain[first.index].to_dict())
    for name, frame in (("targets", table), ("targets_boxes", boxes)):
        pd.testing.assert_frame_equal(pd.read_csv(paths.RESULTS / f"{name}.csv"), frame, rtol=1e-5, check_dtype=False)


def test_clips_that_pass_come_first_and_the_best_of_the_others_fill_up(tiny):
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.1, 0.6, 0.3, 0.9])  # the first four set the threshold
    E = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    drawn = Embeddings(np.array(["Rain"] * 8), {"clap": E})
    validation = Embeddings(np.array(["Rain"] * 3), {"clap": np.array([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1]])})
    for clips, expected in ((2, [5, 7]), (3, [5, 6, 7])):
        cfg = tiny.changed(targets=tiny.targets.changed(label="Rain", clips=clips, candidates=8))
        rows, passed = text_foley._selected(drawn, np.array([[1.0, 0.0]]), validation, cfg)
        assert rows.tolist() == expected and passed == 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of data/samples, data/controls and results."""
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    monkeypatch.setattr(paths, "CONTROLS", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return tmp_path


def write_clips(run, seed, rows):
    """Clips of a run from (label, level) rows: each wave is constant at its level."""
    clips = pd.DataFrame(rows, columns=["label", "level"])
    clips = clips.assign(id=[f"clip{i}" for i in range(len(clips))], target=0, prompt="", seed=0)
    waves = np.tile(clips.level.to_numpy(np.float32)[:, None], (1, 32))
    samples.write(paths.SAMPLES / run / str(seed), clips.drop(columns="level"), waves, 16000)


def test_fad_beside_published_is_of_one_embedder(tiny):
    rows = [{"metric": m, "embedder": e} for e in ("judge", "clap", "other", "vgg") for m in ("fad", "kad")]
    assert pages.fad_as_published(pd.DataFrame(rows), tiny).values.tolist() == [["fad", "clap"]]
    known = {"other": {"kind": "fad_16k", "weights": "a"}, "vgg": {"kind": "fad_dcase", "weights": "a"}}
    evaluate = tiny.evaluate.model_dump() | {"embedders": ["judge", "clap", "other", "vgg"]}
    cfg = tiny.changed(evaluators=known, evaluate=evaluate)
    assert pages.fad_as_published(pd.DataFrame(rows), cfg).values.tolist() == [["fad", "vgg"]]


def test_first_clips_of_each_class(folder):
    write_clips("real", 0, [("Rain", 0.25), ("DogBark", 0.5), ("Rain", 0.75)])
    write_clips("ldm", 0, [("DogBark", 0.125), ("Rain", 0.25)])
    write_clips("ldm", 3, [("DogBark", 0.375), ("Rain", 0.5), ("Rain", 0.625)])

    def levels(clips):
        assert all(wave.shape == (32,) and np.ptp(wave) == 0 for wave in clips.values())
        return {key: float(wave[0]) for key, wave in clips.items()}

    real = {("real", "Rain"): 0.25, ("real", "DogBark"): 0.5}
    assert levels(pages.first_clips(["real", "ldm"])) == real | {("ldm", "DogBark"): 0.125, ("ldm", "Rain"): 0.25}
    assert levels(pages.first_clips(["ldm", "real"], 3)) == real | {("ldm", "DogBark"): 0.375, ("ldm", "Rain"): 0.5}
    with pytest.raises(ValueError, match="run the sample stage of 'large' first"):
        pages.first_clips(["large"])


def test_first_clips_of_a_run(project):
    clips, (manifest, waves) = pages.first_clips(["ldm"], 1), load_run("ldm", 1)
    assert list(clips) == [("ldm", "DogBark"), ("ldm", "Rain")]
    for (_, label), wave in clips.items():
        assert np.array_equal(wave, waves[manifest.id == f"{label}-0000"][0])


def test_candidates_per_clip_over_all_seeds(folder):
    columns = ["label", "accepted", "candidates", "seed"]
    for name, rows in {
        "ldm_filter": [("Rain", 2, 4, 0), ("DogBark", 4, 4, 0), ("Rain", 2, 6, 1), ("DogBark", 0, 8, 1)],
        "tuning_filter": [("Rain", 0, 7, 0), ("DogBark", 1, 1, 0)],
    }.items():
        (folder / name).mkdir()
        pd.DataFrame(rows, columns=columns).to_csv(folder / name / "report.csv", index=False)
    table = pages.candidates_per_clip(["ldm_filter", "tuning_filter"])
    assert table.to_dict() == {
        "ldm_filter": {"Rain": 2.5, "DogBark": 3.0, "all": 22 / 8},
        "tuning_filter": {"Rain": np.inf, "DogBark": 1.0, "all": 8.0},
    }
    with pytest.raises(ValueError, match="report.csv is missing; run the selection stage of 'large_filter' first"):
        pages.candidates_per_clip(["large_filter"])


def sweep_of(rows, training="a"):
    """A table of `sweep` from (s_n, steps, lambda, seed, fad) rows."""
    table = pd.DataFrame(rows, columns=["s_n", "steps", "lambda_lclap", "seed", "fad"])
    return table.assign(tuning=False, training=training, sampling="five", weighting="none")


SWEEP_ROWS = [
    ("clean", 120, 0.0, 0, 0.5),
    ("clean", 120, 0.0, 1, 0.7),
    ("clean", 120, 0.0, 2, 0.6),
    ("clean", 40, 0.0, 0, 9.0),
    ("noisy", 120, 10.0, 0, 0.4),
    ("noisy", 120, 10.0, 1, 0.4),
    ("noisy", 120, 10.0, 2, 0.4),
    ("clean", 40, 10.0, 0, 9.5),
    ("clean", 360, 10.0, 0, 1.0),  # no model without the loss is as long
]


def test_gains_are_paired_by_protocol_length_and_seed():
    frame = sweep_of(SWEEP_ROWS)
    other = frame.assign(training="b", fad=frame.fad + 1)[1:]
    for stacked in (frame, pd.concat([frame, frame, other])):
        table = pages.gains(stacked, "fad").set_index(["training", "steps", "s_n"])
        assert list(table.index)[:2] == [("a", 40, "clean"), ("a", 120, "noisy")]
        assert table["mean"].tolist()[:2] == pytest.approx([0.5, -0.2]) and table.seeds.tolist()[:2] == [1, 3]
        assert np.isnan(table.low.iloc[0]) and table.low.iloc[1] < -0.2 < table.high.iloc[1]
    assert list(table.index)[2:] == [("b", 40, "clean"), ("b", 120, "noisy")]
    other = stacked[stacked.lambda_lclap > 0].assign(weighting="min-SNR 5")  # without the loss there is none
    assert len(pages.gains(pd.concat([stacked, other]), "fad")) == len(table)
    of_b = table.loc[("b", 120, "noisy")]
    assert of_b.seeds == 2 and of_b["mean"] == pytest.approx(-0.25)


def test_gains_of_another_metric():
    table = pages.gains(sweep_of(SWEEP_ROWS).assign(clap_score=lambda t: -2 * t.fad), "clap_score")
    assert table["mean"].tolist() == pytest.approx([-1.0, 0.4])


def test_exploration_of_the_same_protocol_joins_the_sweep(folder):
    own, same, other = sweep_of(SWEEP_ROWS[:2]), sweep_of(SWEEP_ROWS[2:4]), sweep_of(SWEEP_ROWS[4:], training="b")
    write_csv(own, folder / "lambda_sweep.csv")
    pd.testing.assert_frame_equal(pages.explored(), own, check_dtype=False)
    write_csv(pd.concat([same, other], ignore_index=True), folder / "exploration" / "a.csv")
    write_csv(other.assign(sampling="ten", training="a"), folder / "exploration" / "b.csv")
    pd.testing.assert_frame_equal(pages.explored(), sweep_of(SWEEP_ROWS[:4]), check_dtype=False)


def test_fresh_seeds_confirm_in_the_form_of_paired_differences(folder):
    frame = sweep_of([row for row in SWEEP_ROWS if row[1] == 120])
    scores = {m: frame.fad for m in ("kad", "coverage", "fd", "judge_accuracy", "clap_score")}
    write_csv(frame.head(1), folder / "lambda_sweep.csv")
    assert not len(pages.confirmed())
    write_csv(frame.assign(**scores, tuning=True), folder / "confirmation" / "a.csv")
    write_csv(frame.assign(**scores, training="b"), folder / "confirmation" / "b.csv")
    table = pages.confirmed()
    assert list(table.columns) == ["run", "minus", "metric", "mean", "low", "high", "seeds"]
    assert list(table.metric) == ["kad", "fd", "coverage", "judge_accuracy", "fad", "clap_score"]
    assert set(zip(table.run, table.minus, table.seeds)) == {("tuning_latent", "tuning", 3)}
    assert table["mean"].to_numpy() == pytest.approx(-0.2)


def test_paired_differences():
    values = {"ldm": [0.5, 0.7, 0.9], "tuning": [0.4, 0.4, 0.4], "large": [0.3]}
    fads = [(run, seed, v) for run, of_seeds in values.items() for seed, v in enumerate(of_seeds)]
    rows = [("average", "fad", "clap", *row) for row in fads]
    rows += [("Rain", "fad", "clap", "ldm", 0, 9.0), ("all", "fad", "clap", "ldm", 0, 8.0)]
    rows += [("average", "kad", "clap", "ldm", 0, 50.0), ("average", "kad", "judge", "ldm", 0, 7.0)]
    rows += [("average", "kad", "judge", "tuning", 0, 5.0), ("average", "kad", "judge", "large", 1, 5.0)]
    summary = pd.DataFrame(rows, columns=["class", "metric", "embedder", "run", "seed", "value"])
    summary = pd.concat([summary, summary])  # a run that answers to two tables is there twice
    table = paired_differences(summary, [("tuning", "ldm"), ("large", "ldm")])
    assert list(table.columns) == ["run", "minus", "metric", "mean", "low", "high", "seeds"]
    table = table.set_index(["metric", "run"])
    assert list(table.index) == [(metric, run) for metric in ("kad", "fad") for run in ("tuning", "large")]
    assert table.seeds.tolist() == [1, 0, 3, 1] and table["mean"].tolist()[2:] == pytest.approx([-0.3, -0.2])
    assert table["mean"].iloc[0] == -2.0 and np.isnan(table["mean"].iloc[1])
    half = 4.302653 * 0.2 / np.sqrt(3)  # Student's t of two degrees of freedom; the differences are 0.2 apart
    assert table.loc[("fad", "tuning"), ["low", "high"]].tolist() == pytest.approx([-0.3 - half, -0.3 + half], abs=1e-6)
    assert table.low.isna().tolist() == [True, True, False, True]


def test_comparisons_are_counted():
    frame = pd.DataFrame({"low": [0.1, -0.1, -0.3, np.nan], "high": [0.2, 0.1, -0.2, np.nan]})
    assert pages.comparisons(frame).startswith("3 differences with an interval: 2 leave zero out")
    assert "0.2 would by chance" in pages.comparisons(frame)


def test_best_of_each_class_is_chosen_on_validation_clips():
    scores = {("a", "Rain"): 1.0, ("a", "DogBark"): 5.0, ("b", "Rain"): 9.0, ("b", "DogBark"): 7.0}
    rows = [(label, "kad", "judge", run, seed, v + seed) for (run, label), v in scores.items() for seed in (0, 1)]
    rows += [("average", "kad", "judge", "a", 0, 3.0), ("all", "kad", "judge", "a", 0, 4.0)]
    summary = pd.DataFrame(rows, columns=["class", "metric", "embedder", "run", "seed", "value"])
    kads = [("a", "Rain", 0, 1.0), ("a", "DogBark", 0, 6.0), ("b", "Rain", 0, 2.0), ("b", "DogBark", 0, 5.0)]
    kads += [("a", "DogBark", 1, 0.0), ("c", "Rain", 0, 0.0)]  # a seed that b lacks, a run that is not asked for
    validation = pd.DataFrame(kads, columns=["run", "class", "seed", "kad"])
    best, choice = pages.best_per_class(summary, validation, ["a", "b"])
    assert choice.to_dict() == {"Rain": "a", "DogBark": "b"}  # on test clips a would be the better in both
    assert set(best.run) == {pages.BEST} and set(best.seed) == {0}
    assert best.set_index("class").value.to_dict() == {"Rain": 1.0, "DogBark": 7.0, "average": 4.0}
