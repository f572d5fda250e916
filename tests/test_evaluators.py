"""Published evaluators through the stage: files in their published layout with golden weights give the golden scores."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from networks import Levels
from scipy.special import softmax

from foleylib import paths
from foleylib.audio import mel
from foleylib.audio.io import AudioError
from foleylib.datasets import manifest as manifests
from foleylib.evaluation import compared, scores
from foleylib.evaluation.distribution import density_coverage, kad, kernel_distance
from foleylib.evaluation.embeddings import Embeddings, Evaluated, embed_with, partners_of
from foleylib.evaluation.frechet import Gaussian, fad, fad_infinity, gaussian
from foleylib.evaluation.metrics import inception_score, kl_divergence, kl_of_means
from foleylib.evaluation.statistics import frechet_bootstrap
from foleylib.networks.embedders import Embedder
from foleylib.networks.published import evaluators as published
from foleylib.params.runs import Evaluator
from foleylib.runtime import weights_sha256
from foleylib.stages import evaluate, evaluators
from foleylib.stages.embedders import Embedders

LABELS = ("DogBark", "Rain")
REFERENCE, GENERATED = (0, 1, 0, 1), (0, 0, 1, 1, 1, 0)  # which of two golden clips stands at each row
SETTINGS = SimpleNamespace(seed=0, bootstrap=20, level=0.9, splits=3)


# ---- a file in the published layout, and clips of its golden case, through the whole stage


def golden_file(case, weights, folder):
    """The weights as published: PANNs under "model" with their front end's matrices, VGGish as a plain state dict."""
    state = {key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()}
    if "bn0.weight" in state:
        config = published.MEL_16K
        for row in case.rows:
            if row[2] == "fixed":
                state[row[0]] = torch.zeros(row[1])
        state["logmel_extractor.melW"] = mel.mel_basis(config).T.contiguous()
        state = {"model": state}
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def write_clips(root, waves, tiny_manifest):
    """data/clips/foley with test clips of two classes, and data/samples/ldm/0: golden clips in the order of the constants."""
    seconds = waves.shape[1] / 16000
    test = tiny_manifest[tiny_manifest.split == "test"].groupby("label").head(2).reset_index(drop=True)
    made = test.iloc[[0, 0, 0, 2, 2, 2]].reset_index(drop=True)
    made["id"] = [f"made-{i}" for i in range(6)]
    for frame, clips, folder in ((test, REFERENCE, root / "clips/foley"), (made, GENERATED, root / "samples/ldm/0")):
        (folder / "audio").mkdir(parents=True)
        frame["path"], frame["seconds"] = [f"audio/{i}.wav" for i in frame.id], seconds
        for path, number in zip(frame.path, clips):
            soundfile.write(folder / path, waves[number], 16000, subtype="PCM_16")
        frame.to_parquet(folder / "manifest.parquet", index=False)


@pytest.fixture
def stage(project, tiny, tiny_corpus, golden, draw_weights, tmp_path, monkeypatch):
    """Scores the golden clips of a case through the stage: JSON of the run."""

    def run(kind, name, waves):
        case = golden(name)
        file = golden_file(case, draw_weights(case.rows, case.manifest["seed"]), tmp_path)
        write_clips(tmp_path, waves, manifests.load(tiny_corpus))
        for folder in ("clips", "samples", "controls", "results", "embeddings"):
            monkeypatch.setattr(paths, folder.upper(), tmp_path / folder)
        corpus = tiny.corpora["foley"].model_copy(update={"seconds": waves.shape[1] / 16000})
        entry = Evaluator(kind=kind, weights=str(file), sha256=weights_sha256(file))
        cfg = tiny.model_copy(update={"corpora": tiny.corpora | {"foley": corpus}, "evaluators": {"mine": entry}})
        cfg = cfg.model_copy(update={"evaluate": cfg.evaluate.changed(embedders=["judge", "clap", "mine"])})
        embedders = Embedders(cfg, evaluators.load(cfg))
        evaluate.evaluate(["ldm"], cfg, embedders)
        return case, evaluate.scores_of("ldm"), Embeddings.load(paths.EMBEDDINGS / "ldm" / "0.npz")

    return run


