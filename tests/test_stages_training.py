"""Training code of the stages: losses and terms, augmentations, segments, trainings that overfit a batch."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib.audio.mel import FRONT_ENDS, LogMel, front_end
from foleylib.datasets.features import sample_latents
from foleylib.networks import judge as judges
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.networks.discriminators import Discriminators
from foleylib.params.base import Train
from foleylib.stages import clap, judge, vae, vocoder
from foleylib.train import Job

CAPTIONS = ["a dog barks twice", "rain on a tin roof", "the sound of rain", "someone typing, fast"]
LABELS = ("low", "high", "noise")
NARROW = {"width": 1 / 64, "periods": (2, 3), "scales": 2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def sines(frequencies, samples):
    """A clip for each frequency in Hz, at 16 kHz [shape=(N, samples)]."""
    return 0.3 * torch.sin(2 * torch.pi * torch.as_tensor(frequencies)[:, None] * torch.arange(samples) / 16000)


def tones(count):
    return sines([250 * (i + 1) ** 1.3 for i in range(count)], 5120)


# CLAP


def test_contrastive_loss_of_distinct_groups_is_claps(tiny_parts):
    model, waves = tiny_parts.clap, tones(4)
    term = clap.contrastive_terms(model, waves, CAPTIONS, torch.arange(4))["contrastive"]
    audio, text = model.embed_audio(waves).double().numpy(), model.embed_text(CAPTIONS).double().numpy()
    scales = [float(s.detach().exp()) for s in (model.model.logit_scale_a, model.model.logit_scale_t)]
    losses = []
    for scale, similarity in zip(scales, (audio @ text.T, text @ audio.T)):
        logits = scale * similarity
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))
    assert term.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_contrastive_loss_of_one_group_is_least_where_all_agree(tiny_parts):
    same = torch.zeros(3, dtype=torch.long)
    loss = clap.contrastive_terms(tiny_parts.clap, tones(1).repeat(3, 1), CAPTIONS[:1] * 3, same)["contrastive"]
    assert loss.item() == pytest.approx(np.log(3), rel=1e-4)
    different = clap.contrastive_terms(tiny_parts.clap, tones(3), CAPTIONS[:3], same)["contrastive"]
    assert different > loss + 1e-4


def test_clap_overfits_a_batch(tiny, tmp_path):
    steps = Train(steps=60, batch_size=4, lr=3e-3, warmup=5, validate_every=60, ema_decay=0.0)
    section, waves = tiny.foundation.clap.changed(train=steps.model_dump()), tones(4)
    prompts = ["low tone", "dog", "bright rain", "a whistle, high"]

    def validate(model):
        audio, text = model.embed_audio(waves), model.embed_text(prompts)
        return {"zero_shot": clap.retrieval_accuracy(audio, text, torch.arange(4))}

    job = Job(0, tmp_path, device="cpu")
    model, history = clap.fit_clap(section, waves, prompts, torch.arange(4), job, validate=validate)
    assert history.contrastive.iloc[-5:].mean() < 0.5 * history.contrastive.iloc[:3].mean()
    assert history.val_zero_shot.iloc[-1] == 1.0 and not model.training


def test_retrieval_accuracy():
    audio, text = torch.eye(4), torch.eye(4)[:3]
    assert clap.retrieval_accuracy(audio[:3], text, torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


# VAE


def test_vae_terms_in_closed_form():
    model, mels = vaes.build([8, 8], 1, 2, 8, seed=0).eval(), noise(3, 1, 8, 8)
    with torch.no_grad():
        terms = vae.vae_terms(model, mels, seeded(1))
        mean, log_variance = model.encode(mels).latent_dist.parameters.chunk(2, 1)
        decoded = model.decode(mean + (log_variance / 2).exp() * noise(*mean.shape, seed=1)).sample
    assert torch.allclose(terms["l1"], (decoded - mels).abs().mean(), rtol=1e-4)
    assert torch.allclose(terms["l2"], (decoded - mels).pow(2).mean(), rtol=1e-4)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    assert torch.allclose(terms["kl"], divergence.mean(), rtol=1e-4) and terms.keys() == {"l1", "l2", "kl"}


def test_vae_overfits_a_batch(tiny, tmp_path):
    changes = {"steps": 25, "batch_size": 4, "warmup": 5, "lr": 4e-3, "validate_every": 25, "checkpoint_every": 1000}
    section = tiny.foundation.vae
    section = section.changed(channels=[8, 16], train=section.train.model_dump() | changes)
    log_mel, waves = front_end(16000, "dataset"), sines([300, 600, 900, 1200], 5120)
    held = log_mel(waves)
    model, history = vae.fit_vae(section, waves, log_mel, Job(0, tmp_path, "cpu"), held_out=held)
    assert {"l1", "l2", "kl", "val_l1"} <= set(history.columns)
    assert history.l1.iloc[-1] < 0.7 * history.l1.iloc[0]
    error = vae.reconstruction_error(model, held, batch_size=3)["l1"]
    assert history.val_l1.dropna().iloc[-1] == pytest.approx(error, rel=1e-4)


def test_scale_brings_latents_to_unit_variance():
    mean = 3 + 2 * noise(50, 4, 8, 8)
    moments = torch.cat([mean, torch.full_like(mean, 2 * torch.tensor(1.5).log())], 1)
    scale = vae.measure_scale(moments, seeded(1))
    assert scale == pytest.approx(1 / 2.5, rel=0.02)  # variances add: 2^2 + 1.5^2
    assert float(sample_latents(moments, scale, seeded(1)).std()) == pytest.approx(1, abs=1e-5)


# Vocoder


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_segments_are_aligned(batch, frames, count, seed):
    hop, draw = 5, seeded(seed)
    mels = torch.arange(frames).float().expand(batch, frames)[..., None] + 100 * torch.arange(batch)[:, None, None]
    waves = mels[..., 0].repeat_interleave(hop, dim=1)
    if count > frames:
        with pytest.raises(ValueError, match="longer"):
            vocoder.random_segments(waves, mels, count * hop, hop, draw)
        return
    wave, mel = vocoder.random_segments(waves, mels, count * hop, hop, draw)
    assert wave.shape == (batch, count * hop) and mel.shape == (batch, count, 1)
    assert torch.equal(wave, mel[..., 0].repeat_interleave(hop, dim=1))
    again, _ = vocoder.random_segments(waves, mels, count * hop, hop, seeded(seed))
    assert torch.equal(wave, again)


@pytest.mark.parametrize("segment", [500, 0, -160])
def test_segment_must_be_whole_frames(segment):
    with pytest.raises(ValueError, match="multiple of hop=160"):
        vocoder.random_segments(noise(1, 1600), noise(1, 10, 64), segment, 160, seeded())


def test_segments_reach_both_ends():
    draw, starts = seeded(), set()
    for _ in range(60):
        starts.add(int(vocoder.random_segments(torch.arange(10)[None], torch.zeros(1, 5, 1), 4, 2, draw)[0][0, 0]))
    assert starts == {0, 2, 4, 6}


def test_vocoder_terms_in_closed_form():
    class Fixed(torch.nn.Module):
        def forward(self, waves):
            return [(waves, [waves, 2 * waves]), (3 * waves, [waves])]

    real, fake = torch.ones(2, 4), torch.full((2, 4), 0.5)
    of_discriminators = vocoder.discriminator_terms(Fixed(), real, fake)
    assert of_discriminators["real"].item() == pytest.approx(0 + 4)
    assert of_discriminators["fake"].item() == pytest.approx(0.25 + 2.25)
    of_generator = vocoder.generator_terms(Fixed(), lambda waves: 3 * waves, real, fake)
    assert of_generator["adversarial"].item() == pytest.approx(0.25 + 0.25)
    assert of_generator["feature_matching"].item() == pytest.approx(0.5 + 1 + 0.5)
    assert of_generator["mel"].item() == pytest.approx(1.5)
    assert of_generator.keys() == vocoder.GENERATOR_WEIGHTS.keys()
    assert of_discriminators.keys() == vocoder.DISCRIMINATOR_WEIGHTS.keys()
    assert vocoder.generator_terms(None, lambda waves: waves, real, fake).keys() == {"mel"}


def test_terms_reach_only_whom_they_train():
    discriminators, fake = Discriminators(**NARROW), noise(1, 1600, seed=1).requires_grad_()
    sum(vocoder.discriminator_terms(discriminators, noise(1, 1600), fake).values()).backward()
    assert fake.grad is None and all(p.grad is not None for p in discriminators.parameters())
    log_mel = LogMel(FRONT_ENDS[16000])
    sum(vocoder.generator_terms(discriminators, log_mel, noise(1, 1600), fake).values()).backward()
    assert torch.isfinite(fake.grad).all() and fake.grad.abs().sum() > 0


def test_vocoder_overfits_a_batch(tiny, tmp_path, monkeypatch):
    """First on the mel loss alone, then against the discriminators too, on segments that both sides share."""
    steps = Train(steps=40, batch_size=2, lr=4e-3, betas=(0.8, 0.99), warmup=0, clip_norm=1e3, ema_decay=0.0)
    section = tiny.foundation.vocoder.changed(
        channels=32,
        discriminator_width=NARROW["width"],
        periods=NARROW["periods"],
        scales=NARROW["scales"],
        segment=1600,
        adversarial_from=10,
        train=steps.model_dump(),
    )
    waves, segments, draw = sines([440.0, 900.0], 1600), [], vocoder.random_segments
    monkeypatch.setattr(vocoder, "random_segments", lambda *a: segments.append(1) or draw(*a))
    log_mel = LogMel(FRONT_ENDS[16000])
    model, history = vocoder.fit_vocoder(section, waves, log_mel, Job(0, tmp_path, "cpu"), held_out=waves)
    assert len(segments) == 40
    for name in ("real", "fake", "adversarial", "feature_matching"):
        assert history[name].isna().tolist() == [True] * 10 + [False] * 30
    discriminators = (history.real + history.fake).to_numpy()
    assert history.mel.iloc[-5:].mean() < 0.5 * history.mel.iloc[0], history.mel.tolist()
    assert discriminators[-5:].mean() < 0.9 * discriminators[10], discriminators.tolist()

    # What is returned is without weight norm, and is the network that was scored.
    assert not model.training and "conv_pre.weight" in model.state_dict()
    assert history.val_mel.iloc[-1] == pytest.approx(vocoder.mel_error(model, waves, log_mel, batch_size=1), rel=1e-4)
    assert vocoders.generator(model.config).state_dict().keys() == model.state_dict().keys()


# Judge


def test_judge_terms_are_drawn_from_the_generator_and_can_be_learned():
    model = judges.build(LABELS, rate=16000, widths=(4, 8, 8), embedding_dim=8, seed=0).train()
    targets = torch.tensor([0, 1, 2] * 3)
    hiss = 0.3 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    clips = torch.cat([sines([200.0, 3000.0], 8000), torch.from_numpy(hiss)[None]]).repeat(3, 1)
    first, again, other = (
        judge.judge_terms(model, clips, targets, generator=seeded(s))["cross_entropy"] for s in (1, 1, 2)
    )
    assert first == again != other
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(20):
        loss = judge.judge_terms(model, clips, targets, generator=seeded(step), mixup_alpha=0.0)["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5 * first


def test_gain_and_shift():
    clips = noise(8, 4000)
    moved = judge.gain_and_shift(clips, generator=seeded(), gain_db=6.0)
    gains = moved.abs().amax(dim=1) / clips.abs().amax(dim=1)
    assert gains.min() >= 0.501 and gains.max() <= 1.996 and gains.std() > 0.1
    assert torch.allclose(moved.sort().values, (clips * gains[:, None]).sort().values, atol=1e-6)
    assert not torch.allclose(moved, clips * gains[:, None], atol=0.1)


def test_spec_augment():
    masked = judge.spec_augment(torch.ones(8, 1, 100, 64), generator=seeded(), stripes=1, time=0.1, frequency=0.1)
    columns, rows = masked.sum(dim=3)[:, 0], masked.sum(dim=2)[:, 0]
    assert ((columns == 0).sum(dim=1) <= 10).all() and ((rows == 0).sum(dim=1) <= 6).all()
    assert (columns == 0).any() and (rows == 0).any() and ((masked == 0) | (masked == 1)).all()
    unmasked = judge.spec_augment(torch.ones(8, 1, 100, 64), generator=seeded(), stripes=0)
    assert (unmasked == 1).all()


def test_mixup():
    targets = torch.eye(8)
    features, mixed = judge.mixup(targets, targets, generator=seeded(), alpha=1.0)
    assert torch.equal(features, mixed) and torch.allclose(mixed.sum(dim=1), torch.ones(8)) and (mixed < 1).any()
    assert judge.mixup(targets, 2 * targets, generator=seeded(), alpha=0)[1].equal(2 * targets)
    with pytest.raises(ValueError, match="alpha"):
        judge.mixup(targets, targets, generator=seeded(), alpha=-1)


def test_judge_learns_two_classes(tiny, tmp_path):
    steps = Train(steps=60, batch_size=16, lr=5e-3, warmup=5, validate_every=30, ema_decay=0.9)
    section, rng = tiny.judge.changed(train=steps.model_dump(), mixup_alpha=0.0), np.random.default_rng(0)
    clips = sines(np.concatenate([rng.uniform(200, 500, 8), rng.uniform(2000, 5000, 8)]), 8000).float()
    targets = torch.tensor([0] * 8 + [1] * 8)
    job, held = Job(0, tmp_path / "scratch", "cpu"), (clips[::2], targets[::2])
    model, history = judge.fit_judge(section, clips, targets, ["low", "high"], 16000, job, held_out=held)
    assert history.cross_entropy.iloc[-5:].mean() < 0.5 * history.cross_entropy.iloc[:5].mean()
    assert history.val_accuracy.iloc[-1] == 1.0 and not model.training
    model.save_pretrained(tmp_path / "judge")
    embedder = judges.load(tmp_path / "judge")
    assert embedder.model.labels == ("low", "high")
    assert np.array_equal(embedder.embed(clips.numpy())["logits"].argmax(1), targets)


def test_a_judge_of_a_corpus_without_validation_clips_is_trained(tiny, tiny_corpus, tiny_paths, monkeypatch):
    given, load = {}, judge.manifests.load
    monkeypatch.setattr(judge.manifests, "load", lambda folder: load(folder).query("split != 'val'"))
    history = pd.DataFrame({"cross_entropy": [1.0]})
    model = judges.build(LABELS, rate=16000, widths=(4,), embedding_dim=2, seed=0)
    monkeypatch.setattr(judge, "fit_judge", lambda *args, **options: given.update(options) or (model, history))
    assert judge.make(tiny).equals(history) and given["held_out"] is None
    shutil.rmtree(tiny_paths.JUDGE)
