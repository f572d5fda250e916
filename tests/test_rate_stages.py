"""The stages behind src-gaudio and the combined model, on a tiny corpus at two rates."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from benchmarks import rate_steps
from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.audio.mel import front_end
from foleylib.datasets import features as cached
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.networks import pipeline, rates
from foleylib.networks import vae as vaes
from foleylib.papers import combined, combined_pages, src_gaudio, src_gaudio_pages
from foleylib.runtime import weights_sha256
from foleylib.stages import bundle, finetune, rate_vocoder
from foleylib.stages import rates as stage
from foleylib.stages.retrieval_tuned import Tuned

RATES = [16000, 48000]


@pytest.fixture(scope="module")
def cfg(wide):
    """The project with its pre-trained U-Nets."""
    stage.make(wide)
    return wide


@pytest.fixture(scope="module")
def bench(cfg):
    return src_gaudio.Bench(cfg, 4, "src_gaudio.clips")


@pytest.fixture(scope="module")
def compared(cfg):
    return src_gaudio.compare(cfg)


# Features at several rates


def test_every_clip_has_a_row_at_every_rate(wide):
    manifest = manifests.load(paths.CLIPS / "wide")
    index, arrays = cached.load(paths.FEATURES / "wide")
    assert index.id.tolist() == [id for id in manifest.id for _ in RATES] and arrays["rate"].tolist() == RATES * 20
    assert all(len(values) == 40 for values in arrays.values()) and arrays["moments"].shape[2:] == (16, 16)
    wave = manifests.Waves(paths.CLIPS / "wide", manifest)[[3]]
    for number, rate in enumerate(RATES):
        mel = front_end(rate, "dataset")(at_rate(wave, 48000, rate))
        expected = cached.encode_moments(vaes.load(paths.FOUNDATION / "vae"), mel)
        assert np.allclose(arrays["moments"][2 * 3 + number], expected[0], atol=1e-4)
    assert np.array_equal(arrays["audio"][6], arrays["audio"][7])


def test_a_system_is_told_the_rate_or_not(wide, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(finetune, "fit_unet", lambda model, data, *args, **options: seen.append(data) or pd.DataFrame())
    parts = pipeline.load_parts(paths.FOUNDATION)
    for name in ("full", "no_rate"):
        system = combined.system_of(name, wide).model_copy(update={"init": "ldm", "tuning": False})
        start = rates.load(paths.RE_AUDIOLDM)
        finetune.tune(system, 0, wide, parts, scratch=tmp_path / name, start=start)
    assert "rate" in seen[0].conditions and "rate" not in seen[1].conditions and len(seen[0]) == len(seen[1]) == 16


# Pre-training


def test_a_pass_goes_through_every_clip_at_every_rate(wide):
    manifest = manifests.load(paths.CLIPS / "wide")
    both, low = stage.splits(wide, RATES), stage.splits(wide, RATES[:1])
    assert len(both["train"]) == 2 * len(low["train"]) == 16 and len(both["val"]) == 8
    batch = both["train"][np.arange(16)]
    assert batch["rate"].tolist() == RATES * 8 and set(low["train"][np.arange(8)]["rate"].tolist()) == {16000.0}
    clap = pipeline.load_parts(paths.FOUNDATION, "clap")["clap"]
    third = manifest[manifest.split == "train"].iloc[2]
    own = stage.text_condition(
        [manifests.captions(paths.CLIPS / "wide", manifest[manifest.id == third.id])[0][0]], wide, clap
    )
    for row in (4, 5):  # two rows a clip
        assert torch.allclose(batch["tokens"][row], own.tokens[0], atol=2e-3)
        assert torch.equal(batch["mask"][row], own.mask[0])


def test_every_rate_is_validated_at_every_noise_level(wide):
    rates_of_rows = stage.splits(wide, RATES)["val"].conditions["rate"]
    levels = np.arange(len(rates_of_rows)) % 4  # four clips a rate here, so as many levels
    assert set(zip(rates_of_rows.tolist(), levels.tolist())) == {(rate, level) for rate in RATES for level in range(4)}


def test_both_starts_are_made_and_hear_the_rate(cfg):
    history = bundle.history_of(paths.SRC_GAUDIO)
    assert list(history.start.unique()) == list(stage.STARTS) and len(history) == 8
    weights = {weights_sha256(paths.SRC_GAUDIO / start) for start in stage.STARTS}
    assert len(weights) == 2 and isinstance(rates.load(paths.SRC_GAUDIO / "low"), rates.RateUnet)
    errors = stage.errors_by_rate(cfg)
    assert set(errors.start) == set(stage.STARTS) and set(errors.rate) == set(RATES) and np.isfinite(errors.ddpm).all()
    provenance = bundle.provenance_of(paths.SRC_GAUDIO)
    assert provenance["settings"]["place"] == "time" and provenance["corpus"]["rate"] == 48000


def test_the_least_validation_loss_is_what_stays(cfg, tmp_path):
    from foleylib.diffusion.loss import held_out_loss
    from foleylib.stages.ldm import alphas_bar
    from foleylib.train import Job

    data = stage.splits(cfg, RATES)
    train = cfg.src_gaudio.pretrained.train.changed(steps=8, lr=0.2, validate_every=1, schedule="constant", warmup=0)
    unet = stage.new_unet(cfg)
    history = stage.fit(unet, data, cfg.src_gaudio.pretrained, train, cfg, Job(0, tmp_path / "job"))
    left = held_out_loss(unet, data["val"], alphas_bar(cfg))["ddpm"]
    assert history.val_ddpm.idxmin() < 7  # such a learning rate makes it worse
    assert left == pytest.approx(history.val_ddpm.min(), rel=1e-5)


def test_tokens_of_another_width_are_refused(cfg, monkeypatch):
    own = stage.channels(cfg.src_gaudio.corpus)
    monkeypatch.setattr(stage.bundle, "make", lambda *args: pd.DataFrame())
    monkeypatch.setattr(stage, "channels", lambda corpus: own + 1)
    with pytest.raises(ValueError, match=f"reads text tokens of {own} channels, those of corpora.wide have {own + 1}"):
        stage.make(cfg)


# Vocoders


def test_a_vocoder_of_another_rate(wide):
    rate_vocoder.make("16khz", wide)
    assert weights_sha256(paths.vocoder_of("16khz")) == weights_sha256(paths.FOUNDATION / "vocoder")
    history = rate_vocoder.make("48khz", wide)
    own = rate_vocoder.section("48khz", wide)
    assert own.segment == 9600 and own.rate == 48000 and len(history) == own.train.steps
    sounds, labels, table = rate_vocoder.compare("48khz", wide)
    assert len(labels) == 8 and {sound.shape for sound in sounds.values()} == {(8, 30720)}
    assert list(table.index) == ["HiFi-GAN", "Griffin-Lim", "HiFi-GAN, through the VAE", "Griffin-Lim, through the VAE"]
    assert table.loc["Griffin-Lim", "mel"] < table.loc["HiFi-GAN", "mel"]  # which knows six steps
    written = pd.read_csv(paths.RESULTS / "vocoders" / "48khz.csv")
    assert set(written.rate) == {48000} and len(written) == 4
    with pytest.raises(ValueError, match="src_gaudio.vocoders has no '22khz'; it has: 16khz, 48khz"):
        rate_vocoder.section("22khz", wide)


def test_what_fits_of_the_foundations_vocoder_is_taken_over(wide):
    settings = rate_vocoder.section("48khz", wide)
    foundation = pipeline.load_parts(paths.FOUNDATION, "vocoder")["vocoder"]
    begun, given = rate_vocoder.started(settings, foundation, 0).state_dict(), foundation.state_dict()
    assert torch.equal(begun["conv_pre.weight"], given["conv_pre.weight"])
    assert begun["upsampler.0.weight"].shape != given["upsampler.0.weight"].shape


# The experiments of src-gaudio


def test_real_clips_score_as_real_clips(bench):
    for rate in RATES:
        value = bench.score(bench.real[rate], rate).set_index("metric").value
        assert (
            value.kl_pairs.iloc[0] if hasattr(value.kl_pairs, "iloc") else value.kl_pairs == pytest.approx(0, abs=1e-5)
        )
        assert value.rolloff_error == 0 and 0 < value.rolloff <= rate / 2000
        silent = bench.score(0 * bench.real[rate], rate).set_index("metric").value
        assert silent.rolloff == 0 and silent.rolloff_error == pytest.approx(value.rolloff)
    assert len(bench.others[16000]) == 4 and len(bench.manifest) == 4


def test_one_recording_at_two_rates_is_the_same_event(bench):
    swap = bench.same_event(bench.real).set_index(["kind", "metric"]).value
    assert swap["same", "same_event_envelope"] > 0.95 > swap["other", "same_event_envelope"]
    assert swap["same", "same_event_clap"] >= swap["other", "same_event_clap"]
    assert src_gaudio._other_of_class(np.array(["a", "b", "a", "a", "b"])).tolist() == [2, 4, 3, 0, 1]


def test_models_and_rates_share_their_noise(cfg, bench, monkeypatch):
    seen, latents = [], src_gaudio.sample

    def noted(pipeline, condition, unconditional, shape, *, seeds, options):
        seen.append((shape, seeds))
        return latents(pipeline, condition, unconditional, shape, seeds=seeds, options=options)

    monkeypatch.setattr(src_gaudio, "sample", noted)
    unet, text = rates.load(paths.SRC_GAUDIO / "joint"), stage.text_condition(["rain"] * 4, cfg, bench.embedders.clap)
    nothing = stage.text_condition([""], cfg, bench.embedders.clap)
    for rate, seed in ((16000, 0), (48000, 0), (48000, 1)):
        told = src_gaudio.Condition(**text.given(), rate=torch.full((4,), float(rate)))
        waves = bench.draw(unet, told, nothing, rate=rate, seed=seed)
        assert waves.shape == (4, round(0.64 * rate)) and np.isfinite(waves).all() and np.abs(waves).max() <= 1
    assert seen[0] == seen[1] and seen[1][0] == seen[2][0] and not set(seen[1][1]) & set(seen[2][1])


def test_every_regime_rate_and_seed_is_scored(cfg, compared):
    scores = compared["scores"]
    asked = {(name, rate, seed) for name in src_gaudio.REGIMES for rate in RATES for seed in (0, 1)}
    asked |= {(name, rate, 0) for name in ("real", "codec") for rate in RATES}
    assert set(scores[["model", "rate", "seed"]].itertuples(index=False, name=None)) == asked
    assert {"fd", "kl_pairs", "is", "fad", "clap_score", "judge_accuracy", "rolloff"} <= set(scores.metric)
    assert set(compared["bands"].label) == {"DogBark", "Rain"} and np.isfinite(scores.value).all()
    manifest, waves = samples.load(paths.EXAMPLES / "src_gaudio" / "per_rate_48000")
    assert len(manifest) == 4 and waves.shape[1] == 30720 and not (paths.SCRATCH / "src_gaudio").exists()


def test_a_rate_of_its_own_has_its_share_of_the_steps(cfg, tmp_path):
    train = cfg.src_gaudio.train.changed(steps=8, warmup=4, validate_every=5)
    settings = cfg.changed(src_gaudio=cfg.src_gaudio.changed(train=train))
    shared, single = (src_gaudio.Model(name, 0, settings, tmp_path) for name in ("joint_low", "per_rate"))
    assert shared.train == train
    assert (single.train.steps, single.train.warmup, single.train.validate_every) == (4, 2, 3)
    assert shared.key(16000) == shared.key(48000) and single.key(16000) != single.key(48000)
    assert src_gaudio.Model("joint", 0, settings, tmp_path).key(16000) != shared.key(16000)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_end(cfg, compared, monkeypatch):
    made, draw = [], src_gaudio.Bench.draw

    def killed(self, *args, **options):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(options["rate"])
        return draw(self, *args, **options)

    monkeypatch.setattr(src_gaudio.Bench, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        src_gaudio.compare(cfg)
    monkeypatch.setattr(src_gaudio.Bench, "draw", lambda self, *a, **o: made.append(o["rate"]) or draw(self, *a, **o))
    again = src_gaudio.compare(cfg)
    assert len(made) == 12  # each once
    assert all(again[name].equals(compared[name]) for name in compared)


def test_pages_of_src_gaudio(compared):
    scores, pages = compared["scores"], src_gaudio_pages
    differences = pages.differences(scores, pages.PAIRS)
    by_hand = (
        pages.over_rates(scores)
        .query("metric == 'fd' and embedder == 'judge'")
        .pivot(index="seed", columns="model", values="value")
    )
    row = differences[(differences.run == "joint_low") & (differences.minus == "joint") & (differences.metric == "fd")]
    assert row["mean"].iloc[0] == pytest.approx((by_hand.joint_low - by_hand.joint).mean())
    table = pages.by_rate(scores, pages.PAIRS, pages.DISPLAY)
    assert len(table) == 4 and "FD" in table and "Roll-off (kHz)" not in table
    assert pages.swap_table(compared["swap"]).shape == (5, 4)
    assert pages.bands_table(compared["bands"], "joint_low").shape == (2, 6)
    nameless = compared["bands"].assign(label=np.nan)
    assert list(pages.bands_table(nameless, "joint_low").index) == ["all"]
    told = pages.sentence_on_rates(scores, "joint_low")
    assert "16 kHz" in told and "recognised" in told
    without = pages.sentence_on_rates(scores[scores.metric != "judge_accuracy"], "joint_low")
    assert "48 kHz" in without and "recognised" not in without
    said = pages.sentence_on_swap(compared["swap"], "joint_low")
    assert "another clip of the class" in said and "nan" not in said
    clips = pages.panel("src_gaudio", ["joint_low"], RATES, 2)
    assert len(clips) == 4 and {wave.shape for wave in clips.values()} == {(30720,)}


# All in one


def test_every_part_can_be_left_out(cfg):
    told = {name: combined.system_of(name, cfg) for name in combined.LEFT_OUT}
    parts = {name: (own.tuning, own.loss.lclap > 0, own.retrieval is not None, own.rates) for name, own in told.items()}
    assert parts["full"] == (True,) * 4 and parts["none"] == (False,) * 4
    alone = [parts[name] for name in ("no_tuning", "no_lclap", "no_retrieval", "no_rate")]
    assert alone == [tuple(i != j for j in range(4)) for i in range(4)]


def test_the_combined_model_is_trained_scored_and_kept(cfg):
    scores = combined.compare(cfg)
    asked = {(name, rate, seed) for name in combined.LEFT_OUT for rate in (48000,) for seed in (0, 1)}
    asked |= {(name, rate, 0) for name in ("real", "codec") for rate in (48000,)}
    assert set(scores[["model", "rate", "seed"]].itertuples(index=False, name=None)) == asked
    assert np.isfinite(scores.value).all() and (paths.EXAMPLES / "combined" / "full_48000").is_dir()
    differences = src_gaudio_pages.differences(scores, combined_pages.PAIRS)
    assert set(zip(differences.run, differences.minus)) == set(combined_pages.PAIRS)


def test_the_encoder_is_heard_at_every_rate(cfg):
    agreement = combined.encoder_agreement(cfg)
    assert list(agreement.index) == RATES and (agreement.abs() <= 1).all()


def test_steps_are_compared_on_validation_clips(cfg, tmp_path, capsys):
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False))
    cases = ["dpm++:2:log_snr", "ddim:3:1:3"]
    file = rate_steps.main(["--params", str(params), "--cases", *cases, "--clips", "2", "--out", str(tmp_path)])
    table = pd.read_csv(file)
    assert list(table.case) == ["dpm++:2:log_snr"] * 2 + ["ddim:3:1:3"] * 2 and set(table.rate) == set(RATES)
    assert np.isfinite(table[list(rate_steps.JUDGED)]).all(axis=None) and (table.seconds_per_clip > 0).all()


def test_a_combined_model_loses_nothing_on_disk(cfg, tmp_path):
    model = Tuned("full", combined.system_of("full", cfg), 0, cfg.combined, cfg, tmp_path)
    unet = model.unet
    again = rates.load(tmp_path / f"{model.key}-model")
    assert isinstance(again, rates.RateUnet) and rates.bare(again) is not again
    state, other = unet.state_dict(), again.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)
    shutil.rmtree(tmp_path / f"{model.key}-model")
