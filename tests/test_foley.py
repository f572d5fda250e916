"""Fine-tuning of variants, selected runs and target texts, on untrained foundation models of a tiny project."""

import json
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch

from foleylib import conditioning, filtered, foley, judge, latent_clap, params, pipeline, runs, targets
from foleylib.paths import ROOT


@pytest.fixture(scope="module")
def project(tiny, tiny_root, tiny_corpus, tiny_models, tiny_paths_module):
    """A tiny project with features, judge and Latent CLAP encoder, and the variants `tuning` and `ldm` trained."""
    config = judge.JudgeConfig(widths=(4, 8), embedding_dim=8)
    judge.save_judge(judge.build_judge(config, ["DogBark", "Rain"], seed=0), tiny_root / "models" / "judge")
    pipeline.make_features("foley", tiny)
    config = latent_clap.LatentClapConfig(widths=(4, 4, 8, 8), dim=48, scale=0.7)
    latent_clap.build(config, seed=0).save(tiny_root / "models" / "latent_clap")
    for variant in ("ldm", "tuning"):
        foley.fine_tune(variant, tiny)
        runs.sample(variant, tiny)
        runs.evaluate([variant], tiny)
    return tiny_root


def changed(settings, section, **values):
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def test_every_seed_is_a_model_of_its_own(project, tiny):
    folders = runs.models_of("tuning", tiny)
    assert list(folders) == [0, 1]
    unets = [pipeline.load_unet(folder).state_dict()["conv_in.weight"] for folder in folders.values()]
    assert not torch.equal(*unets)
    for folder in folders.values():
        assert "_name_or_path" not in (folder / "unet/config.json").read_text().replace('"_name_or_path": ""', "")
        assert set(json.loads((folder / "prompts.json").read_text())) == {"DogBark", "Rain"}
        assert len(pd.read_csv(folder / "history.csv")) == tiny.foley.common.train.steps
        assert conditioning.load(folder) is not None
    assert conditioning.load(runs.models_of("ldm", tiny)[0]) is None


def test_same_variant_again_is_the_same(project, tiny):
    folder = runs.models_of("ldm", tiny)[1]
    before = pipeline.load_unet(folder).state_dict()
    foley.fine_tune("ldm", tiny)
    after = pipeline.load_unet(folder).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not list((project / "scratch").glob("foley-ldm*"))


def test_latent_clap_loss_changes_the_model(project, tiny, tmp_path):
    parts, common = pipeline.load_parts(), tiny.foley.common
    plain, strong = (
        foley.tune(params.FoleyVariant(init="ldm", lambda_lclap=value), 0, tiny, parts, scratch=tmp_path / str(value))
        for value in (0.0, 100.0)
    )
    assert "lclap" not in plain.history and (strong.history.lclap > 0).all()
    assert not torch.equal(plain.unet.conv_in.weight, strong.unet.conv_in.weight)
    keys = {
        foley.fingerprint(params.FoleyVariant(init="ldm", lambda_lclap=v), common, 0, tiny) for v in (0.0, 1.0, 2.0)
    }
    assert len(keys) == 3


def test_label_prompts(project, tiny):
    assert foley.class_prompts(params.FoleyVariant(init="ldm", prompts="label"), "foley") == {
        "DogBark": "DogBark",
        "Rain": "Rain",
    }
    assert foley.class_prompts(params.FoleyVariant(init="ldm"), "foley")["Rain"] != "Rain"


def test_unknown_variant_is_named(tiny):
    with pytest.raises(ValueError, match="no 'none'; it has: scratch"):
        foley.fine_tune("none", tiny)


def test_sweep_has_a_row_for_each_training(project, tiny):
    found = foley.sweep(True, tiny)
    assert found[["lambda_lclap", "seed"]].values.tolist() == [[0.0, 0.0], [30.0, 0.0]]
    assert found.fad.nunique() == 2 and np.isfinite(found.fad).all() and found.tuning.all()


def test_thresholds_and_selection(project, tiny):
    thresholds, curve = filtered.calibrate(tiny)
    assert set(thresholds) == {"text", "tuned"} and set(curve.target) == {"text", "tuned"}
    assert filtered.calibrated("text") == thresholds["text"] and filtered.calibrated("audio") is None
    report = filtered.select_run("tuning_filter", tiny)
    pd.testing.assert_frame_equal(report, filtered.report_of("tuning_filter"), check_dtype=False)
    assert report.groupby("seed").label.apply(list).tolist() == [["DogBark", "Rain"]] * 2
    wanted = tiny.sampling.clips_per_class
    for seed in runs.seeds("tuning_filter"):
        manifest, waves = runs.load("tuning_filter", seed)
        made = report[report.seed == seed]
        assert len(waves) == made.accepted.sum() and (made.short == (made.accepted < wanted)).all()
        assert (manifest.score >= manifest.threshold - 1e-9).all() and manifest.tries.min() >= 1
        base, heard = runs.load("tuning", seed)
        same = manifest.id.isin(base.id)  # the first candidates are the clips of the unselected run
        assert np.array_equal(waves[same], heard[base.id.isin(manifest.id)])
        table = pd.read_parquet(project / f"data/samples/tuning_filter/{seed}/candidates.parquet")
        assert table.accepted.sum() == len(manifest) and len(table) <= 2 * wanted * tiny.selection.cap
    runs.evaluate(["tuning_filter"], tiny)
    assert runs.scores("tuning_filter")["card"]["sampling"]["selection"]["of"] == "tuning"


