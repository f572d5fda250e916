"""audioldm-transfer-benchmark: paired scores, the trainings with their checkpoints, what the pages make of them."""

import numpy as np
import pandas as pd
import pytest

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import fad
from foleylib.evaluation.paired import paired_scores
from foleylib.papers import transfer
from foleylib.papers import transfer_pages as pages
from foleylib.report import plots, tables
from foleylib.stages.reference import evenly

RNG = np.random.default_rng(0)


def embeddings(n, seed, **more):
    rng = np.random.default_rng(seed)
    labels = np.array(["Rain", "DogBark"] * (n // 2))
    arrays = {"judge": rng.normal(size=(n, 4)), "logits": rng.normal(size=(n, 2))}
    return Embeddings(labels, arrays | {"clap": rng.normal(size=(n, 3)), "text": rng.normal(size=(n, 3))} | more)


def value(rows, metric, embedder):
    (found,) = (row["value"] for row in rows if (row["metric"], row["embedder"]) == (metric, embedder))
    return found


# Paired scores


def test_every_network_at_hand_scores_the_clips():
    windows = {
        "fad_16k": RNG.normal(size=(40, 2, 3)),
        "cnn14": RNG.normal(size=(40, 5)),
        "cnn14.logits": RNG.normal(size=(40, 7)),
    }
    real, clips = embeddings(40, 1, **windows), embeddings(40, 2, **windows)
    rows = paired_scores(real, real, clips, judge_labels=["Rain", "DogBark"])
    by_embedder = {
        name: {row["metric"] for row in rows if row["embedder"] == name}
        for name in ("judge", "clap", "fad_16k", "cnn14")
    }
    whole = {"kad", "coverage", "density"}
    assert by_embedder == {
        "judge": {"fd", "is", "kl_pairs", "judge_accuracy"} | whole,
        "clap": {"fad", "clap_score"} | whole,
        "fad_16k": {"fad"} | whole,
        "cnn14": {"fd", "is", "kl_pairs"} | whole,
    }
    assert value(rows, "fd", "judge") == pytest.approx(fad(real["judge"], clips["judge"]))
    assert len(rows) == len({(row["metric"], row["embedder"]) for row in rows})


def test_partners_count_in_their_order_and_accuracy_needs_a_judge_that_knows_the_classes():
    real = embeddings(20, 1)
    same = paired_scores(real, real, real)
    assert value(same, "kl_pairs", "judge") == pytest.approx(0, abs=1e-5)
    assert value(paired_scores(real, real.at(np.arange(20)[::-1]), real), "kl_pairs", "judge") > 0.1
    for labels in ((), ["Rain", "Saw"]):
        assert "judge_accuracy" not in {row["metric"] for row in paired_scores(real, real, real, judge_labels=labels)}


def test_clips_come_evenly_from_classes():
    manifest = pd.DataFrame({"label": ["a", "a", "a", "b", "b", "c"]})
    assert evenly(manifest, 3, "x").tolist() == [0, 3, 5]
    assert evenly(manifest, 5, "x").tolist() == [0, 1, 3, 4, 5]
    assert evenly(manifest, 6, "x").tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="x is 7, but there are 6 clips"):
        evenly(manifest, 7, "x")


# The trainings


@pytest.fixture(scope="module")
def cfg(project, tiny):
    settings = {"untuned": ["foley"], "corpora": ["foley"], "seeds": [0, 1], "steps": 2, "every": 1, "scratch_lr": 1e-3}
    return tiny.changed(transfer=settings | {"clips": {"val": 4, "test": 4}})


@pytest.fixture(scope="module")
def compared(cfg):
    yield transfer.compare(cfg)


def test_untuned_foundation_beside_real_clips(compared):
    untuned, _ = compared
    assert list(dict.fromkeys(untuned.condition)) == ["text", "audio", "real clips"]
    scores = untuned.set_index(["condition", "metric", "embedder"]).value
    assert scores["text", "kad", "judge"] != scores["audio", "kad", "judge"]
    assert ("real clips", "kl_pairs", "judge") not in scores.index and ("audio", "kl_pairs", "judge") in scores.index


def test_each_training_is_scored_at_its_checkpoints(compared, cfg):
    _, tuned = compared
    assert (
        set(tuned.setting) == set(pages.SETTINGS) and set(tuned.step) == {1, 2} and set(tuned.split) == {"val", "test"}
    )
    keys = ["setting", "seed", "step", "split", "metric", "embedder"]
    assert not tuned.duplicated(keys).any() and tuned.value.notna().all()
    scores = tuned[tuned.split == "val"].pivot(index=["setting", "seed", *keys[4:]], columns="step", values="value")
    differs = scores[1] != scores[2]  # one score alone may not see two steps
    assert differs.groupby(level=["setting", "seed"]).any().all()
    assert scores[2].xs(("kad", "judge"), level=("metric", "embedder")).xs(1, level="seed").nunique() == 4
    stored = pd.read_csv(paths.RESULTS / "transfer.csv")
    assert len(stored) == len(tuned)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_the_training_it_was_at(compared, cfg, monkeypatch):
    tune, trained = transfer.tune, []

    def counted(*args, **options):
        if len(trained) == 2:
            trained.append("killed")
            raise KeyboardInterrupt
        trained.append(args[0])
        return tune(*args, **options)

    monkeypatch.setattr(transfer, "tune", counted)
    cfg = cfg.changed(transfer=cfg.transfer.changed(seeds=[0]))
    with pytest.raises(KeyboardInterrupt):
        transfer.compare(cfg)
    assert len(list((paths.SCRATCH / "transfer").glob("*.csv"))) == 2
    _, again = transfer.compare(cfg)
    assert len(trained) == 4 + 1  # the four trainings once each, and the one that was killed
    first = compared[1][compared[1].seed == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, first, rtol=1e-4)
    assert not (paths.SCRATCH / "transfer").exists()


def test_too_many_clips_are_refused(cfg):
    few = cfg.changed(transfer=cfg.transfer.changed(clips={"val": 40, "test": 6}))
    with pytest.raises(ValueError, match="transfer.clips.val is 40, but there are 4 clips"):
        transfer.Scorer("foley", few)


def test_clips_are_sampled_under_the_text_of_their_partners(cfg, project):
    scorer = transfer.Scorer("foley", cfg)
    chosen, partners = scorer.partners["test"]
    manifest = manifests.load(paths.CLIPS / "foley")
    own = manifest[manifest.split == "test"].set_index("id")
    assert chosen.prompt.tolist() == own.prompt[chosen.id].tolist() and len(partners) == 4


# The pages


@pytest.fixture
def tuned():
    """Scores of two trainings at two checkpoints: validation prefers the second of seed 0 and the first of seed 1."""
    rows = []
    for setting in pages.SETTINGS:
        for seed, kads in ((0, (5, 4)), (1, (3, 6)), (2, (2, 1))):
            for step, kad in zip((1, 2), kads):
                shift = {"scratch": 10, "pretrained": 0}[setting.split("_")[0]] + seed / 10 * (setting.endswith("text"))
                rows.append((setting, seed, step, "val", "kad", float(kad)))
                rows.append((setting, seed, step, "test", "kad", step + shift))
                rows.append((setting, seed, step, "test", "coverage", step / 10))
    frame = pd.DataFrame(rows, columns=["setting", "seed", "step", "split", "metric", "value"])
    return frame.assign(embedder="judge", corpus="foley")


def test_validation_chooses_the_checkpoint(tuned):
    chosen = pages.chosen(tuned)
    assert chosen.groupby("seed").step.unique().map(list).to_dict() == {0: [2], 1: [1], 2: [2]}
    assert set(chosen.split) == {"test"}


def test_best_on_test_takes_each_metric_where_it_is_best(tuned):
    best = pages.best_on_test(tuned)
    assert set(best[best.metric == "kad"].step) == {1} and set(best[best.metric == "coverage"].step) == {2}


def test_differences_are_paired_over_seeds(tuned):
    frame = pages.differences(pages.chosen(tuned))
    kad = frame[frame.metric == "kad"].set_index(["run", "minus"])
    assert kad.loc[("pretrained_text", "scratch_text"), "mean"] == pytest.approx(-10)
    row = kad.loc[("scratch_text", "scratch_audio")]
    assert row["mean"] == pytest.approx(0.1) and row.low < 0.1 < row.high and row.seeds == 3
    assert set(frame.metric) == {"kad", "coverage"}


@pytest.fixture
def damaged():
    """Scores over draws: "fd" sees noise from half the clips on, "kl_pairs" never, and "is" at a quarter by chance; "kad" rises
    clearly, but by less than counts. Silence is seen by all."""
    rows = []
    for share, fd, kl, inception in ((0, 1.0, 1, 9), (0.25, 1.1, 1, 7), (0.5, 3, 1, 9), (1, 9, 0.5, 9)):
        for draw, off in enumerate((-0.1, 0, 0.1)):
            values, chance = {"fd": fd, "kl_pairs": kl, "is": inception}, off * (4 if share == 0.25 else 1)
            rows += [("noise", share, draw, metric, "judge", v + chance) for metric, v in values.items()]
            rows.append(("noise", share, draw, "kad", "judge", share / 1000))
            silent = {"fd": 20 * share, "kl_pairs": 20 * share, "is": 9 - 8 * share, "kad": share}
            rows += [("silence", share, draw, metric, "judge", v + off / 10) for metric, v in silent.items()]
    return pd.DataFrame(rows, columns=["damage", "share", "draw", "metric", "embedder", "value"])


def test_what_is_noticed_must_stay_noticed(damaged):
    seen = pages.noticed(damaged).set_index(["damage", "metric"]).share
    assert seen["noise", "fd"] == 0.5 and seen["noise"][["kl_pairs", "is", "kad"]].isna().all()
    assert seen["silence", "fd"] == 0.25 and seen["silence", "kad"] == 0.25
    said = pages.sentence(pages.noticed(damaged), {"noise": "noise", "order": "a wrong order"})
    assert said == "**What the scores notice**: noise by only FD."
    rows = [("order", "fd", "judge"), ("order", "fd", "clap"), ("order", "kl_pairs", "judge")]
    both = pd.DataFrame(rows, columns=["damage", "metric", "embedder"])
    said = pages.sentence(both.assign(share=[0.5, 0.5, np.nan]), {"order": "a wrong order"})
    assert said.endswith(": a wrong order by every score but KL of pairs.")
    said = pages.sentence(both.assign(share=[0.5, np.nan, np.nan]), {"order": "a wrong order"})
    assert said.endswith("by only FD on the judge.")


def test_how_far_training_from_scratch_has_come():
    rows = [("scratch_text", 0.1), ("scratch_audio", 0.2), ("pretrained_text", 0.9), ("pretrained_audio", 0.8)]
    scores = pd.DataFrame(rows, columns=["setting", "value"]).assign(metric="judge_accuracy", embedder="judge")
    assert pages.from_scratch(scores) == "**From scratch** the judge recognises 0.15 of the clips, pre-trained 0.85."
    assert pages.from_scratch(scores.assign(metric="kad")) == ""


def test_tables_of_settings_and_of_what_is_noticed(tuned, damaged):
    table = tables.of_settings(
        pages.chosen(tuned), {"kad": "judge", "fad": "clap"}, by=["corpus", "setting"], display=pages.SETTINGS
    )
    assert table.index[0] == ("foley", "Scratch, audio") and table.iloc[0].tolist() == [
        "11.7\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.6",
        "–",
    ]
    published = tables.published("audioldm-transfer-benchmark", "Fig. 1")
    seen = tables.noticed(pages.noticed(damaged), published)
    assert seen.columns.tolist() == ["Noise", "Silence"]
    assert seen.loc[("judge", "FD"), "Noise"] == "50%" and seen.loc[("judge", "KL of pairs"), "Noise"] == "–"
    assert seen.loc[("paper", "KL of pairs"), "Noise"] == "yes"


def test_figures(tuned, damaged):
    start = pages.start_of(
        pd.DataFrame(
            [("foley", "text", "kad", "judge", 7.0)], columns=["corpus", "condition", "metric", "embedder", "value"]
        ),
        "foley",
    )
    figure = plots.curves(tuned[tuned.split == "test"], {"kad": "judge"}, start=start, display=pages.SETTINGS)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["Pre-trained, audio"] == [[0, 7], [1, 1], [2, 2]] and lines["Scratch, audio"] == [
        [1, 11],
        [2, 12],
    ]
    figure = plots.sensitivity(damaged)
    scores = {axis.get_ylabel(): axis for axis in figure.axes}
    assert set(scores) == {"FD (judge) ↓", "KL of pairs (judge) ↓", "Inception score (judge) ↑", "KAD (judge) ↓"}
    assert scores["FD (judge) ↓"].lines[0].get_ydata().tolist() == pytest.approx([1, 1.1, 3, 9])
