"""The benchmarks run at their smallest and write what they promise; no timing is asserted."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from benchmarks import (
    corpus_memory,
    corpus_preparation,
    economics,
    frechet,
    griffin_lim,
    judges,
    latent_clap_loss,
    models,
    rate_cost,
    retrieval,
    retrieval_cost,
    side_by_side,
    solvers,
    timing,
    training_step,
    zero_shot,
)
from foleylib import paths, train
from foleylib.audio.mel import FRONT_ENDS, LogMel
from foleylib.corpora.prepare import prepare
from foleylib.corpora.synth import render
from foleylib.datasets import search
from foleylib.diffusion.condition import denoise
from foleylib.diffusion.latent_clap_loss import LatentClapLoss
from foleylib.diffusion.process import Prediction, add_noise
from foleylib.networks import judge
from foleylib.params import settings
from foleylib.params.base import Train
from foleylib.stages.ldm import alphas_bar

pytestmark = pytest.mark.slow

ROW = ["case", "part", "repeats", "unit", "items", "seconds", "seconds_min", "seconds_max", "seconds_first"]
ROW += ["per_second", "baseline", "ratio", "ratio_min", "ratio_max"]
LABELS = ["device", "device_name", "torch", "threads"]


@pytest.fixture
def run(tmp_path):
    """A benchmark by name, with arguments: its JSON, after checks of what all benchmarks have in common."""

    def run(name, *arguments, columns=()):
        main = importlib.import_module(f"benchmarks.{name}").main
        path = main(["--out", str(tmp_path), *map(str, arguments)])
        written, table = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
        assert path.name == f"{written['benchmark']}.json" == f"{name}.json"
        assert set(written) == {"benchmark", "settings", "environment", "rows"}
        assert set(written["environment"]) >= {*LABELS, "processor", "cores", "load_1min", "python", "numpy", "commit"}
        assert list(table) == [*ROW, *columns, *LABELS] and len(table) == len(written["rows"])
        for row in written["rows"]:
            assert list(row) == [*ROW, *columns] and row["repeats"] == 2
            assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
            assert row["per_second"] == pytest.approx(row["items"] / row["seconds"])
        ratios = {row["case"]: row["ratio"] for row in written["rows"] if row["ratio"] is not None}
        assert set(ratios) == {row["case"] for row in written["rows"]} and min(ratios.values()) > 0
        return written

    return run


def parts_by_case(written) -> dict[str, list[str]]:
    return pd.DataFrame(written["rows"]).groupby("case", sort=False).part.agg(list).to_dict()


def test_corpus_preparation(run):
    small = ("--clips", 8, "--jobs", 1, "--batch-size", 2, "--repeats", 2, "--threads", 1)
    cases = {"librosa loop": ["clips"], "prepare, jobs=1": ["clips"]}
    cases |= {"librosa.feature.melspectrogram": ["log-mel"], "mel.LogMel, 1 threads": ["log-mel"]}
    assert parts_by_case(run("corpus_preparation", *small)) == cases


def test_corpus_memory(tmp_path, capsys):
    path = corpus_memory.main(["--clips", "8", "12", "--out", str(tmp_path)])
    written, table = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
    assert written["benchmark"] == "corpus_memory" and written["settings"] == {"clips": [8, 12]}
    assert set(written["environment"]) >= {*LABELS, "cores", "commit"} and len(written["rows"]) == len(table) == 6
    assert list(table[["part", "clips"]].itertuples(index=False, name=None)) == [
        (part, clips) for part in ("audit", "features", "prepare") for clips in (8, 12)
    ]
    assert (table.memory > table.memory_before).all() and (table.memory_before > 1e7).all()
    assert table.growth.iloc[::2].eq(1).all() and (table.taken == table.memory - table.memory_before).all()


def test_griffin_lim(run):
    rows = run("griffin_lim", "--clips", 2, "--at-a-time", 1, "--frames", 9, "--iterations", 2, "--repeats", 2)["rows"]
    assert [row["case"] for row in rows] == [
        griffin_lim.LIBROSA,
        f"{griffin_lim.TORCH}, 1 at a time",
        f"{griffin_lim.OURS}, 1 at a time",
    ]
    magnitudes = torch.rand(2, griffin_lim.N_FFT // 2 + 1, 9)
    by_torch = griffin_lim.by_torch(magnitudes, 2)
    assert torch.allclose(by_torch, torch.from_numpy(griffin_lim.by_librosa(magnitudes, 2)), atol=1e-4)


def test_frechet(run):
    rows = run("frechet", "--dims", 8, 16, "--repeats", 2, columns=["value"])["rows"]
    assert [row["case"] for row in rows] == [
        f"{core}, {d} dimensions" for d in (8, 16) for core in (frechet.SQRTM, frechet.OURS)
    ]
    for theirs, ours in zip(rows[::2], rows[1::2]):
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-9) and theirs["ratio"] == 1


def test_training_step(run, tiny_root):
    small = (
        "--params",
        tiny_root / "params.yaml",
        "--batch-size",
        2,
        "--cache",
        4,
        "--clips",
        10_000,
        "--device",
        "cpu",
    )
    written = run("training_step", *small, "--repeats", 2, "--threads", 1)
    assert parts_by_case(written) == {
        "on the fly": ["encode", "clap", "unet", "optimiser", "total"],
        "cached": ["load", "unet", "optimiser", "total"],
        training_step.ANEW: ["indices"],
        training_step.KEPT: ["indices"],
    }
    assert written["settings"]["batch_size"] == 2 and written["settings"]["latent_shape"] == [8, 16, 16]


def test_a_published_clip_is_longer_than_a_synthetic_sound():
    waves = training_step.clips(16000, models.PUBLISHED_SECONDS, 2)
    assert waves.shape == (2, 163840) and (waves[:, -80000:].abs().amax(1) > 0).all()


def test_rate_cost(run, tiny_root):
    small = ("--params", tiny_root / "params.yaml", "--steps", 2, "--clips", 2, "--batch-size", 4, "--device", "cpu")
    written = run("rate_cost", *small, "--repeats", 2, "--threads", 1)
    cases = parts_by_case(written)
    assert list(cases)[:2] == [rate_cost.BASELINE, "16 kHz, Griffin-Lim"] and "48 kHz, HiFi-GAN" in cases
    assert cases[rate_cost.BASELINE] == ["vae", "vocoder", "total"]
    assert cases["U-Net, ddim 2 steps"] == ["latents"] and cases["training"] == ["step"]


def test_retrieval(run):
    columns = ["recall", "memory", "build_seconds", "build_memory"]
    small = ("--items", 3000, "--dim", 16, "--queries", 1, 20, "--top", 10, "--repeats", 2, "--threads", 1)
    written = run("retrieval", *small, columns=columns)
    rows = pd.DataFrame(written["rows"]).set_index("case")
    ways = [retrieval.EXACT, retrieval.FLAT, retrieval.NUMPY, retrieval.IVF, retrieval.HNSW]
    assert list(rows.index) == [f"{way}, {n} queries" for n in (1, 20) for way in ways]
    for n in (1, 20):
        own = rows.loc[[f"{way}, {n} queries" for way in ways]]
        assert (own.recall.iloc[:3] == 1).all() and own.recall.iloc[3:].between(0.5, 1).all()
        assert own.baseline.nunique() == 1 and own.baseline.iloc[0] in own.index[1:3]
        assert (own.build_seconds.iloc[[1, 3, 4]] > 0).all() and own.build_seconds.iloc[[0, 2]].isna().all()
    x, queries = retrieval.made_up(200, 16, 1), retrieval.made_up(130, 16, 2)
    found, true = retrieval.with_numpy(queries, x, 5), search.exact(queries, x, 5)
    assert np.array_equal(found[1], true[1]) and np.allclose(found[0], true[0], atol=1e-6)


def test_latent_clap_loss(run, tiny_root):
    small = (
        "--params",
        tiny_root / "params.yaml",
        "--batch-size",
        1,
        "--device",
        "cpu",
        "--repeats",
        2,
        "--threads",
        1,
    )
    columns = ["memory", "times_plain", "extra_seconds", "extra_ratio"]
    written = run("latent_clap_loss", *small, columns=columns)
    cases = ["plain", "latent CLAP loss", "end-to-end CLAP loss"]
    steps = {case: ["forward", "backward", "optimiser", "total"] for case in cases}
    assert parts_by_case(written) == steps | {f"{c}, alone": ["forward", "backward", "total"] for c in cases[1:]}
    plain, latent, whole, _, _ = (row for row in written["rows"] if row["part"] == "total")
    assert plain["times_plain"] == 1 and plain["extra_seconds"] == 0
    if whole["extra_ratio"] is not None:
        assert whole["extra_ratio"] == pytest.approx(whole["extra_seconds"] / latent["extra_seconds"])
    assert all(row["memory"] is None or row["memory"] >= 0 for row in (plain, latent, whole))
    assert set(written["settings"]["parameters"]) == {"unet", "vae", "vocoder", "clap", "latent_clap"}


def test_retrieval_cost(run, tiny_root):
    small = ("--params", tiny_root / "params.yaml", "--batch-size", 1, "--clips", 1, "--k", 1, 2, "--device", "cpu")
    columns = ["tokens", "parameters", "times_plain"]
    written = run("retrieval_cost", *small, "--repeats", 2, "--threads", 1, columns=columns)
    cases = [retrieval_cost.PLAIN, *(f"{kind}, K={k}" for kind in ("second", "added") for k in (1, 2))]
    assert parts_by_case(written) == {
        f"{unit}, {case}": [part] for unit, part in (("clip", "latents"), ("step", "step")) for case in cases
    }
    for plain, *others in (written["rows"][:5], written["rows"][5:]):
        assert plain["times_plain"] == 1 and plain["tokens"] == 0
        assert all(row["baseline"] == plain["case"] for row in others)
        assert all(row["times_plain"] == pytest.approx(1 / row["ratio"]) for row in others)
        second, added = others[:2], others[2:]
        assert second[1]["tokens"] == 2 * second[0]["tokens"] > 0
        assert second[0]["parameters"] == second[1]["parameters"] != added[0]["parameters"] > plain["parameters"]
        assert set(written["settings"]["parameters"].values()) >= {second[0]["parameters"], added[0]["parameters"]}


def test_side_by_side(run, tiny_root):
    written = run("side_by_side", "--params", tiny_root / "params.yaml", "--trainings", 2, "--steps", 1, "--repeats", 2)
    assert [row["case"] for row in written["rows"]] == [side_by_side.SIDE, side_by_side.TURN]
    assert {row["unit"] for row in written["rows"]} == {"training"} and written["rows"][1]["ratio"] == 1


def test_tokens_reach_the_timed_unets(tiny, small_parts):
    """The benchmark of retrieval times U-Nets that read as many tokens as the settings make, and leaves its base alone."""
    before = {name: value.clone() for name, value in small_parts.unet.state_dict().items()}
    sizes = retrieval_cost.token_sizes(small_parts, tiny, None)
    assert sizes["text"] == (tiny.retrieval.tokens.length, small_parts.clap.model.config.text_config.hidden_size)
    told = retrieval_cost.condition(2, small_parts.dim, sizes, 3)
    assert told.tokens.shape == (2, 3 * sizes["audio"][0], sizes["audio"][1])
    assert told.text_mask.shape == (2, 3 * sizes["text"][0]) and told.mask.all()
    z, n = torch.zeros(2, *small_parts.latent_shape), torch.tensor([5, 50])
    section = tiny.re_audioldm.pretrained
    reader = retrieval_cost.with_retrieval(small_parts, "second", section, sizes, 8).unet
    estimates = [denoise(reader, z, n, c) for c in (told, told.only("embedding"))]
    assert not torch.equal(*estimates)
    for name, value in small_parts.unet.state_dict().items():
        assert torch.equal(value, before[name]), name
    nothing = retrieval_cost.nothing(reader, small_parts.dim)
    assert set(nothing.given()) == set(told.given()) and not nothing.mask.any()
    assert set(retrieval_cost.nothing(small_parts.unet, small_parts.dim).given()) == {"embedding"}


def test_sampling(run, tiny_root):
    small = (
        "--params",
        tiny_root / "params.yaml",
        "--ddim-steps",
        2,
        "--dpm-steps",
        1,
        "--batch-sizes",
        1,
        2,
        "--device",
        "cpu",
    )
    written = run("sampling", *small, "--repeats", 2, "--threads", 1, columns=["seconds_per_clip"])
    totals = {row["case"]: row for row in written["rows"] if row["part"] == "total"}
    assert list(totals) == [f"{solver}, batch {n}" for n in (1, 2) for solver in ("ddim 2 steps", "dpm++ 1 steps")]
    assert all(row["seconds_per_clip"] == pytest.approx(row["seconds"] / row["items"]) for row in totals.values())


def test_compared_ways_write_the_same_clips(tmp_path):
    """The librosa loop and `prepare` write the same clips but for DC and rounding, and both log-mels are equal."""
    corpus_preparation.make_folder(tmp_path / "source", 10)
    corpus_preparation.librosa_loop(tmp_path / "source", tmp_path / "loop", 4.0)
    manifest = prepare("test", corpus_preparation.corpus(tmp_path / "source", 4.0, 1), tmp_path / "ours")
    for row in manifest.itertuples():
        ours, _ = soundfile.read(tmp_path / "ours" / row.path)
        theirs, _ = soundfile.read(tmp_path / "loop" / row.source_path)
        assert "scaled" in row.operations or np.abs(ours - (theirs - theirs.mean())).max() < 3 / 2**15
    waves = np.random.default_rng(0).standard_normal((2, 8000), np.float32) / 8
    theirs = corpus_preparation.librosa_log_mels(waves, FRONT_ENDS[16000])
    np.testing.assert_allclose(LogMel(FRONT_ENDS[16000])(torch.from_numpy(waves)).numpy(), theirs, atol=1e-3)


@pytest.fixture
def small_parts(tiny):
    """The models of a benchmark in the sizes of the tiny project, on the CPU."""
    return models.build(tiny, models.parser("").parse_args(["--device", "cpu"]), with_clap=True)


def test_timed_step_is_that_of_the_training_loop(tiny, small_parts, tmp_path):
    options = Train(steps=3, batch_size=2, lr=1e-3, warmup=0, ema_decay=0.5)
    data = training_step.cached(small_parts, tmp_path, 4)
    loss = training_step.loss_of(small_parts, tiny, tiny.foundation.ldm)
    start = {name: value.clone() for name, value in small_parts.unet.state_dict().items()}
    step = training_step.Step(small_parts, options, "float32")
    for number in range(options.steps):
        step.forward(loss, data[train.batch_indices(0, number, len(data), options.batch_size)]).backward()
        step.update()
    step.ema.copy_to(step.weights)
    timed = {name: value.clone() for name, value in small_parts.unet.state_dict().items()}

    small_parts.unet.load_state_dict(start)
    trainable = train.Trainable(small_parts.unet, loss, {"ddpm": 1.0})
    train.fit({"unet": trainable}, data.__getitem__, len(data), options, train.Job(0, tmp_path / "scratch", "cpu"))
    for name, value in small_parts.unet.state_dict().items():
        assert torch.equal(value, timed[name]), name
    assert any(not torch.equal(value, start[name]) for name, value in timed.items())


def test_indices_are_the_same_with_the_permutation_kept():
    for step in range(8):
        anew = training_step.permuted_anew(3, step, 10, 4)
        np.testing.assert_array_equal(train.batch_indices(3, step, 10, 4), anew)


def test_both_clap_losses_reach_the_estimate(tiny, small_parts):
    """What the benchmark compares has a gradient in the noise estimate and none in the frozen parts."""
    abar, common = alphas_bar(tiny), tiny.finetune.lclap
    z, eps = torch.randn(2, 2, *small_parts.latent_shape, generator=torch.Generator().manual_seed(0))
    n = torch.tensor([5, 50])
    encoder = latent_clap_loss.small_encoder(small_parts, (8, 8, 8, 8))
    latent = LatentClapLoss(encoder, abar, **common.model_dump())
    for term in (latent, latent_clap_loss.end_to_end(small_parts, abar, common.s_n)):
        estimate = eps.clone().requires_grad_()
        prediction = Prediction(add_noise(z, eps, n, abar), n, eps, estimate)
        (gradient,) = torch.autograd.grad(term(prediction, models.embeddings(2, small_parts.dim)), estimate)
        assert (gradient.flatten(1).norm(dim=1) > 0).all() and gradient.isfinite().all()


def test_rows_are_medians_and_paired_ratios():
    parts = pd.MultiIndex.from_product([["a", "b"], ["x", "total"]], names=["case", "part"])
    seconds = pd.DataFrame([[9, 2, 4, 6], [9, 2, 4, 6], [9, 1, 1, 6], [9, 1, 1, 6]], index=parts, dtype=float)
    rows = timing.rows(seconds, baseline="a", items=8, unit="clip").to_dict("records")
    assert [(r["case"], r["part"]) for r in rows] == parts.to_list()
    assert (rows[1]["seconds"], rows[1]["seconds_first"], rows[1]["per_second"], rows[1]["ratio"]) == (4, 9, 2, 1)
    assert (rows[3]["seconds"], rows[3]["ratio"], rows[3]["ratio_min"], rows[3]["ratio_max"]) == (1, 2, 1, 4)
    assert np.isnan(rows[2]["ratio"])


def test_rounds_alternate_their_order_after_a_warm_up():
    order = []

    def case(name):
        def run(clock):
            order.append(f"{name}{clock.round}")
            with clock.part("first"):
                pass
            if name == "b":
                with clock.part("second"):
                    pass

        return run

    seconds = timing.interleaved({name: case(name) for name in "ab"}, 2)
    assert order == ["a0", "b0", "b1", "a1", "a2", "b2"] and seconds.shape == (4, 3)
    assert seconds.index.to_list() == [("a", "first"), ("b", "first"), ("b", "second"), ("b", "total")]
    assert seconds.loc["b"].loc["total"].to_list() == pytest.approx(seconds.loc["b"].iloc[:2].sum().to_list())
    with pytest.raises(ValueError, match="repeats=0"):
        timing.interleaved({}, 0)


def test_published_sizes_need_cuda_or_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = models.parser("").parse_args(["--published", "audioldm-s-full"])
    with pytest.raises(ValueError, match="CUDA"):
        models.build(settings.load(), arguments, with_clap=False)


def test_solvers(project, tiny, run):
    cases = ["dpm++:2:log_snr", "dpm++:2:leading:3", "ddim:2:0"]
    small = ("--params", project / "params.yaml", "--seeds", 0, 1, "--clips-per-class", 2, "--cases", *cases)
    columns = ["seconds_per_clip", "kad", "coverage", "fd", "fad", "judge_accuracy", "clap_score"]
    columns += [f"{name}_{end}" for name in ("kad", "coverage", "fd", "fad") for end in ("min", "max")]
    written = run("solvers", *small, columns=columns)
    assert parts_by_case(written) == {case: ["total"] for case in cases}
    for row in written["rows"]:
        assert row["fad_min"] <= row["fad"] <= row["fad_max"] and row["items"] == 4
    assert len({row["fad"] for row in written["rows"]}) == 3 and written["rows"][2]["ratio"] == 1
    with pytest.raises(ValueError, match="solver"):
        solvers.options_of("euler:2:1", tiny.sampling)


def test_solvers_of_the_foundation(project, tmp_path, capsys):
    small = ("--params", project / "params.yaml", "--seeds", 0, 1, "--clips-per-class", 2, "--cases", "dpm++:2:leading")
    path = solvers.main(list(map(str, ("--system", "foundation", "--out", tmp_path, *small))))
    (row,) = json.loads(path.read_text())["rows"]
    assert path.name == "solvers_foundation.json" and row["kad_min"] < row["kad_max"]  # one model, other noise


def test_economics(project, tmp_path, capsys):
    small = ["--clips", "2", "--draws", "3", "--candidates", "1", "2", "4"]
    path = economics.main(["--params", str(project / "params.yaml"), *small, "--out", str(tmp_path)])
    table = pd.read_csv(path)
    keys = [(kind, way, n) for kind in ("text", "tuned") for n in (1, 2, 4) for way in ("threshold", "best of")]
    assert list(table[["target", "way", "candidates"]].itertuples(index=False, name=None)) == keys
    text = table[table.target == "text"].set_index(["way", "candidates"]).clap_score
    assert text["best of", 4] > text["best of", 1] and text["threshold", 4] > text["threshold", 1]
    assert table.unet_sha256.nunique() == 2 and (table.clips == 2).all()
    assert table.kad_sd.isna().tolist() == (table.candidates == 4).tolist()  # these sets take all that there is
    labels, similarity, rng = np.repeat(["a", "b"], 6), np.tile(np.arange(6.0), 2), np.random.default_rng(0)
    assert sorted(economics._passing(labels, similarity, 3, 2, rng)) == [4, 5, 10, 11]
    best = economics._best_of(labels, similarity, 3, 2, rng)
    assert {5, 11} <= set(best) and (similarity[best] >= 2).all() and len(best) == 4


def test_judges(project, tmp_path, capsys):
    other = judge.build(["DogBark", "Rain"], rate=16000, widths=(4, 8), embedding_dim=8, seed=1)
    other.save_pretrained(tmp_path / "other")
    path = judges.main(["--judges", str(paths.JUDGE), str(tmp_path / "other"), "--out", str(tmp_path)])
    table = pd.read_csv(path)
    assert set(table.judge) == {"judge", "other"} and table.weights_sha256.nunique() == 2
    runs = set(table.run)
    assert {"ldm", "tuning"} <= runs and (table.groupby("judge").run.apply(set) == runs).all()
    ours, theirs = (own.set_index("run") for _, own in table.groupby("judge"))
    assert (ours.kad != theirs.kad).any() and table.coverage.between(0, 1).all() and table.accuracy.between(0, 1).all()
    assert "Spearman" in capsys.readouterr().out


def test_zero_shot_of_the_classes_that_are_shared(tiny, tiny_parts):
    table = zero_shot.measure(tiny_parts.clap, tiny)
    assert list(table.columns) == ["recordings", "class", "clips", "accuracy", "chance"]
    for name, rows in zip(("foley", "broad"), (table.iloc[:3], table.iloc[3:])):  # all clips and two classes each
        whole, classes = rows.iloc[0], rows.iloc[1:]
        assert whole["class"] == "all" and whole.clips == classes.clips.sum() and (rows.chance == 0.5).all(), name
        assert whole.accuracy == pytest.approx((classes.accuracy * classes.clips).sum() / whole.clips)
        assert set(classes["class"]) <= set(render.BROAD)


def test_recordings_of_the_zero_shot_benchmark_are_those_of_profile_real():
    cfg = zero_shot.real_recordings()
    assert (cfg.corpora["foley"].kind, cfg.corpora["broad"].kind) == ("dcase2023t7", "esc50")
    assert set(zero_shot.ESC10.values()) <= set(render.BROAD)
