"""Other sizes of the LDM: trained, packed, unpacked, taken from a checkpoint, and fine-tuned like the first."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from foleylib import foundation, ldm, params, paths, pipeline

PART = "ldm_large"


def with_foundation(settings, **changes):
    return settings.model_copy(update={"foundation": settings.foundation.model_copy(update=changes)})


@pytest.fixture
def settings(tiny):
    return with_foundation(tiny, corpus="foley")


@pytest.fixture
def trained(settings, tiny_corpus, tiny_models, tiny_paths, tmp_path, monkeypatch):
    """models/foundation of a folder of its own, with the large LDM trained in it; the settings of that training."""
    monkeypatch.setattr(paths, "FOUNDATION", shutil.copytree(tiny_models, tmp_path / "models" / "foundation"))
    for name, place in {"BUNDLED": "bundled", "SCRATCH": "scratch", "MODELS": "models"}.items():
        monkeypatch.setattr(paths, name, tmp_path / place)
    pipeline.make_features("foley", settings)
    history = foundation.make(PART, settings)
    assert len(history) == settings.foundation.ldm.train.steps and not list(paths.SCRATCH.glob("*/*"))
    return settings


def test_a_size_has_the_rest_from_ldm(settings):
    size, small = settings.foundation.section(PART), settings.foundation.section("ldm")
    assert settings.foundation.ldms == ["ldm", PART] and small is settings.foundation.ldm
    assert size.channels == [24, 24, 48, 48] != small.channels
    with pytest.raises(ValueError, match="no part 'xl'; it has: clap, vae, vocoder, ldm, ldm_large"):
        settings.foundation.section("xl")
    assert size.model_copy(update={"channels": small.channels, "head_channels": small.head_channels}) == small


def test_a_size_is_trained_and_says_so(trained):
    made = pipeline.load_unet(paths.FOUNDATION / PART)
    assert made.config.block_out_channels == [24, 24, 48, 48]
    assert foundation.provenance_of(PART)["settings"]["channels"] == [24, 24, 48, 48]
    untrained = pipeline.new_unet(trained, trained.seed, PART)
    assert ldm.parameters(made) == ldm.parameters(untrained) > ldm.parameters(pipeline.new_unet(trained, 0))
    assert ldm.digest(made) != ldm.digest(untrained)


def test_a_size_goes_through_the_bundle(trained, monkeypatch, capsys):
    made = pipeline.load_unet(paths.FOUNDATION / PART)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    foundation.pack()
    assert re.fullmatch(r"ldm_large: packed, \d\.\d MiB\n", capsys.readouterr().out)
    assert sorted(p.name for p in (paths.BUNDLED / PART).iterdir()) == ["history.csv", "provenance.json", "unet"]
    bundled = with_foundation(trained, source="bundled")
    foundation.make(PART, bundled)
    assert ldm.digest(pipeline.load_unet(paths.FOUNDATION / PART)) == ldm.digest(made.half().float())
    foundation.pack()
    assert capsys.readouterr().out == "ldm_large: came from the bundle, left alone\n"
    size = trained.foundation.sizes[PART].model_copy(update={"channels": [24, 24, 24, 48]})
    with pytest.raises(
        ValueError, match=r"foundation.sizes.ldm_large.channels differs from the bundle's \(\[24, 24, 48"
    ):
        foundation.make(PART, with_foundation(bundled, sizes={PART: size}))


def test_a_size_is_taken_from_a_checkpoint_of_the_same_parts(trained, tmp_path):
    source = shutil.copytree(paths.FOUNDATION / PART, tmp_path / "large")
    (source / "history.csv").unlink()
    shutil.copytree(paths.FOUNDATION / "clap", source / "clap")
    size = trained.foundation.sizes[PART].model_copy(update={"checkpoint": str(source)})
    published = with_foundation(trained, source="checkpoint", checkpoint="none", sizes={PART: size})
    before = ldm.digest(pipeline.load_unet(paths.FOUNDATION / PART))
    assert foundation.make(PART, published).empty
    assert ldm.digest(pipeline.load_unet(paths.FOUNDATION / PART)) == before
    file = next((source / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(
        ValueError, match="foundation.sizes.ldm_large.checkpoint: the vae in .* or not the foundation's"
    ):
        foundation.make(PART, published)
    shutil.rmtree(source / "unet")
    with pytest.raises(ValueError, match="foundation.sizes.ldm_large.checkpoint: .*unet is missing; convert"):
        foundation.make(PART, published)


def test_a_variant_starts_from_a_size(trained, tmp_path):
    from foleylib import foley

    choice = trained.foley.variants["large"]
    started = foley.new_model(choice, 0, trained)
    assert ldm.digest(started) == ldm.digest(pipeline.load_unet(paths.FOUNDATION / PART))
    scratch = foley.new_model(choice.model_copy(update={"pretrained": False}), 0, trained)
    assert ldm.parameters(scratch) == ldm.parameters(started)
    tuned = foley.tune(choice, 0, trained, pipeline.load_parts(), scratch=tmp_path / "tune")
    assert tuned.tuning is not None and not torch.equal(tuned.unet.conv_in.weight, started.conv_in.weight)
    keys = {foley.fingerprint(c, trained.foley.common, 0, trained)
            for c in (choice, choice.model_copy(update={"init": "ldm"}), choice.model_copy(update={"pretrained": False}))}  # fmt: skip
    assert len(keys) == 3


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"foundation": {"sizes": {PART: {"channels": [48, 72], "head_channels": 25}}}}, "sizes.ldm_large: channels 48 is no multiple of head_channels 25"),
        ({"foundation": {"sizes": {"vae": {"channels": [48], "head_channels": 24}}}}, "sizes.vae: .* call it ldm_vae"),
        ({"foundation": {"sizes": {"latent_clap": {"channels": [48], "head_channels": 24}}}}, "sizes.latent_clap: "),
        ({"foley": {"variants": {"large": {"tuning": True}}}}, "foley.variants.large.init: missing"),
        ({"foley": {"variants": {"large": {"init": "xl"}}}}, "foley.variants.large.init is 'xl', which is none of: ldm, ldm_large"),
        ({"foundation": {"source": "checkpoint", "checkpoint": "x"}}, "needs 'sizes.ldm_large.checkpoint'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tiny, change, sentence):
    settings = json.loads(tiny.model_dump_json())
    for section, values in change.items():
        for name, value in values.items():
            settings[section][name] = settings[section][name] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=sentence):
        params.parse(settings)