def values(content, class_="all"):
    return {r["metric"]: r["value"] for r in content["scores"] if (r["class"], r["embedder"]) == (class_, "mine")}


@pytest.mark.slow
def test_golden_panns_through_the_stage(stage, golden):
    waves = golden("02_panns_cnn14_16k").inputs["wave"]
    case, content, embedded = stage("cnn14_16k", "02_panns_cnn14_16k", waves)
    E, logits = case.outputs["embedding"], case.outputs["logits"]
    bounds = case.manifest["outputs"]
    assert np.abs(embedded["mine"] - E[list(GENERATED)]).max() < bounds["embedding"]["tolerance_max_abs"]
    assert np.abs(embedded["mine.logits"] - logits[list(GENERATED)]).max() < bounds["logits"]["tolerance_max_abs"]
    found = values(content)
    assert found["fd"] == pytest.approx(fad(E[list(REFERENCE)], E[list(GENERATED)]), rel=1e-3)
    splits = inception_score(logits[list(GENERATED)], splits=3, seed=0).mean
    assert found["is"] == pytest.approx(splits, rel=1e-4)
    posteriors = softmax(logits.astype(float), axis=1)
    rain = kl_of_means(posteriors[[0, 1]], posteriors[[1, 1, 0]])
    assert values(content, "Rain")["kl"] == pytest.approx(rain, rel=1e-3, abs=1e-6)
    assert found["kl"] == pytest.approx(values(content, "average")["kl"]) and "kl_pairs" not in found
    assert content["card"]["pairs"].startswith("not paired")
    facts = content["card"]["evaluators"]["mine"]
    assert (facts["network"], facts["convention"], len(facts["sha256"])) == ("cnn14_16k", "cnn14_16k", 64)


@pytest.mark.slow
def test_golden_vggish_through_the_stage(stage, golden):
    inputs = golden("03_vggish").inputs
    waves = np.stack([inputs["wave0"], inputs["wave1"][:32000]])
    case, content, embedded = stage("fad_16k", "03_vggish", waves)
    golden_windows = np.stack([case.outputs["embedding_linear"][:2], case.outputs["embedding_linear"][2:4]])
    # The convention takes the mean of the clip off, which the golden case does not: the first has next to none.
    difference = np.abs(embedded["mine"] - golden_windows[list(GENERATED)])
    assert difference[:2].max() < case.manifest["outputs"]["embedding_linear"]["tolerance_max_abs"]
    assert difference.max() < 3e-3
    found = values(content)
    x, y = golden_windows[list(REFERENCE)], golden_windows[list(GENERATED)]
    assert found["fad"] == pytest.approx(fad(x, y), rel=1e-2)
    assert found["fad_infinity"] == pytest.approx(fad_infinity(x, y, seed=0).score, rel=2e-2)
    assert found["kad"] == pytest.approx(kad(x.mean(axis=1), y.mean(axis=1)), rel=1e-2)
    assert {"is", "kl", "fd", "clap_score"}.isdisjoint(found)
    assert content["card"]["evaluators"]["mine"]["network"] == "vggish"


# ---- loading


def test_weights_must_be_there_and_pinned(tiny, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"x")

    def load(**entry):
        cfg = tiny.model_copy(update={"evaluators": {"mine": Evaluator(kind="fad_16k", **entry)}})
        cfg = cfg.model_copy(update={"evaluate": cfg.evaluate.changed(embedders=["judge", "clap", "mine"])})
        return evaluators.load(cfg)

    with pytest.raises(
        ValueError, match=r"evaluators.mine in params.yaml: weights .*no such file; fetch .*torchvggish"
    ):
        load(weights="absent.pth")
    with pytest.raises(
        ValueError, match=r"no sha256 is pinned for fad_16k; if you trust the file, set it to [0-9a-f]{64}"
    ):
        load(weights=str(tmp_path / "w.pth"))
    assert evaluators.load(tiny) == {}


