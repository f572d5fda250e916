"""Training code of the stages: losses and terms, augmentations, segments, trainings that overfit a batch."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib.audio.augment import spec_augment
from foleylib.audio.mel import FRONT_ENDS, LogMel, front_end
from foleylib.audio.stft import StftDistance
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
    term = clap.contrastive_terms(model, waves, CAPTIONS, torch.eye(4, dtype=bool))["contrastive"]
    audio, text = model.embed_audio(waves).double().numpy(), model.embed_text(CAPTIONS).double().numpy()
    scales = [float(s.detach().exp()) for s in (model.model.logit_scale_a, model.model.logit_scale_t)]
    losses = []
    for scale, similarity in zip(scales, (audio @ text.T, text @ audio.T)):
        logits = scale * similarity
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))
    assert term.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_contrastive_loss_of_one_group_is_least_where_all_agree(tiny_parts):
    same = torch.ones(3, 3, dtype=bool)
    loss = clap.contrastive_terms(tiny_parts.clap, tones(1).repeat(3, 1), CAPTIONS[:1] * 3, same)["contrastive"]
    assert loss.item() == pytest.approx(np.log(3), rel=1e-4)
    different = clap.contrastive_terms(tiny_parts.clap, tones(3), CAPTIONS[:3], same)["contrastive"]
    assert different > loss + 1e-4


def test_clap_overfits_a_batch(tiny, tmp_path):
    steps = Train(steps=60, batch_size=4, lr=3e-3, warmup=5, validate_every=60, ema_decay=0.0)
    section, waves = (
        tiny.foundation.clap.changed(train=steps.model_dump(), classmates=1, microphone_share=0.0),
        tones(4),
    )
    prompts = ["low tone", "dog", "bright rain", "a whistle, high"]

    def validate(model):
        audio, text = model.embed_audio(waves), model.embed_text(prompts)
        return {"zero_shot": clap.retrieval_accuracy(audio, text, torch.arange(4))}

    texts = pd.DataFrame(
        {"captions": [[f"{text}, far away"] for text in prompts], "prompt": prompts, "target": range(4)}
    )
    model, history = clap.fit_clap(section, waves, texts, Job(0, tmp_path, device="cpu"), rate=16000, validate=validate)
    assert history.contrastive.iloc[-5:].mean() < 0.5 * history.contrastive.iloc[:3].mean()
    assert history.val_zero_shot.iloc[-1] == 1.0 and not model.training


def test_a_clap_of_48_khz_hears_the_clips_of_a_16_khz_corpus_at_their_pitch(tiny, tmp_path, monkeypatch):
    """Published CLAPs hear 48 kHz: a tone of 1 kHz of the corpus stays one, and nothing comes above 8 kHz."""
    audio = tiny.foundation.clap.audio.changed(rate=48000, hop=480, fmax=14000)
    steps = Train(steps=1, batch_size=2, lr=1e-3, warmup=1, validate_every=1)
    section = tiny.foundation.clap.changed(
        train=steps.model_dump(), classmates=1, microphone_share=0.0, audio=audio.model_dump()
    )
    heard, terms = [], clap.contrastive_terms
    monkeypatch.setattr(
        clap, "contrastive_terms", lambda module, waves, *more: heard.append(waves) or terms(module, waves, *more)
    )
    texts = pd.DataFrame({"captions": [["low"], ["high"]], "prompt": ["low", "high"], "target": [0, 1]})
    waves = sines([1000.0, 1000.0], 5120)
    model, _ = clap.fit_clap(section, waves, texts, Job(0, tmp_path, device="cpu"), rate=16000)
    assert model.rate == 48000 and heard[0].shape == (2, 15360)
    spectrum = torch.fft.rfft(heard[0]).abs()[0]
    assert (
        spectrum.argmax() == 1000 * 15360 // 48000 and spectrum[9000 * 15360 // 48000 :].max() < 1e-2 * spectrum.max()
    )


def test_which_texts_are_true_of_which_clips():
    """Two dogs with different captions, a third with the words of the first, and a bell; prompts are true of a class."""
    captions, first = torch.tensor([[0], [1], [0], [2]]), torch.zeros(4, dtype=int)
    prompts = torch.tensor([0, 0, 0, 1])
    own = [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert clap.described(captions, first, prompts, torch.zeros(4, dtype=bool)).int().tolist() == own
    plain = clap.described(captions, first, prompts, torch.tensor([True, False, False, False])).int()
    assert plain[:, 0].tolist() == [1, 1, 1, 0] and plain[:, 1:].tolist() == [row[1:] for row in own]


def test_a_caption_is_true_of_every_clip_that_has_it_among_its_own():
    """Clips of several captions: the first twice, with two of its captions; a second that shares one; and a third."""
    said = pd.Series([["a dog", "it barks", "woof"], ["a dog", "it barks", "woof"], ["barking", "it barks"], ["rain"]])
    captions = clap.numbered(said)
    assert captions.tolist() == [[0, 1, 2], [0, 1, 2], [3, 1, -1], [4, -1, -1]]
    chosen, nothing = torch.tensor([1, 2, 0, 0]), torch.zeros(4, dtype=int)
    same = clap.described(captions, chosen, nothing, torch.zeros(4, dtype=bool)).int().tolist()
    assert same == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_captions_are_drawn_evenly_and_only_where_there_are_several():
    captions = torch.tensor([[0, 1, 2], [3, 4, -1], [5, -1, -1]]).repeat(2000, 1)
    draw = clap.drawn_captions(captions, torch.Generator().manual_seed(1)).view(2000, 3)
    assert torch.equal(draw, clap.drawn_captions(captions, torch.Generator().manual_seed(1)).view(2000, 3))
    for clip, count in enumerate((3, 2, 1)):
        shares = torch.bincount(draw[:, clip], minlength=3) / 2000
        assert shares.tolist() == pytest.approx([1 / count] * count + [0] * (3 - count), abs=0.05)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert not clap.drawn_captions(captions[:, :1], generator).any() and torch.equal(generator.get_state(), before)


def test_clap_without_classes_comes_with_captions_alone(tiny, tmp_path, monkeypatch):
    """No prompt is said, no groups of one clip, and over the steps every caption of every clip comes."""
    steps = Train(steps=24, batch_size=8, lr=1e-3, warmup=1, validate_every=24, ema_decay=0.0)
    section = tiny.foundation.clap.changed(train=steps.model_dump(), prompt_share=1.0, classmates=4)
    said = [[f"tone {clip} said {way}" for way in "abc"] for clip in range(8)]
    texts = pd.DataFrame({"captions": said, "prompt": ["no caption"] * 8, "target": [-1] * 8})
    heard, terms = [], clap.contrastive_terms
    monkeypatch.setattr(clap, "contrastive_terms", lambda *given: heard.append(given[2]) or terms(*given))
    clap.fit_clap(section, tones(8), texts, Job(0, tmp_path / "one", device="cpu"), rate=16000)
    assert all(sorted(text[5] for text in step) == list("01234567") for step in heard)
    assert {text for step in heard for text in step} == {text for own in said for text in own}
    first, heard[:] = list(heard), []
    clap.fit_clap(section, tones(8), texts, Job(0, tmp_path / "two", device="cpu"), rate=16000)
    assert heard == first


def test_half_of_a_step_comes_in_groups_of_a_class():
    classes = np.repeat(["dog", "rain", "bell", ""], [40, 40, 40, 3])
    members = {name: np.flatnonzero(classes == name) for name in set(classes)}
    drawn = np.random.default_rng(0).permutation(len(classes))[:32]
    before, step = drawn.copy(), clap.with_classmates(drawn, classes, members, size=4)
    assert step.shape == (32,) and (step[:16] == drawn[:16]).all() and (drawn == before).all()
    for group, leader in zip(step[16:].reshape(-1, 4), drawn[16::4]):
        assert group[0] == leader and len(set(classes[group])) == 1
        assert len(set(group)) == (4 if classes[leader] else len(set(group))) and leader not in group[1:]
    assert (clap.with_classmates(drawn, classes, members, size=4) == step).all()
    assert (clap.with_classmates(drawn, classes, members, size=1) == drawn).all()
    alone = clap.with_classmates(
        np.arange(4), np.array(list("abcd")), {c: np.array([i]) for i, c in enumerate("abcd")}, size=2
    )
    assert alone.tolist() == [0, 1, 2, 2]  # a class of one clip is drawn again


def test_uniformity_in_closed_form():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)  # squared distances 2, 2 and 4
    assert clap.uniformity(x).item() == pytest.approx(expected, rel=1e-5)
    assert clap.uniformity(x[[0, 0]]).item() == pytest.approx(0, abs=1e-6)
    apart = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert clap.uniformity(x, apart).item() == pytest.approx(-4, rel=1e-5)
    nothing = clap.uniformity(x.requires_grad_(), torch.zeros(3, 3, dtype=bool))
    assert nothing == 0
    clap.uniformity(x).backward()
    assert torch.isfinite(x.grad).all()


def test_retrieval_of_a_clip_by_its_own_caption():
    audio, targets = torch.eye(4), torch.tensor([0, 0, 0, 1])
    assert clap.retrieval_within(audio, audio, targets) == pytest.approx({"first": 1.0, "chance": (3 / 3 + 1) / 4})
    swapped = clap.retrieval_within(audio, audio[[1, 0, 2, 3]], targets)
    assert swapped["first"] == 0.5
    assert clap.retrieval_within(audio[[0, 0, 0, 3]], audio[[0, 0, 0, 3]], targets)["first"] == 0.5  # all clips alike


def test_prompts_nearer_to_another_class_are_found():
    audio, targets = torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 2])
    assert clap.prompts_near_their_own(audio, torch.eye(3), targets).tolist() == [0, 1, 2]
    assert clap.prompts_near_their_own(audio, torch.eye(3)[[0, 2, 2]], targets).tolist() == [0, 2, 2]


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
    sets = [vae.Mels(waves, log_mel)]
    model, history = vae.fit_vae(section, sets, Job(0, tmp_path, "cpu"), held_out={"": held})
    assert {"l1", "l2", "kl", "val_l1"} <= set(history.columns)
    assert history.l1.iloc[-1] < 0.7 * history.l1.iloc[0]
    error = vae.reconstruction_error(model, held, batch_size=3)["l1"]
    assert history.val_l1.dropna().iloc[-1] == pytest.approx(error, rel=1e-4)


def test_a_vae_learns_the_mels_of_several_rates(tiny, tmp_path):
    waves = {rate: noise(6, round(0.32 * rate), seed=rate) for rate in (16000, 48000)}
    seen = []
    sets = [vae.Mels(waves[16000], front_end(16000, "dataset"))]
    sets += [vae.Mels(waves[48000], front_end(rate, "dataset"), 48000) for rate in (24000, 48000)]
    for own in sets:
        own.log_mel.register_forward_hook(lambda module, args, mels: seen.append((module.config.rate, mels.shape)))
    section = tiny.foundation.vae.changed(channels=[8, 8], train=Train(steps=6, batch_size=9, lr=1e-3).model_dump())
    held = {"_24000": sets[1].first(4)}
    assert held["_24000"].shape == (4, 1, 32, 64)
    del seen[:]
    _, history = vae.fit_vae(section, sets, Job(0, tmp_path, "cpu"), held_out=held)
    assert {rate for rate, _ in seen} == {16000, 24000, 48000} and {shape[1:] for _, shape in seen} == {(1, 32, 64)}
    clips = {rate: sum(shape[0] for own, shape in seen if own == rate) for rate in (16000, 24000, 48000)}
    assert clips == {16000: 18 + 6, 24000: 18, 48000: 18}  # three epochs of 18 clips; 6 more set the first bias
    assert history.val_l1_24000.notna().sum() == 1


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
    distances = vocoder.Distances(lambda waves: 3 * waves, lambda a, b: (a - b).square().sum(dim=1))
    of_generator = vocoder.generator_terms(Fixed(), distances, real, fake)
    assert of_generator["adversarial"].item() == pytest.approx(0.25 + 0.25)
    assert of_generator["feature_matching"].item() == pytest.approx(0.5 + 1 + 0.5)
    assert of_generator["mel"].item() == pytest.approx(1.5)
    assert of_generator["stft"].item() == pytest.approx(1)
    assert of_discriminators.keys() == vocoder.DISCRIMINATOR_WEIGHTS.keys()
    assert vocoder.generator_terms(None, distances, real, fake).keys() == {"mel", "stft"}


def test_terms_reach_only_whom_they_train():
    discriminators, fake = Discriminators(**NARROW), noise(1, 1600, seed=1).requires_grad_()
    sum(vocoder.discriminator_terms(discriminators, noise(1, 1600), fake).values()).backward()
    assert fake.grad is None and all(p.grad is not None for p in discriminators.parameters())
    distances = vocoder.Distances(LogMel(FRONT_ENDS[16000]), StftDistance())
    sum(vocoder.generator_terms(discriminators, distances, noise(1, 1600), fake).values()).backward()
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
        decoded_from=35,
        weights={"mel": 45.0, "stft": 5.0, "adversarial": 1.0, "feature_matching": 2.0},
        train=steps.model_dump(),
    )
    waves, segments, draw = sines([440.0, 900.0], 1600), [], vocoder.random_segments
    through_vae, reconstruct = [], vaes.reconstruct
    monkeypatch.setattr(vaes, "reconstruct", lambda *a: through_vae.append(1) or reconstruct(*a))
    autoencoder = vaes.build([8, 16], 1, 4, 8, seed=0)
    monkeypatch.setattr(vocoder, "random_segments", lambda *a: segments.append(1) or draw(*a))
    log_mel = LogMel(FRONT_ENDS[16000])
    model, history = vocoder.fit_vocoder(section, waves, log_mel, autoencoder, Job(0, tmp_path, "cpu"), held_out=waves)
    assert len(segments) == 40 and len(through_vae) == 5
    for name in ("real", "fake", "adversarial", "feature_matching"):
        assert history[name].isna().tolist() == [True] * 10 + [False] * 30
    discriminators = (history.real + history.fake).to_numpy()
    assert history.mel.iloc[30:35].mean() < 0.6 * history.mel.iloc[0], history.mel.tolist()
    assert discriminators[-5:].mean() < 0.9 * discriminators[10], discriminators.tolist()

    # What is returned is without weight norm, and is the network that was scored.
    assert not model.training and "conv_pre.weight" in model.state_dict()
    found = vocoders.errors(vocoders.resynthesise(model, waves, log_mel), waves, log_mel)
    assert history[["val_mel", "val_stft"]].iloc[-1].tolist() == pytest.approx(
        [found["mel"].mean(), found["stft"].mean()], rel=1e-4
    )
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


def test_known_parameters_are_asked_of_the_clips_that_have_them():
    model = judges.build(
        LABELS,
        {"low.pitch": (True, 0.0, 1.0), "distance": (False, 0.0, 1.0)},
        rate=16000,
        widths=(4, 8, 8),
        embedding_dim=8,
        seed=0,
    ).eval()
    clips, targets = noise(4, 8000), torch.tensor([0, 1, 2, 0])
    known = torch.tensor([[9.0, 9.0], [9.0, 9.0], [torch.nan, 0.5], [-1.0, torch.nan]])
    terms = judge.judge_terms(model, clips, targets, known, generator=seeded(), mixup_alpha=1.0)
    features = spec_augment(model.features(clips), generator=seeded())
    said = model.classify(features)["parameters"]
    assert terms["parameters"].item() == pytest.approx(
        float((said[2, 1] - 0.5) ** 2 + (said[3, 0] + 1) ** 2) / 2, rel=1e-4
    )
    nothing = judge.judge_terms(model, clips, targets, torch.full((4, 2), torch.nan), generator=seeded())
    assert nothing["parameters"] == 0 and torch.isfinite(nothing["cross_entropy"])


def test_parameters_are_standardised_over_the_training_clips():
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        drawn = {"pitch": float(np.exp(rng.uniform(4, 7))), "surface": "wood" if i % 2 else "grass", "room_level": 0.3}
        drawn |= {"room_decay": 0.2, "distance": i / 60, "background_snr": 30.0, "ambience": 1.0, "level": 0.7}
        events = [{}] * (1 + i % 3)
        rows.append(("train" if i < 40 else "test", "AB"[i % 2], json.dumps(drawn), json.dumps(events)))
    rows.append(("train", "C", "{}", "[]"))  # a recording
    manifest = pd.DataFrame(rows, columns=["split", "label", "parameters", "events"])
    known = judge.parameters_of(manifest)
    scales = judge.scales_of(known[manifest.split == "train"])
    assert set(scales) == {"A.pitch", "B.pitch", "distance", "events"}  # a surface is the class here, the room constant
    values = pd.DataFrame(judge.standardised(known, scales), columns=list(scales))
    train = values[manifest.split == "train"]
    assert np.allclose(train.mean(), 0, atol=1e-9) and np.allclose(train.std(), 1)
    assert values["A.pitch"].notna().tolist() == (manifest.label == "A").tolist() and values.iloc[-1].isna().all()
    pitch = np.log([json.loads(text)["pitch"] for text in manifest.parameters[manifest.label == "A"]])
    assert np.corrcoef(pitch, values["A.pitch"].dropna())[0, 1] == pytest.approx(1)
    few = judge.standardised(judge.parameters_of(manifest.iloc[:1]), scales)  # of another corpus, by the same scales
    assert few[0, list(scales).index("A.pitch")] == pytest.approx(values["A.pitch"][0]) and np.isnan(few).any()


def test_share_of_the_variance_that_is_explained():
    known = np.array([[0.0, 1.0], [2.0, np.nan], [4.0, 3.0]])
    assert judge.explained(known, known).tolist() == [1, 1]
    assert judge.explained(np.full((3, 2), 2.0), known).tolist() == pytest.approx([0, 0])
    alone = np.array([[1.0, np.nan], [np.nan, np.nan]])
    assert np.isnan(judge.explained(np.zeros((2, 2)), alone)).all()


def test_judge_learns_two_classes(tiny, tmp_path):
    steps = Train(steps=120, batch_size=16, lr=1e-2, warmup=5, validate_every=60, ema_decay=0.9)
    sizes = {"widths": [8, 16, 16], "embedding_dim": 16, "train": steps.model_dump(), "mixup_alpha": 0.0}
    section, rng = tiny.judge.changed(**sizes), np.random.default_rng(0)
    clips = sines(np.concatenate([rng.uniform(200, 500, 8), rng.uniform(2000, 5000, 8)]), 8000).float()
    targets = torch.tensor([0] * 8 + [1] * 8)
    pitch = torch.arange(16.0)[:, None] / 8 - 1  # higher, the brighter
    part = judge.Clips(clips, targets, pitch)
    held = judge.Clips(clips[::2], targets[::2], pitch[::2])
    names = {"labels": ["low", "high"], "parameters": {"pitch": (False, 0.0, 1.0)}}
    model, history = judge.fit_judge(section, part, Job(0, tmp_path / "s", "cpu"), **names, rate=16000, held_out=held)
    assert history.cross_entropy.iloc[-5:].mean() < 0.5 * history.cross_entropy.iloc[:5].mean()
    assert history.val_accuracy.iloc[-1] == 1.0 and not model.training
    model.save_pretrained(tmp_path / "judge")
    embedder = judges.load(tmp_path / "judge")
    assert embedder.model.labels == ("low", "high") and list(embedder.model.parameters_known) == ["pitch"]
    assert {"val_accuracy", "val_r2", "parameters"} <= set(history)
    assert np.array_equal(embedder.embed(clips.numpy())["logits"].argmax(1), targets)


def test_a_judge_of_a_corpus_without_validation_clips_is_trained(tiny, tiny_corpus, tiny_paths, tmp_path, monkeypatch):
    monkeypatch.setattr(judge.paths, "JUDGE", tmp_path / "judge")
    given, load = {}, judge.manifests.load
    monkeypatch.setattr(judge.manifests, "load", lambda folder: load(folder).query("split != 'val'"))
    history = pd.DataFrame({"cross_entropy": [1.0]})
    model = judges.build(LABELS, rate=16000, widths=(4,), embedding_dim=2, seed=0)
    monkeypatch.setattr(judge, "fit_judge", lambda *args, **options: given.update(options) or (model, history))
    assert len(judge.make(tiny)) == 1 and given["held_out"] is None
