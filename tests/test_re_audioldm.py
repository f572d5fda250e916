"""re-audioldm: what its models are asked for, and their scores, on a tiny corpus of scenes and on one without scenes."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.datasets.retrieval import PROTOCOLS
from foleylib.networks import retrieval as networks
from foleylib.papers import re_audioldm
from foleylib.papers.re_audioldm import Bench
from foleylib.stages import features, retrieval, retrieval_index, retrieval_tuned, tokens

VARIANTS = ["own", "off", "swapped", "full", "published"]


@pytest.fixture(scope="module")
def cfg(scenes):
    """The scenes project with its pre-trained U-Net, and with neighbours that differ: untrained embeddings are all alike."""
    retrieval.make(scenes)
    spread()
    return scenes


def spread():
    """Give every test clip and caption other neighbours; the published protocol has the clip itself first."""
    folder, manifest = paths.RETRIEVAL / "scenes", manifests.load(paths.CLIPS / "scenes")
    train, test = (np.flatnonzero(manifest.split == split) for split in ("train", "test"))
    for shift, protocol in enumerate(PROTOCOLS):
        rows = np.load(folder / f"rows_{protocol}.npy")
        for number, item in enumerate(test):
            for caption in range(3):
                rows[item, caption] = np.roll(train, -2 * number - caption - 3 * shift)[: rows.shape[2]]
            if protocol == "published":
                rows[item, :, 0] = item
        np.save(folder / f"rows_{protocol}.npy", rows)


@pytest.fixture(scope="module")
def bench(cfg):
    return Bench(cfg)


@pytest.fixture(scope="module")
def compared(cfg):
    return re_audioldm.compare(cfg)


@pytest.fixture(scope="module")
def unet(cfg):
    """A U-Net whose projections are so large that its tokens are heard."""
    unet = networks.load(paths.RE_AUDIOLDM)
    with torch.no_grad():
        for projection in unet.retrieval.projections.values():
            projection.weight.mul_(20)
    return unet


# What is asked for


def test_the_clips_of_the_captions_are_not_among_the_reference(cfg, bench):
    manifest = manifests.load(paths.CLIPS / "scenes")
    test = list(manifest.id[manifest.split == "test"])
    assert bench.manifest.id.tolist() == test[:4] and bench.real["id"].tolist() == test[4:]
    assert [own[0] for own in bench.said] == bench.manifest.prompt.tolist() and {*map(len, bench.said)} == {3}
    assert [scene for scene in bench.scenes if not 1 <= len(scene) <= 2] == []


def test_neighbours_of_every_variant(cfg, bench):
    own = bench.rows(2, "own", 0)
    splits, numbers = (manifests.load(paths.CLIPS / "scenes")[c].to_numpy() for c in ("split", "id"))
    assert set(splits[own.ravel()]) == {"train"} and own.shape == (4, 2)
    assert np.array_equal(own, bench.rows(2, "train", 0)) and (bench.rows(2, "off", 0) == -1).all()
    swapped = bench.rows(2, "swapped", 0)
    assert sorted(map(tuple, swapped)) == sorted(map(tuple, own))  # each is another's
    assert not any(set(mine) & set(others) for mine, others in zip(own, swapped))
    assert (numbers[bench.rows(2, "published", 0)[:, 0]] == bench.manifest.id).all()
    assert (bench.rows(2, "full", 0) != own).any() and (bench.rows(2, "own", 1) != own).any()


def test_off_is_to_have_no_neighbours(cfg, bench, unet):
    reads = cfg.re_audioldm.models["both"]
    own, off = (bench.draw(unet, reads, 0, variant, 0) for variant in ("own", "off"))
    without = bench.draw(unet, None, 0, "own", 0)
    assert own.shape == (4, cfg.corpora["scenes"].samples) and torch.isfinite(own).all()
    assert torch.allclose(off, without, atol=1e-4) and (own - without).abs().max() > 1e-3
    assert (bench.draw(unet, reads, 0, "swapped", 0) - own).abs().max() > 1e-3


def test_noise_is_that_of_the_seed_and_the_clip(cfg, bench, unet, monkeypatch):
    given, latents = [], re_audioldm.Drawer.latents

    def noted(drawer, condition, seeds, options):
        given.append((condition, seeds))
        return latents(drawer, condition, seeds, options)

    monkeypatch.setattr(re_audioldm.Drawer, "latents", noted)
    reads = cfg.re_audioldm.models["both"]
    asked = [
        (reads, 0, "own", 0),
        (None, 0, "own", 0),
        (reads, 0, "off", 0),
        (reads, 0, "own", 2),
        (reads, 1, "own", 0),
    ]
    for question in asked:
        bench.draw(unet, *question)
    seeds = [own for _, own in given]
    assert seeds[0] == seeds[1] == seeds[2] == seeds[3] and len({*seeds[0], *seeds[4]}) == 8
    clap = bench.embedders.clap
    for (_, _, _, caption), (condition, _) in zip(asked, given):
        expected = clap.embed_text([own[caption] for own in bench.said]).cpu()
        assert torch.allclose(condition.embedding, expected, atol=1e-6)
    stored = np.load(paths.TOKENS / "scenes" / "audio" / "tokens.npy")
    rows = bench.rows(2, "own", 2)
    assert np.array_equal(given[3][0].tokens.numpy(), stored[rows].reshape(4, -1, stored.shape[-1]).astype(np.float32))
    assert given[1][0].given().keys() == {"embedding"}


# Scores


def test_scores_of_the_real_clips(cfg, bench):
    whole, classes = bench.score(torch.from_numpy(bench.waves))
    value = whole.set_index(["metric", "embedder"]).value
    assert value["kl_pairs", "judge"] == pytest.approx(0, abs=1e-5)
    clap = bench.embedders.clap
    said = clap.embed_text(bench.manifest.prompt.tolist()).cpu().numpy()
    heard = clap.embed_audio(torch.from_numpy(bench.waves), 16000).cpu().numpy()
    assert value["clap_score", "clap"] == pytest.approx((said * heard).sum(1).mean(), abs=1e-5)
    labels, thresholds = bench.detector.model.labels, bench.detector.model.thresholds.cpu().numpy()
    told = re_audioldm.events.score(
        re_audioldm.detector.probabilities(bench.detector, bench.waves),
        thresholds,
        re_audioldm.events.indices(bench.scenes, labels),
    )
    assert value["event_ordered", "detector"] == told.order.notna().sum()
    there = {label for scene in bench.scenes for label in scene}
    assert set(classes.label) == there and len(whole) == len(value)
    for row in classes.itertuples():
        own = np.array([row.label in scene for scene in bench.scenes])
        assert row.clips == own.sum() and row.clap_score == pytest.approx((said * heard).sum(1)[own].mean(), abs=1e-5)
    other = bench.score(torch.from_numpy(bench.waves), 1)[0].set_index(["metric", "embedder"]).value
    assert other["clap_score", "clap"] != value["clap_score", "clap"] and other["kad", "clap"] == value["kad", "clap"]


def test_a_copy_of_a_neighbour_is_told(cfg, bench):
    """By the neighbours of the caption that the clips were made for."""
    corpus = paths.CLIPS / "scenes"
    for caption in (0, 1):
        rows = bench.rows(2, "own", caption)
        copies = manifests.Waves(corpus, manifests.load(corpus))[rows[:, 1]]
        value = bench.score(copies, caption)[0].set_index("metric").value
        assert value.nearest_clap == pytest.approx(1, abs=1e-4) and value.nearest_mel == pytest.approx(1, abs=1e-6)
    real = bench.score(torch.from_numpy(bench.waves))[0].set_index("metric").value
    assert real.nearest_mel < 0.99


def test_clips_without_neighbours_do_not_count_as_copies(cfg, bench, monkeypatch):
    rows = bench.rows(2, "own", 0)
    last = len(manifests.load(paths.CLIPS / "scenes")) - 1  # what -1 would read
    waves = manifests.Waves(paths.CLIPS / "scenes", manifests.load(paths.CLIPS / "scenes"))
    some = np.array([[rows[0, 0], -1], [-1, -1], [-1, -1], [rows[3, 0], rows[3, 1]]])
    monkeypatch.setattr(bench, "rows", lambda *asked: some)
    monkeypatch.setattr(bench, "known", {})  # what was read for other rows
    copies = waves[np.array([rows[0, 0], last, last, rows[3, 1]])]
    embedded = bench.embedders.clap.embed_audio(copies, 16000).cpu().numpy()
    assert [row["value"] for row in bench.nearest(copies, embedded, 0)] == pytest.approx([1, 1], abs=1e-4)
    none = waves[np.array([last, last, last, last])]
    embedded = bench.embedders.clap.embed_audio(none, 16000).cpu().numpy()
    assert bench.nearest(none, embedded, 0)[1]["value"] < 0.99


# The comparison


def test_every_model_is_scored_with_every_seed(cfg, compared):
    scores, classes = compared
    asked = {("real", "own", 0, 0), ("codec", "own", 0, 0)}
    asked |= {(model, "own", 0, seed) for model in cfg.re_audioldm.models for seed in (0, 1)}
    asked |= {("both", variant, 0, seed) for variant in VARIANTS for seed in (0, 1)}
    asked |= {(model, "own", caption, 0) for model in ("none", "both") for caption in (1, 2)}
    metrics = set(scores[scores.model == "real"].set_index(["metric", "embedder"]).index)
    assert {("nearest_clap", "clap"), ("nearest_mel", "mel"), ("event_recall", "detector"), ("kad", "clap")} <= metrics
    for table in compared:
        assert {*table[re_audioldm.KEYS].itertuples(index=False, name=None)} == asked
    assert all(
        set(own.set_index(["metric", "embedder"]).index) == metrics for _, own in scores.groupby(re_audioldm.KEYS)
    )
    assert (
        len(scores) == len(asked) * len(metrics)
        and not scores.duplicated([*re_audioldm.KEYS, "metric", "embedder"]).any()
    )
    never = scores.metric.isin(["event_precision", "event_order"])  # untrained, it may hear nothing at all
    assert scores[~never].value.notna().all() and classes.clap_score.notna().all() and (classes.clips > 0).all()
    assert not (paths.SCRATCH / "re_audioldm").exists()
    written = pd.read_csv(paths.RESULTS / "re_audioldm.csv")
    assert len(written) == len(scores) and written.value.to_numpy() == pytest.approx(
        scores.value, rel=1e-5, nan_ok=True
    )
    assert len(pd.read_csv(paths.RESULTS / "re_audioldm_classes.csv")) == len(classes)


def test_models_and_variants_differ(cfg, compared):
    mean = compared[0].query("metric == 'kad' and embedder == 'clap'").set_index(re_audioldm.KEYS).value
    assert (
        mean["both", "own", 0, 0] != mean["both", "own", 0, 1]
        and mean["both", "own", 0, 0] != mean["none", "own", 0, 0]
    )
    assert len({mean["both", variant, 0, 0] for variant in VARIANTS}) > 1


def test_clips_are_kept_for_players(cfg, compared):
    folders = {folder.name for folder in (paths.EXAMPLES / "re_audioldm").iterdir()}
    assert folders == {"none_own", "sound_own", *(f"both_{variant}" for variant in VARIANTS)}
    for name in folders:
        manifest, waves = samples.load(paths.EXAMPLES / "re_audioldm" / name)
        assert samples.seeds(paths.EXAMPLES / "re_audioldm" / name) == [0] and waves.shape == (4, 15360)
        assert manifest.prompt.str.len().gt(0).all() and np.isfinite(waves).all()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "scoring"])
def test_killed_and_started_again_it_gives_the_same(cfg, compared, monkeypatch, where):
    calls = []

    def killed(function):
        def until(*args, **options):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return function(*args, **options)

        return until

    target, name = {"training": (retrieval_tuned, "tune"), "scoring": (Bench, "score")}[where]
    clips = {file: file.read_bytes() for file in (paths.EXAMPLES / "re_audioldm").rglob("*.wav")}
    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed(getattr(target, name)))
        with pytest.raises(KeyboardInterrupt):
            re_audioldm.compare(cfg)
    trained, tune = [], retrieval_tuned.tune
    done = len(list((paths.SCRATCH / "re_audioldm").glob("*-model")))
    monkeypatch.setattr(retrieval_tuned, "tune", lambda *args, **options: trained.append(1) or tune(*args, **options))
    again = re_audioldm.compare(cfg)
    assert 0 < done and len(trained) == 6 - done  # what was trained before the kill is not trained again
    for before, after in zip(compared, again):
        pd.testing.assert_frame_equal(before, after)
    assert clips and clips == {file: file.read_bytes() for file in (paths.EXAMPLES / "re_audioldm").rglob("*.wav")}


def test_models_start_from_the_pretrained_one_and_change_with_it(cfg, tmp_path):
    def model(name="both", seed=0, cfg=cfg):
        return re_audioldm.model_of(name, seed, cfg, tmp_path)

    both = model()
    assert (both.system.retrieval.width, both.system.retrieval.attention) == (8, "second")
    assert model("none").system.retrieval is None and both.common.train.steps == 2
    others = [model("none"), model(seed=1), model("sound")]
    changed = cfg.changed(re_audioldm=cfg.re_audioldm.changed(steps=3))
    keys = {both.key, *(other.key for other in others), model(cfg=changed).key}
    history = paths.RE_AUDIOLDM / "provenance.json"
    kept = history.read_text()
    history.write_text(kept + "\n")
    keys |= {model().key}
    history.write_text(kept)
    assert len(keys) == 6 and model().key == both.key


# Other corpora


@pytest.fixture
def own_captions(cfg):
    """Write other captions and events of the corpus; all is put back."""
    folder, kept = paths.CLIPS / "scenes", paths.ROOT / "kept"
    names = ("CLIPS", "FEATURES", "RETRIEVAL", "TOKENS", "DETECTOR")
    for name in names:
        shutil.copytree(getattr(paths, name), kept / name)

    def write(said=None, **columns):
        manifest = manifests.load(folder).assign(**columns)
        manifest.to_parquet(folder / "manifest.parquet", index=False)
        if said is not None:
            manifests.write_captions(folder, dict(zip(manifest.id, said)))

    yield write
    for name in names:
        shutil.rmtree(getattr(paths, name), ignore_errors=True)
        shutil.move(kept / name, getattr(paths, name))


def test_a_corpus_of_captions_alone_has_no_scores_by_events(cfg, own_captions):
    own_captions(events="[]")
    shutil.rmtree(paths.DETECTOR)  # it is not needed
    few = cfg.re_audioldm.model_dump() | {"seeds": [0], "captions": 1}
    few["models"] = {name: few["models"][name] for name in ("none", "both")}
    scores, classes = re_audioldm.compare(cfg.changed(re_audioldm=few))
    assert scores.value.notna().all() and not scores.metric.str.startswith("event").any() and len(classes) == 0
    assert list(classes) == [*re_audioldm.KEYS, *re_audioldm.CLASSES]
    assert {*scores.groupby(["model", "variant"]).groups} == {
        ("real", "own"), ("codec", "own"), ("none", "own"), *(("both", variant) for variant in VARIANTS)
    }  # fmt: skip
    assert pd.read_csv(paths.RESULTS / "re_audioldm_classes.csv").empty


def test_clips_of_fewer_captions_have_their_last(cfg, own_captions):
    manifest = manifests.load(paths.CLIPS / "scenes")
    said = manifests.captions(paths.CLIPS / "scenes", manifest)
    test = np.flatnonzero(manifest.split == "test")
    said[test[0]], said[test[1]] = said[test[0]][:1], said[test[1]][:2]
    own_captions(said)
    features.make("scenes", cfg)
    for stage in (retrieval_index, tokens):
        stage.make("scenes", cfg)
    spread()
    bench = Bench(cfg)
    assert list(map(len, bench.said)) == [1, 2, 3, 3]
    texts = [bench._texts(caption) for caption in range(3)]
    assert [len({told[i] for told in texts}) for i in range(4)] == [1, 2, 3, 3]
    rows = np.stack([bench.rows(2, "own", caption) for caption in range(3)])
    assert (rows[:, 0] == rows[0, 0]).all() and (rows[1:, 1] == rows[1, 1]).all() and (rows[1, 2] != rows[2, 2]).any()
    assert bench.score(torch.from_numpy(bench.waves), 2)[0].value[0] > -1
    with pytest.raises(ValueError, match="re_audioldm.captions is 4, but no test clip has more than 3: lower it"):
        Bench(cfg.changed(re_audioldm=cfg.re_audioldm.changed(captions=4)))


def test_what_cannot_be_compared_is_told(cfg, own_captions):
    with pytest.raises(ValueError, match="re_audioldm.clips is 7 of 8: leave some for the reference"):
        Bench(cfg.changed(re_audioldm=cfg.re_audioldm.changed(clips=7)))
    own_captions(label="Rain", target=0)
    with pytest.raises(
        ValueError, match="re_audioldm.corpus: 'scenes' has classes; give one whose clips have captions"
    ):
        Bench(cfg)