def test_laion_clap_is_a_folder_that_also_reads_text(tiny_models, tmp_path):
    folder = tiny_models / "clap"
    loaded = published.load_published("laion_clap", folder, sha256=weights_sha256(folder))
    assert loaded.reads and loaded.name == "laion_clap"
    wave = np.sin(np.arange(8000) / 10).astype(np.float32)
    found = embed_with({"c": loaded}, [wave, wave], [loaded.rate] * 2, texts=["rain", "rain"])["c"]
    assert found.text.shape == np.stack(found.windows).shape == (2, loaded.dim)
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), 1, atol=1e-5)
    with pytest.raises(
        ValueError, match="none: no such file or folder; fetch .* from lukewys/laion_clap .*or laion/clap"
    ):
        published.load_published("laion_clap", tmp_path / "none", sha256=None)


def test_settings_name_known_evaluators(tiny):
    known = {"mine": {"kind": "cnn10", "weights": "a"}}
    evaluated = tiny.evaluate.model_dump()
    with pytest.raises(ValueError, match="which is none of evaluators: mine"):
        tiny.changed(evaluators=known, evaluate=evaluated | {"embedders": ["judge", "clap", "other"]})
    with pytest.raises(ValueError, match="begin with judge, clap"):
        tiny.changed(evaluate=evaluated | {"embedders": ["clap", "judge"]})
    with pytest.raises(ValueError, match="that name is taken"):
        tiny.changed(evaluators={"clap": known["mine"]})
    with pytest.raises(ValueError, match="kind"):
        tiny.changed(evaluators={"mine": {"kind": "resnet", "weights": "a"}})
    tiny.changed(evaluators={"mine": {"kind": "laion_clap", "weights": "a.pt", "through": "laion_clap"}})
    for option in ({"through": "laion_clap"}, {"tokenizer": "a"}):
        with pytest.raises(ValueError, match="kind 'cnn10' has no 'through' and no 'tokenizer'"):
            tiny.changed(evaluators={"mine": known["mine"] | option})
    with pytest.raises(ValueError, match="pattern"):
        tiny.changed(evaluators={"my.net": known["mine"]})


# ---- embedding


def network(rate=16000, window=None, name="levels"):
    return Embedder(name, 4, rate, "f" * 64, Levels(window), least=window or 1)


def test_clips_are_resampled_once_a_rate(monkeypatch):
    calls = []
    monkeypatch.setattr("foleylib.evaluation.embeddings.resample", lambda w, a, b: calls.append((a, b)) or w[:: a // b])
    waves = np.random.default_rng(0).normal(size=(3, 1600)).astype(np.float32) / 10
    three = {"a": network(8000), "b": network(16000), "c": network(8000, window=200)}
    found = embed_with(three, waves, [16000] * 3)
    assert sorted(calls) == [(16000, 8000)] * 3 + [(16000, 16000)] * 3
    assert list(found) == ["a", "b", "c"] and np.stack(found["c"].windows).shape == (3, 4, 4)
    np.testing.assert_allclose(found["b"].points, network().embed(waves)["embedding"])
    assert list(found["b"].arrays("b")) == ["b", "b.logits"] and list(found["c"].arrays("c")) == ["c"]


def test_clips_of_other_lengths_keep_their_places():
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=n).astype(np.float32) / 10 for n in (1600, 800, 1600, 2400)]
    found = embed_with({"w": network(window=400), "p": network()}, waves, [16000] * 4)
    assert [clip.shape for clip in found["w"].windows] == [(4, 4), (2, 4), (4, 4), (6, 4)]
    for i, wave in enumerate(waves):
        np.testing.assert_allclose(found["p"].points[i], network().embed(wave[None])["embedding"][0])
        np.testing.assert_allclose(found["w"].points[i], found["w"].windows[i].mean(axis=0), rtol=1e-6)


