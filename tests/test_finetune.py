"""The stage finetune: systems, their seeds, losses and prompts, on untrained foundation models of a tiny project."""

import json

import pandas as pd
import pytest
import torch

from foleylib import paths
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import load_parts
from foleylib.params.systems import Loss, System
from foleylib.stages import finetune


def weights_of(folder):
    return unets.load(folder).state_dict()


def test_every_seed_is_a_model_of_its_own(project, tiny):
    folders = [project / folder for folder in tiny.models_of("tuning").values()]
    assert [folder.name for folder in folders] == ["0", "1"]
    assert not torch.equal(*(weights_of(folder)["conv_in.weight"] for folder in folders))
    for folder in folders:
        assert json.loads((folder / "unet/config.json").read_text()).get("_name_or_path", "") == ""
        assert set(json.loads((folder / "prompts.json").read_text())) == {"DogBark", "Rain"}
        assert len(pd.read_csv(folder / "history.csv")) == tiny.finetune.train.steps
        assert unets.load_tuning(folder) is not None
    assert unets.load_tuning(paths.SYSTEMS / "ldm" / "0") is None


def test_same_system_again_is_the_same(project, tiny, monkeypatch):
    """Also where the training is killed in between: what is finished is not trained again."""
    before, tune, tuned = {seed: weights_of(paths.SYSTEMS / "ldm" / str(seed)) for seed in (0, 1)}, finetune.tune, []

    def killed_once(system, seed, *args, **options):
        tuned.append(seed)
        if tuned == [0, 1]:
            raise KeyboardInterrupt
        return tune(system, seed, *args, **options)

    monkeypatch.setattr(finetune, "tune", killed_once)
    with pytest.raises(KeyboardInterrupt):
        finetune.make("ldm", tiny)
    history = finetune.make("ldm", tiny)
    assert tuned == [0, 1, 1, 9] and history.groupby("seed").size().to_dict() == {0: 6, 1: 6, 9: 6}
    for seed, weights in before.items():
        again = weights_of(paths.SYSTEMS / "ldm" / str(seed))
        assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert not (paths.SCRATCH / "finetune-ldm").exists()


def test_latent_clap_loss_changes_the_model(project, tiny, tmp_path):
    parts = load_parts(paths.FOUNDATION)
    systems = [System(corpus="foley", init="ldm", loss=Loss(lclap=value)) for value in (0.0, 100.0, 200.0)]
    plain, strong = (finetune.tune(s, 0, tiny, parts, scratch=tmp_path / str(s.loss.lclap)) for s in systems[:2])
    assert "lclap" not in plain.history and (strong.history.lclap > 0).all()
    assert not torch.equal(plain.unet.conv_in.weight, strong.unet.conv_in.weight)
    assert len({finetune.training_key(system, tiny.finetune, 0, tiny) for system in systems}) == 3


def test_encoder_of_another_latent_scale_is_refused(project, tiny, tmp_path):
    parts = load_parts(paths.FOUNDATION)
    parts["vae"].register_to_config(scaling_factor=0.6)
    system = System(corpus="foley", init="ldm", loss=Loss(lclap=1.0))
    with pytest.raises(ValueError, match="scale=0.6: the encoder was trained with 0.7; run its stage again"):
        finetune.tune(system, 0, tiny, parts, scratch=tmp_path)


def test_training_key_leaves_out_what_does_not_train(project, tiny):
    def key(system=None, common=None, seed=0):
        return finetune.training_key(system or tiny.systems["ldm"], common or tiny.finetune, seed, tiny)

    assert key() == key(tiny.systems["ldm"].changed(seeds=[7])) == key(common=tiny.finetune.changed(seeds=[5]))
    others = [key(tiny.systems["tuning"]), key(common=tiny.finetune.changed(condition_dropout=0.5)), key(seed=1)]
    assert len({key(), *others}) == 4


def test_label_prompts(project):
    system = System(corpus="foley", init="ldm")
    assert finetune.class_prompts(system.changed(prompts="label")) == {"DogBark": "DogBark", "Rain": "Rain"}
    assert finetune.class_prompts(system)["Rain"] != "Rain"


def test_unknown_system_is_named(tiny):
    with pytest.raises(ValueError, match="systems in params.yaml has no 'none'; it has: ldm, tuning"):
        finetune.make("none", tiny)