def test_impossible_threshold_is_relaxed_or_told(project, tiny):
    strict = changed(tiny, "selection", thresholds={"DogBark": 1.0, "Rain": -1.0}, relax_by=0.0)
    report = filtered.select_run("ldm_filter", strict).set_index(["seed", "label"])
    assert report.short.loc[0, "DogBark"] and not report.short.loc[0, "Rain"]
    assert report.candidates.loc[0, "DogBark"] == tiny.sampling.clips_per_class * tiny.selection.cap


def test_kinds_of_target(project, tiny):
    ear, folder = runs.load_clap(tiny), runs.models_of("tuning", tiny)[0]
    found = {kind: filtered.targets_of(kind, folder, tiny, ear) for kind in ("text", "tuned", "audio")}
    assert found["text"]["Rain"].shape == (1, 48) and found["audio"]["Rain"].shape == (3, 48)
    assert not np.allclose(found["text"]["Rain"], found["tuned"]["Rain"], atol=1e-3)
    with pytest.raises(ValueError, match="has no tuning layer"):
        filtered.targets_of("tuned", runs.models_of("ldm", tiny)[0], tiny, ear)
    assert set(filtered.similarity("tuning", tiny).target) == {"text", "tuned"}


def test_differences_are_those_of_the_averages(project, tiny):
    found = runs.differences("ldm", ["tuning"], tiny)
    average = {run: {row["seed"]: row["value"] for row in runs.scores(run)["scores"]
                     if (row["class"], row["metric"]) == ("average", "fad")} for run in ("ldm", "tuning")}  # fmt: skip
    for row in found.itertuples():
        assert row.value == pytest.approx(average["tuning"][row.seed] - average["ldm"][row.seed], abs=1e-4)
        assert row.low <= row.value <= row.high


def test_targets(project, tiny):
    chosen = changed(tiny, "targets", label="Rain", texts={"Label": "Rain", "Rain": "heavy rain"})
    table, boxes = targets.compare(chosen)
    assert table.row.tolist() == ["Label", "Rain", targets.TUNED, targets.AUDIO]
    assert np.isfinite(table[["fad", "unselected"]].to_numpy()).all() and (table.clips == chosen.targets.clips).all()
    assert boxes.groupby("row").size().tolist() == [chosen.targets.repeats] * 3


def test_solvers_are_compared_on_validation_clips(project, tiny, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import solvers

    arguments = Namespace(variant="ldm", seeds=[0, 1], cases=["dpm++:2", "ddim:2:0"], clips_per_class=2)
    rows = solvers.measure(tiny, arguments, torch.device("cpu"))
    assert [row["case"] for row in rows] == arguments.cases and rows[-1]["ratio"] == 1
    for row in rows:
        assert row["fad_min"] <= row["fad"] <= row["fad_max"] and row["repeats"] == 2 and row["items"] == 4
    assert rows[0]["fad"] != rows[1]["fad"]
    with pytest.raises(ValueError, match="solver"):
        solvers.choice("euler:2", tiny)


def test_gains_are_paired_by_protocol_length_and_seed():
    rows = [("clean", 120, 0.0, 0, 0.5), ("clean", 120, 0.0, 1, 0.7), ("clean", 40, 0.0, 0, 9.0), ("noisy", 120, 10.0, 0, 0.4),
            ("noisy", 120, 10.0, 1, 0.4), ("clean", 40, 10.0, 0, 9.5), ("clean", 360, 10.0, 0, 1.0)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["s_n", "steps", "lambda_lclap", "seed", "fad"]).assign(
        tuning=False, training="a", sampling="five"
    )
    other = frame.assign(training="b", fad=frame.fad + 1)[1:]
    for stacked in (frame, pd.concat([frame, frame, other])):
        found = foley.gains(stacked).set_index(["training", "steps", "s_n"])
        assert list(found.index)[:2] == [
            ("a", 40, "clean"),
            ("a", 120, "noisy"),
        ]  # 360 steps have no model without the loss
        assert found["mean"].tolist()[:2] == pytest.approx([0.5, -0.2]) and found.seeds.tolist()[:2] == [1, 2]
        assert np.isnan(found.low.iloc[0]) and found.low.iloc[1] < -0.2 < found.high.iloc[1]
    assert found.loc[("b", 120, "noisy")].seeds == 1 and found.loc[("b", 120, "noisy")]["mean"] == pytest.approx(-0.3)


def test_protocol_of_a_sweep(project, tiny):
    def protocol(**values):
        return foley.protocol(changed(tiny, "foley", common=tiny.foley.common.model_copy(update=values)))

    lclap, train = tiny.foley.common.lclap, tiny.foley.common.train
    assert protocol() == protocol(lclap=lclap.model_copy(update={"s_n": "previous"}))
    assert protocol() == protocol(train=train.model_copy(update={"steps": 99}), seeds=[7])
    other = protocol(train=train.model_copy(update={"lr": 0.5}))
    assert other["training"] != protocol()["training"] and other["sampling"] == protocol()["sampling"]
    other = foley.protocol(changed(tiny, "sampling", guidance=9.0))
    assert other["training"] == protocol()["training"] and "guidance 9," in other["sampling"]