# ---- metrics


def evaluated(seed, n=12, windows=None, classes=5, shift=0.0):
    rng = np.random.default_rng(seed)
    shape = (n, 4) if windows is None else (n, windows, 4)
    logits = None if windows else rng.normal(size=(n, classes))
    return Evaluated(rng.normal(size=shape) + shift, logits)


def intervals(x, y, whole=True, partners=None):
    groups = {"a": np.arange(len(y))}
    return dict(compared.all_metrics(compared.Compared(x, y, groups, SETTINGS), whole=whole, partners=partners))


def test_metrics_are_those_of_the_functions():
    x, y = evaluated(0), evaluated(1, shift=0.5)
    found = intervals(x, y)
    E, F = x.windows, y.windows
    expected = {"kad": kad(E, F), "fd": fad(E, F), "fad_infinity": fad_infinity(E, F, seed=0).score}
    expected |= {"kernel_distance": kernel_distance(E, F, seed=0, subset_size=12).mean}
    expected |= {"density": density_coverage(E, F).density, "coverage": density_coverage(E, F).coverage}
    expected |= {"is": inception_score(y.logits, splits=3, seed=0).mean}
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected)
    assert np.isnan(found["fad_infinity"].low)
    bounded = [interval for name, interval in found.items() if name != "fad_infinity"]
    assert all(i.low <= i.estimate + 1e-9 and i.estimate <= i.high + 1e-9 for i in bounded)


def test_pairs_have_both_kinds_of_kl_and_no_kl_of_means():
    x, y, order = evaluated(0), evaluated(1), np.random.default_rng(2).permutation(12)
    found = intervals(x, y, whole=False, partners=order)
    assert found["kl_pairs"].estimate == pytest.approx(kl_divergence(x.logits[order], y.logits))
    assert found["kl_pairs_sigmoid"].estimate == pytest.approx(kl_divergence(x.logits[order], y.logits, "sigmoid"))
    assert "kl" not in found and "kl" in intervals(x, y, whole=False)


def test_windows_are_pooled_for_frechet_and_averaged_elsewhere():
    x, y = evaluated(0, windows=3), evaluated(1, windows=3, shift=0.5)
    found = intervals(x, y)
    assert found["fad"].estimate == pytest.approx(fad(x.windows, y.windows))
    assert found["kad"].estimate == pytest.approx(kad(x.windows.mean(axis=1), y.windows.mean(axis=1)))
    assert {"fd", "is", "kl"}.isdisjoint(found)
    as_lists = Evaluated(list(x.windows)), Evaluated(list(y.windows))
    assert intervals(*as_lists)["fad"] == pytest.approx(found["fad"])


def test_interval_of_clips_that_differ_in_windows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), [rng.normal(size=(n, 3)) for n in (2, 5, 1, 7, 3, 4)]
    interval = frechet_bootstrap(x, y, seed=0, fixed_reference=True, n_boot=50)
    assert interval.estimate == pytest.approx(fad(x, np.concatenate(y)))
    assert interval.low <= interval.estimate <= interval.high
    with pytest.raises(ValueError, match="fixed_reference=True"):
        frechet_bootstrap(Gaussian(*gaussian(x)), y, seed=0)


