"""The stages behind re-audioldm: tokens of a corpus, the pre-trained U-Net, and systems that read what was retrieved."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from networks import module_sha256, noise

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.diffusion.condition import Condition, denoise
from foleylib.networks import pipeline as pipelines
from foleylib.networks import retrieval as networks
from foleylib.networks import unet as unets
from foleylib.networks.tokens import AudioTokens, ClapGrid
from foleylib.params.retrieval import Read, Retrieved
from foleylib.params.systems import System
from foleylib.runtime import weights_sha256
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages import bundle, finetune, neighbours, retrieval, tokens

READS = System(corpus="scenes", init="ldm", retrieval=Retrieved(k=2, width=8))
ROWS = np.array([[0, 1], [5, 12]])  # neighbours of two clips


@pytest.fixture
def kept(scenes):
    """What a test changes in the corpus and its tokens is put back."""
    folders = [paths.CLIPS / "scenes", paths.TOKENS / "scenes", paths.FOUNDATION / "clap"]
    copies = {folder: paths.ROOT / "kept" / folder.relative_to(paths.ROOT) for folder in folders}
    for folder, copy in copies.items():
        shutil.copytree(folder, copy)
    yield scenes
    for folder, copy in copies.items():
        shutil.rmtree(folder)
        shutil.move(copy, folder)


def stopped(*args, **options):
    raise KeyboardInterrupt


def with_tokens(cfg, **changes):
    return cfg.changed(retrieval=cfg.retrieval.changed(tokens=cfg.retrieval.tokens.changed(**changes)))


# Tokens


def test_tokens_of_every_clip_and_caption(scenes):
    manifest = manifests.load(paths.CLIPS / "scenes")
    clap, stores = finetune.load_parts(paths.FOUNDATION, "clap")["clap"], neighbours.stores_of("scenes", Read())
    audio, text = (np.load(stores[kind] / "tokens.npy") for kind in ("audio", "text"))
    assert len(audio) == len(text) == len(manifest) == 19 and text.shape[1] == 6
    waves = manifests.read_waves(paths.CLIPS / "scenes", manifest.iloc[[7]])
    expected, _ = AudioTokens(ClapGrid(clap), scenes.retrieval.tokens.pool).eval()(waves, 16000)
    assert np.abs(audio[7] - expected[0].numpy()).max() < 2e-3
    assert neighbours.channels("scenes", Read()) == {"audio": audio.shape[-1], "text": text.shape[-1]}
    assert neighbours.channels("scenes", Read(text=False)) == {"audio": audio.shape[-1], "text": None}


def test_tokens_are_made_once(kept, monkeypatch):
    monkeypatch.setattr(tokens.stores, "write", stopped)
    assert tokens.make("scenes", kept) == paths.TOKENS / "scenes"


def test_missing_weights_are_named_before_tokens_are_thrown_away(kept, tmp_path):
    before = neighbours.read_key("scenes")
    for options, said in (
        (
            {"audio": "audiomae", "audiomae": str(tmp_path / "a.pth")},
            "tokens.audiomae .*a.pth: no such file; fetch AudioMAE",
        ),
        ({"text": "t5", "t5": str(tmp_path / "t5")}, "tokens.t5 .*t5: no config of a T5 there"),
    ):
        with pytest.raises(ValueError, match=said):
            tokens.make("scenes", with_tokens(kept, **options))
    assert neighbours.read_key("scenes") == before


def changed_caption(cfg):
    file = paths.CLIPS / "scenes" / "captions.parquet"
    table = pd.read_parquet(file)
    table.assign(caption=["another scene", *table.caption[1:]]).to_parquet(file, index=False)
    return cfg


def changed_weights(cfg):
    clap = finetune.load_parts(paths.FOUNDATION, "clap")["clap"]
    with torch.no_grad():
        next(clap.model.parameters()).add_(0.1)
    clap.save(paths.FOUNDATION / "clap")
    return cfg


def changed_settings(cfg):
    return with_tokens(cfg, length=5)


@pytest.mark.parametrize("change", [changed_caption, changed_weights, changed_settings])
def test_tokens_are_made_again_when_what_they_are_made_from_changes(kept, change):
    before = neighbours.read_key("scenes")
    cfg = change(kept)
    sentinel = paths.TOKENS / "scenes" / "audio" / "old"
    sentinel.touch()
    tokens.make("scenes", cfg)
    assert neighbours.read_key("scenes") != before and not sentinel.exists()
    assert np.load(paths.TOKENS / "scenes" / "text" / "tokens.npy").shape[1] == cfg.retrieval.tokens.length


@pytest.mark.parametrize("made", [0, 1])
def test_tokens_of_a_killed_stage_do_not_count(kept, monkeypatch, made):
    """Killed within the first store, and between the two."""
    written, write = [], tokens.stores.write

    def killed(folder, count, batches):
        if len(written) == made:
            write(folder, count, (batch if i == 0 else stopped() for i, batch in enumerate(batches)))
        written.append(folder.name)
        write(folder, count, batches)

    cfg = with_tokens(kept, length=5).changed(features={"batch_size": 7})
    monkeypatch.setattr(tokens.stores, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        tokens.make("scenes", cfg)
    assert written == ["audio"][:made] and neighbours.read_key("scenes") is None
    with pytest.raises(ValueError, match="tokens/scenes holds no tokens; run the retrieval_index stage"):
        neighbours.of_split("scenes", "train", Read(), cfg)
    monkeypatch.setattr(tokens.stores, "write", write)
    tokens.make("scenes", cfg)
    assert len(neighbours.of_split("scenes", "train", Read(k=2), cfg)["text_tokens"]) == 8
    assert not list((paths.TOKENS / "scenes").glob(".*"))


def test_a_kind_of_tokens_that_was_left_out_is_named(kept):
    left = kept.retrieval.changed(tokens=kept.retrieval.tokens.model_dump() | {"text": None})
    cfg = kept.model_copy(update={"retrieval": left})  # unchecked: the settings refuse it before
    tokens.make("scenes", cfg)
    assert (
        not (paths.TOKENS / "scenes" / "text").exists()
        and neighbours.channels("scenes", Read(text=False))["text"] is None
    )
    with pytest.raises(ValueError, match="has no text tokens: retrieval.tokens.text is left out"):
        neighbours.channels("scenes", Read())


def test_conditions_of_a_split_are_those_of_its_neighbours(scenes):
    found = neighbours.find("scenes", "train")
    manifest = manifests.load(paths.CLIPS / "scenes")
    ids = list(manifest.id[manifest.split == "val"])
    given = neighbours.of_split("scenes", "val", Read(k=2), scenes)
    stored = np.load(paths.TOKENS / "scenes" / "audio" / "tokens.npy")
    assert given.keys() == {"tokens", "mask", "text_tokens", "text_mask"} and len(given["tokens"]) == 3
    rows = found(ids, 2).rows
    assert np.array_equal(given["tokens"][np.array([1])][0], stored[rows[1]].reshape(-1, stored.shape[-1]))
    assert set(manifest.split.iloc[rows.ravel()]) == {"train"}


# Pre-training


@pytest.fixture(scope="module")
def pretrained(scenes):
    return retrieval.make(scenes)


def test_pretraining_from_scratch(scenes, pretrained):
    assert len(pretrained) == 4 and pretrained.ddpm.notna().all() and pretrained.val_ddpm.iloc[-1] > 0
    unet = networks.load(paths.RE_AUDIOLDM)
    reads, settings = unet.retrieval.config, scenes.re_audioldm.pretrained
    assert (reads.audio, reads.text) == tuple(neighbours.channels("scenes", settings.retrieval).values())
    assert reads.width == 8 and not reads.blocks and list(unet.unet.config.block_out_channels) == [8, 8, 16, 16]
    noted = bundle.provenance_of(paths.RE_AUDIOLDM)
    assert noted["settings"] == settings.model_dump(mode="json")
    assert noted["corpus"]["scenes"] == {"train": 8, "val": 3, "test": 8} and noted["held_out"]["val_ddpm"] > 0
    assert len(bundle.history_of(paths.RE_AUDIOLDM)) == 4
    assert not list((paths.SCRATCH / "re_audioldm-pretrained").glob("*"))


def test_pretraining_moves_all_that_reads_tokens(scenes, pretrained):
    """Training clips have neighbours: without them the projections would stay as they were drawn."""
    trained, settings = networks.load(paths.RE_AUDIOLDM), scenes.re_audioldm.pretrained
    drawn = networks.build(
        settings.channels,
        settings.head_channels,
        layers=settings.layers,
        groups=settings.groups,
        dim=48,
        latent_channels=8,
        width=8,
        **neighbours.channels("scenes", settings.retrieval),
        seed=scenes.seed,
    )
    for name, value in trained.retrieval.state_dict().items():
        assert not torch.equal(value, drawn.retrieval.state_dict()[name]), name


def test_killed_pretraining_goes_on_to_the_same_weights(scenes, pretrained, monkeypatch):
    before, save = weights_sha256(paths.RE_AUDIOLDM / "unet"), retrieval.fit_unet
    read = weights_sha256(paths.RE_AUDIOLDM / "retrieval")
    steps = []

    def killed(unet, data, loss, *args, **options):
        def counted(*inputs):
            steps.append(1)
            return loss(*inputs) if len(steps) < 4 else stopped()

        return save(unet, data, counted, *args, **options | {"held_out": None})

    with monkeypatch.context() as patch:
        patch.setattr(retrieval, "fit_unet", killed)
        with pytest.raises(KeyboardInterrupt):
            retrieval.make(scenes)
    assert not paths.RE_AUDIOLDM.exists() and len(list(paths.SCRATCH.glob("re_audioldm-pretrained/*/state.pt"))) == 1
    calls = []
    monkeypatch.setattr(retrieval.DiffusionLoss, "__call__", counting(retrieval.DiffusionLoss.__call__, calls))
    history = retrieval.make(scenes)
    assert len(calls) == 2 and history.step.tolist() == [1, 2, 3, 4]  # the checkpoint was that of step 2
    assert weights_sha256(paths.RE_AUDIOLDM / "unet") == before
    assert weights_sha256(paths.RE_AUDIOLDM / "retrieval") == read


def counting(function, calls):
    def counted(*args, **options):
        calls.append(1)
        return function(*args, **options)

    return counted


def test_an_unknown_bundle_is_named(scenes):
    section = scenes.re_audioldm.pretrained.changed(source="bundled").model_dump()
    cfg = scenes.changed(re_audioldm=scenes.re_audioldm.changed(pretrained=section))
    with pytest.raises(ValueError, match="bundled/re_audioldm is missing"):
        retrieval.make(cfg)


# Systems that read what was retrieved


def system(cfg, name="reads", **changes):
    return cfg.changed(systems=cfg.model_dump()["systems"] | {name: READS.model_dump() | changes})


def made(cfg, **changes):
    """The folder of such a system, trained from the tiny foundation."""
    cfg = system(cfg, **changes)
    finetune.make("reads", cfg)
    return paths.SYSTEMS / "reads" / "0"


def drawn(pipeline, cfg, rows):
    """Latents of two test clips with the neighbours `rows`, or without conditions of any."""
    clap = finetune.load_parts(paths.FOUNDATION, "clap")["clap"]
    given = {"embedding": clap.embed_text(["a dog barks", "rain"])}
    if rows is not None:
        stored = neighbours.conditions("scenes", READS.retrieval, rows)
        given |= {name: torch.from_numpy(values[np.arange(2)]) for name, values in stored.items()}
        given |= {name: value.float() for name, value in given.items() if value.is_floating_point()}
    nothing, options = networks.unconditional(clap, pipeline.unet), SamplerOptions(steps=2, eta=0.0, guidance=2.0)
    return sample(pipeline, Condition(**given), nothing, (8, 24, 16), seeds=[3, 4], options=options, show=False)


@pytest.mark.parametrize("attention", ["added", "second"])
def test_a_trained_system_hears_its_neighbours(scenes, attention):
    folder = made(scenes, retrieval={"k": 2, "width": 8, "attention": attention})
    pipeline, rows = pipelines.load(folder), ROWS
    assert isinstance(pipeline.unet, networks.RetrievalUnet) and pipelines.prompts_of(folder) == {}
    heard, without = drawn(pipeline, scenes, rows), drawn(pipeline, scenes, None)
    assert torch.equal(heard, drawn(pipeline, scenes, rows)) and (heard - without).abs().max() > 1e-5
    assert torch.allclose(drawn(pipeline, scenes, np.full_like(rows, -1)), without, atol=1e-4)
    assert (heard - drawn(pipeline, scenes, rows[::-1].copy())).abs().max() > 1e-6
    assert len(pd.read_csv(folder / "history.csv")) == 2 and (folder / "retrieval").is_dir()


def test_a_system_starts_as_its_foundation(scenes):
    base = unets.load(paths.FOUNDATION / "ldm")
    start = finetune.initial_unet(READS, 0, scenes)
    assert module_sha256(start.unet) == module_sha256(base)
    stored = neighbours.conditions("scenes", READS.retrieval, ROWS)
    given = {name: torch.from_numpy(values[np.arange(2)]) for name, values in stored.items()}
    given = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    condition, z = Condition(embedding=noise(2, 48), **given), noise(2, 8, 24, 16)
    with torch.no_grad():
        plain = denoise(base, z, torch.tensor(500), Condition(embedding=condition.embedding))
        assert torch.equal(denoise(start, z, torch.tensor(500), condition), plain)
    other = finetune.initial_unet(READS, 1, scenes)
    assert module_sha256(other.retrieval) != module_sha256(start.retrieval)
    assert not isinstance(finetune.initial_unet(READS.changed(retrieval=None), 0, scenes), networks.RetrievalUnet)


def test_the_foundation_stays_where_the_branch_alone_is_trained(scenes):
    folder = made(scenes, retrieval={"k": 2, "width": 8, "trained": "branch"})
    unet = pipelines.load(folder).unet
    assert module_sha256(unet.unet) == module_sha256(unets.load(paths.FOUNDATION / "ldm"))
    assert all((attention.to_out[0].weight != 0).any() for attention in unet.retrieval.added)


def test_a_tuning_layer_and_neighbours_together(scenes, monkeypatch):
    trained, tune = [], finetune.tune
    monkeypatch.setattr(
        finetune, "tune", lambda *args, **options: trained.append(tune(*args, **options)) or trained[-1]
    )
    folder = made(scenes, tuning=True)
    loaded = pipelines.load(folder).unet
    assert module_sha256(loaded) == module_sha256(trained[0].unet) and unets.load_tuning(folder) is not None
    assert set(json.loads((folder / "retrieval" / "config.json").read_text())) >= {"audio", "text", "width", "blocks"}
    from diffusers import AudioLDMPipeline

    stock = AudioLDMPipeline.from_pretrained(folder)  # what was added lies beside a folder that diffusers knows
    assert module_sha256(stock.unet) == module_sha256(loaded.unet)


def test_training_key_changes_with_all_that_is_retrieved(kept):
    def key(system=READS, cfg=kept):
        return finetune.training_key(system, cfg.finetune, 0, cfg)

    plain, first = READS.changed(retrieval=None), key()
    alone = key(plain)
    others = [
        key(READS.changed(retrieval=READS.retrieval.changed(**changes).model_dump()))
        for changes in ({"k": 3}, {"width": 4}, {"text": False}, {"attention": "second"}, {"trained": "branch"})
    ]
    others.append(key(cfg=kept.changed(retrieval=kept.retrieval.changed(protocol="full"))))
    tokens.make("scenes", with_tokens(kept, length=5))
    others.append(key())
    index = paths.RETRIEVAL / "scenes" / "retrieval.json"
    before = index.read_text()
    index.write_text(json.dumps(json.loads(before) | {"settings": "others"}))
    others.append(key())
    assert key(plain) == alone  # nothing that a system does not read trains it anew
    index.write_text(before)
    assert len({first, alone, *others}) == 2 + len(others)


# Settings


def test_what_cannot_be_read_is_refused(scenes):
    with pytest.raises(
        ValueError, match="systems.reads.retrieval reads neighbours or tokens of corpus 'foley': name it"
    ):
        system(scenes, corpus="foley")
    run = {"reads": {"name": "reads", "clips": {"made_from": "models/systems/reads"}}}
    sampled = system(scenes).model_dump()
    with pytest.raises(
        ValueError,
        match="runs.reads: systems.reads reads neighbours or a sampling rate, which the sample stage does not",
    ):
        type(scenes).model_validate(
            sampled
            | {"runs": sampled["runs"] | run}
            | {"sampling": sampled["sampling"] | {"corpus": "scenes"}}
            | {"lambda_sweep": sampled["lambda_sweep"] | {"corpus": "scenes"}}
            | {"targets": sampled["targets"] | {"corpus": "scenes"}}
            | {"runs": run, "filters": {}, "evaluate": sampled["evaluate"] | {"baseline": "reads"}}
            | {"listening": sampled["listening"] | {"runs": ["reads", "real"]}}
        )
    paper = scenes.re_audioldm
    sound = paper.pretrained.retrieval.changed(text=False).model_dump()
    with pytest.raises(ValueError, match="models.both reads a kind of tokens that pretrained.retrieval leaves out"):
        paper.changed(pretrained=paper.pretrained.changed(retrieval=sound).model_dump())
    added = paper.pretrained.retrieval.changed(attention="added").model_dump()
    other = paper.pretrained.changed(retrieval=added, channels=[8, 8, 16, 16]).model_dump()
    with pytest.raises(ValueError, match="with attention 'added' it is the foundation's ldm; give it channels"):
        scenes.changed(re_audioldm=paper.model_dump() | {"pretrained": other})
    with pytest.raises(ValueError, match="retrieval_dropout"):
        scenes.finetune.changed(retrieval_dropout=0.4)
    with pytest.raises(ValueError, match="width"):  # the models have the width of what they start from
        paper.changed(models=paper.model_dump()["models"] | {"both": {"width": 4}})
