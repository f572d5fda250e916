"""Other sizes of the LDM: trained, packed, unpacked, taken from a checkpoint, and fine-tuned like the first."""

import copy
import json
import re
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from networks import module_sha256
from safetensors.torch import load_file

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import load_parts
from foleylib.params import settings as params
from foleylib.runtime import parameters
from foleylib.stages import bundle, clap, features, finetune, foundation, pretrain, vae, vocoder
from foleylib.stages.ldm import new_unet
from foleylib.train import Job

PART = "ldm_large"


def with_foundation(cfg, **values):
    """Settings with another section `foundation`; unchecked, as that of a checkpoint that is not there."""
    return cfg.model_copy(update={"foundation": cfg.foundation.model_copy(update=values)})


@pytest.fixture(scope="module")
def cfg(tiny):
    return with_foundation(tiny, corpus="foley")


@pytest.fixture(scope="module")
def models(cfg, tiny_corpus, tiny_models, tiny_paths_module, tmp_path_factory):
    """A folder like models/foundation with the large LDM trained in it."""
    features.make("foley", cfg)
    folder = shutil.copytree(tiny_models, tmp_path_factory.mktemp("models") / "foundation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "FOUNDATION", folder)
        history = pretrain.make(PART, cfg)
    assert len(history) == cfg.foundation.ldm.train.steps and history.val_ddpm.notna().any()
    assert not list(paths.SCRATCH.glob("foundation-ldm_large/*"))
    return folder


@pytest.fixture
def trained(models, tmp_path, monkeypatch):
    """Folder of the large LDM in a models/foundation that the test may change."""
    monkeypatch.setattr(paths, "FOUNDATION", shutil.copytree(models, tmp_path / "models" / "foundation"))
    for name in ("BUNDLED", "SCRATCH", "LATENT_CLAP"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return paths.FOUNDATION / PART


def digest(folder) -> str:
    return module_sha256(unets.load(folder))


def test_what_a_notebook_scores_is_bounded_and_spread_over_the_classes(cfg, models):
    whole, waves = foundation.tested(cfg)
    few, some = foundation.tested(cfg, 3)
    assert len(whole) == len(waves) == 8 and few.id.tolist() == whole.id.iloc[[0, 3, 7]].tolist()
    assert set(few.label) == set(whole.label) and torch.equal(some[[1]], waves[[3]])
    log_mel = front_end(16000, "dataset")
    assert torch.allclose(vae.log_mels(some, log_mel, batch_size=2), log_mel(some[range(3)]), atol=1e-5)


def test_a_size_has_the_rest_from_ldm(cfg):
    size, small = cfg.foundation.section(PART), cfg.foundation.section("ldm")
    assert cfg.foundation.ldms == ["ldm", PART] and small is cfg.foundation.ldm
    assert size.channels == [24, 24, 48, 48] != small.channels
    assert size.changed(channels=small.channels, head_channels=small.head_channels) == small


def test_a_size_is_trained_and_says_so(trained, cfg):
    unet, untrained = unets.load(trained), new_unet(cfg, PART, cfg.seed)
    assert unet.config.block_out_channels == [24, 24, 48, 48]
    provenance = bundle.provenance_of(trained)
    assert provenance["settings"]["channels"] == [24, 24, 48, 48] and provenance["corpus"]["kind"] == "synthetic"
    assert provenance["held_out"]["val_ddpm"] == pytest.approx(bundle.history_of(trained).val_ddpm.iloc[-1], abs=1e-5)
    assert parameters(unet) == parameters(untrained) > parameters(new_unet(cfg, "ldm", 0))
    assert module_sha256(unet) != module_sha256(untrained)


def test_errors_of_a_size_by_noise_level(trained, cfg):
    table = pretrain.errors_by_noise(PART, cfg)
    assert list(table.columns) == ["n", "audio condition", "unconditional"]
    assert table.n.iloc[[0, -1]].tolist() == [0, 999] and np.isfinite(table).all(axis=None)
    assert (table["audio condition"] != table.unconditional).all()


def test_a_size_goes_through_the_bundle(trained, cfg, monkeypatch, capsys):
    trained_unet = unets.load(trained)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    bundle.pack()
    assert re.fullmatch(r"ldm_large: packed, \d\.\d MiB\n", capsys.readouterr().out)
    assert sorted(p.name for p in (paths.BUNDLED / PART).iterdir()) == [
        "README.md",
        "history.csv",
        "provenance.json",
        "unet",
    ]
    bundled = with_foundation(cfg, source="bundled")
    assert len(pretrain.make(PART, bundled)) == cfg.foundation.ldm.train.steps
    assert digest(trained) == module_sha256(trained_unet.half().float())
    assert (trained / "model_index.json").is_file() and bundle.provenance_of(trained)["commit"] == "c0ffee"
    bundle.pack()
    assert capsys.readouterr().out == "ldm_large: came from the bundle, left alone\n"
    size = cfg.foundation.sizes[PART].changed(channels=[24, 24, 24, 48])
    message = r"foundation.sizes.ldm_large.channels differs from the bundle's \(\[24, 24, 48"
    with pytest.raises(ValueError, match=message):
        pretrain.make(PART, with_foundation(bundled, sizes={PART: size}))
    section, corpus = cfg.foundation.section(PART), cfg.corpus_of("foundation").changed(rate=24000)
    with pytest.raises(
        ValueError, match="rate of 24000 Hz, the bundled ldm_large is for 16000 Hz: put it back, or set"
    ):
        bundle.copy_bundled(PART, section, "foundation.ldm", corpus, trained.parent / "other")


@pytest.mark.parametrize("part", ["clap", "vae", "vocoder", PART])
def test_a_part_of_the_bundle_is_trained_further(trained, cfg, monkeypatch, part):
    stage = {"clap": clap, "vae": vae, "vocoder": vocoder}.get(part)
    make = stage.make if stage else partial(pretrain.make, part)
    folder, section = trained.parent / part, cfg.foundation.section(part)
    bundle.write_provenance(folder, section, cfg.foundation.corpus, cfg, 1.0, pd.DataFrame({"loss": [1.0]}))
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    bundle.pack()
    section = cfg.foundation.ldm if part == PART else section
    one_step = section.changed(train=section.train.model_dump() | {"steps": 1, "lr": 1e-6, "warmup": 0})
    further = with_foundation(cfg, source="finetuned", **{"ldm" if part == PART else part: one_step})
    kept, scratch = state_of(paths.BUNDLED / part), with_foundation(further, source="scratch")
    for settings, near in ((further, True), (scratch, False)):
        assert len(make(settings)) == 1
        state = state_of(folder)
        assert near == (set(state) == set(kept) and all(torch.allclose(state[k], kept[k], atol=1e-4) for k in kept))
        assert bundle.provenance_of(folder).get("start", {}).get("commit") == ("c0ffee" if near else None)
    keys = {foundation.job(settings, part).scratch for settings in (further, scratch)}
    assert len(keys) == 2 and not any(key.exists() for key in keys)


def test_a_decoder_trained_further_keeps_the_latent_scale(trained, cfg):
    folder, section = trained.parent / "vae", cfg.foundation.vae
    bundle.write_provenance(folder, section, cfg.foundation.corpus, cfg, 1.0, pd.DataFrame({"loss": [1.0]}))
    shutil.copytree(folder, paths.BUNDLED / "vae")
    scales = {}
    for frozen in (True, False):
        vae.make(with_foundation(cfg, source="finetuned", vae=section.changed(frozen_encoder=frozen)))
        config = json.loads((folder / "config.json").read_text())
        scales[frozen] = config["scaling_factor"]
        assert str(folder.parent) not in str(config) and "/tmp" not in str(config)
    assert scales[True] == 0.7 != scales[False]


def test_a_frozen_encoder_leaves_the_latents_as_they_are(cfg, tiny_parts, tmp_path):
    section = cfg.foundation.vae.changed(frozen_encoder=True)
    clips, model = torch.randn(4, 10240), copy.deepcopy(tiny_parts.vae)
    job = Job(0, tmp_path, "cpu")
    trained, _ = vae.fit_vae(section, [vae.Mels(clips, front_end(16000, "dataset"))], job, start=model)
    before, after = tiny_parts.vae.state_dict(), trained.state_dict()
    moved = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert moved == {"decoder", "post_quant_conv"}
    with pytest.raises(ValueError, match="would leave it untrained; set source to 'finetuned'"):
        cfg.foundation.changed(vae=section.model_dump())


def state_of(folder) -> dict:
    """The weights of a part, without the statistics that a batch norm keeps."""
    file = next((folder / "unet" if (folder / "unet").is_dir() else folder).glob("*.safetensors"))
    return {k: v.float() for k, v in load_file(file).items() if v.is_floating_point() and "running_" not in k}


def test_a_system_starts_from_a_size(trained, cfg, tmp_path):
    system = cfg.systems["large"]
    start = finetune.initial_unet(system, 0, cfg)
    assert module_sha256(start) == digest(trained)
    scratch = finetune.initial_unet(system.changed(pretrained=False), 0, cfg)
    assert parameters(scratch) == parameters(start) and module_sha256(scratch) != module_sha256(start)
    tuned = finetune.tune(system, 0, cfg, load_parts(paths.FOUNDATION), scratch=tmp_path / "tune")
    assert tuned.tuning is not None and not torch.equal(tuned.unet.conv_in.weight, start.conv_in.weight)
    others = [system, system.changed(init="ldm"), system.changed(pretrained=False)]
    assert len({finetune.training_key(other, cfg.finetune, 0, cfg) for other in others}) == 3


@pytest.mark.parametrize(
    ("section", "entries", "name", "values", "sentence"),
    [
        ("foundation", "sizes", PART, {"head_channels": 25}, "ldm_large: channels 24 is no multiple of head_channels"),
        ("foundation", "sizes", "vae", {"channels": [48], "head_channels": 24}, "sizes.vae: .* call it ldm_vae"),
        (
            "foundation",
            "sizes",
            "latent_clap",
            {"channels": [48], "head_channels": 24},
            "sizes.latent_clap: that is no",
        ),
        ("systems", None, "large", {"init": "xl"}, "systems.large.init is 'xl', which is none of: ldm, ldm_large"),
        ("systems", None, "new", {"corpus": "foley", "tuning": True}, "systems.new.init: missing"),
    ],
)
def test_what_does_not_fit_is_named(tiny, section, entries, name, values, sentence):
    settings = tiny.model_dump()
    node = settings[section] if entries is None else settings[section][entries]
    node[name] = node.get(name, {}) | values
    with pytest.raises(ValueError, match=sentence):
        params.parse(settings)


def test_a_checkpoint_of_every_size_is_asked_for(tiny):
    settings = tiny.model_dump()
    settings["foundation"] |= {"source": "checkpoint", "checkpoint": "x"}
    with pytest.raises(ValueError, match="source 'checkpoint' needs 'sizes.ldm_large.checkpoint'"):
        params.parse(settings)