@pytest.mark.parametrize("n", [3, 60], ids=["fewer clips than dimensions", "more"])
def test_stored_statistics_give_the_distance_of_the_clips(n):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 8)), rng.normal(size=(n, 8)) + 0.3
    stored = Gaussian(*gaussian(x), 50)
    assert fad(stored, y) == pytest.approx(fad(x, y), rel=1e-9)
    options = {"seed": 0, "fixed_reference": True, "n_boot": 20}
    assert frechet_bootstrap(stored, y, **options) == pytest.approx(frechet_bootstrap(x, y, **options), rel=1e-6)
    if n > 8:
        assert fad_infinity(stored, y, seed=1).score == pytest.approx(fad_infinity(x, y, seed=1).score, rel=1e-6)
    with pytest.raises(ValueError, match="stored statistics have 8 dimensions, the clips 7"):
        fad(stored, y[:, :7])


def test_statistics_leave_out_what_needs_clips():
    found = intervals(Gaussian(*gaussian(evaluated(0).windows)), evaluated(1))
    assert set(found) == {"fd", "fad_infinity", "is"}


def test_partners_by_id():
    assert partners_of(["a", "b", "c"], ["c", "a"]).tolist() == [2, 0]
    assert partners_of(["a", "b"], ["a", "d"]) is None and partners_of(["a", "a"], ["a"]) is None


def test_further_rows_come_after_those_of_judge_and_clap():
    def clips(seed, ids):
        rng, labels = np.random.default_rng(seed), np.repeat(LABELS, 6)
        arrays = {name: rng.normal(size=(12, 4)) for name in ("judge", "clap", "text", "vgg", "panns")}
        arrays |= {"logits": rng.normal(size=(12, 2)), "panns.logits": rng.normal(size=(12, 5)), "id": np.array(ids)}
        arrays["vgg"] = rng.normal(size=(12, 3, 4))
        return Embeddings(labels, arrays)

    ids = [f"clip-{i}" for i in range(12)]
    reference, generated = clips(0, ids), clips(1, ids)
    bare = [
        Embeddings(c.labels, {k: c[k] for k in ("judge", "logits", "clap", "text")}) for c in (reference, generated)
    ]
    options = {"judge_labels": LABELS, "settings": SETTINGS, "paired": True}
    rows, alone = scores.score(reference, generated, **options), scores.score(*bare, **options)
    kept = [row for row in rows if row["embedder"] in ("judge", "clap")]
    assert [json.dumps(row) for row in kept] == [json.dumps(row) for row in alone]
    common = ["kad", "coverage", "density", "kernel_distance"]
    pairs = ["kl_pairs", "kl_pairs_sigmoid"]

    def metrics(rows, class_, embedder):
        return [row["metric"] for row in rows if (row["class"], row["embedder"]) == (class_, embedder)]

    assert metrics(rows, "all", "vgg") == [*common, "fad", "fad_infinity"]
    assert metrics(rows, "all", "panns") == [*common, "fd", "fad_infinity", "is", *pairs]
    assert metrics(rows, "Rain", "panns") == metrics(rows, "average", "panns") == [*common, "fd", *pairs]
    other = clips(1, [f"other-{i}" for i in range(12)])
    unpaired = scores.score(reference, other, **options)
    by_chance = scores.score(reference, generated, **options | {"paired": False})  # equal ids may be chance
    assert "kl_pairs" not in metrics(by_chance, "all", "panns")
    assert "kl" in metrics(unpaired, "all", "panns") and "kl_pairs" not in metrics(unpaired, "all", "panns")


# ---- clips that cannot be scored


def test_the_stage_names_every_clip_that_cannot_be_scored(project, tiny, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(paths.SAMPLES / "ldm", tmp_path / "ldm")
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    audio = tmp_path / "ldm/0/audio"
    missing, broken, short = sorted(audio.iterdir())[:3]
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:1000])
    soundfile.write(short, np.full(1000, 0.1), 16000)
    with pytest.raises(AudioError) as error:
        evaluate.evaluate(["ldm"], tiny, Embedders(tiny))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("3 clips cannot be scored") and len(lines) == 4
    for file, what in ((missing, "no such file"), (broken, "cut short"), (short, "1000 samples at 16000 Hz instead")):
        assert sum(file.name in line and what in line for line in lines) == 1
