"""CLAP: tokenizer, front end, embeddings, storage."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib.networks import clap

CAPTIONS = ["a dog barks twice", "rain on a tin roof", "the sound of rain", "someone typing, fast"]


def tones(n, samples=5120):
    time = torch.arange(samples) / 16000
    return torch.stack([0.3 * torch.sin(2 * torch.pi * 250 * (i + 1) ** 1.3 * time) for i in range(n)])


@pytest.fixture(scope="module")
def tokenizer():
    return clap.train_tokenizer(CAPTIONS, 300, 12)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CAPTIONS) | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20))
def test_tokenizer_keeps_every_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_tokenizer_is_of_robertas_format(tokenizer, tmp_path):
    tokens = tokenizer(["a dog barks twice", ""], padding=True)
    first, empty = tokens.input_ids
    assert (first[0], first[-1]) == (0, 2) and empty[:3] == [0, 2, 1] and sum(tokens.attention_mask[1]) == 2
    assert len(tokenizer) <= 300 and len(tokenizer("rain " * 50, truncation=True).input_ids) == 12
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(CAPTIONS).input_ids == tokenizer(CAPTIONS).input_ids and loaded.model_max_length == 12


def test_trained_words_are_short(tokenizer):
    seen, unseen = (len(tokenizer(text).input_ids) for text in ("the sound of rain", "qzj xwvk yy juqx"))
    assert seen < unseen


def test_embeddings_are_unit_vectors_and_not_random(tiny_parts):
    model, waves = tiny_parts.clap, tones(3)
    audio, text = model.embed_audio(waves), model.embed_text(CAPTIONS)
    assert audio.shape == (3, model.dim) and text.shape == (4, model.dim)
    assert torch.allclose(audio.norm(dim=1), torch.ones(3)) and torch.allclose(text.norm(dim=1), torch.ones(4))
    assert torch.equal(audio, model.embed_audio(waves)) and torch.equal(text, model.embed_text(CAPTIONS))
    assert torch.allclose(audio[1:2], model.embed_audio(waves[1:2]), atol=1e-5)
    assert torch.allclose(text[1:2], model.embed_text(CAPTIONS[1:2]), atol=1e-5)  # padding has no part in it


def test_texts_are_embedded_sorted_by_length_and_come_in_their_order(tiny_parts, monkeypatch):
    model, texts = tiny_parts.clap, [f"{'rain and ' * (i * 7 % 11)}number {i}" for i in range(40)]
    whole = model.embed_text(texts)
    monkeypatch.setattr(clap, "TOKENS", 150)
    batches, lengths = model.text_batches(texts), model._lengths(texts)
    assert len(batches) > 5 and sorted(row for rows, _ in batches for row in rows) == list(range(40))
    most = model.tokenizer.model_max_length
    for rows, length in batches:
        assert lengths[rows].max() <= length <= most and (length % clap.PADDED == 0 or length == most)
        assert len(rows) == 1 or len(rows) * length <= 150
    assert [length for _, length in batches] == sorted(length for _, length in batches)
    assert torch.allclose(model.embed_text(texts), whole, atol=1e-6)
    assert torch.allclose(model.embed_text(texts[::-1]).flip(0), whole, atol=1e-6)


def test_long_texts_are_cut(tiny_parts):
    assert torch.isfinite(tiny_parts.clap.embed_text(["rain " * 300])).all()


def test_waves_of_another_rate_are_resampled(tiny_parts):
    from foleylib.audio.io import resample

    wave = tones(1)
    fast = torch.from_numpy(resample(wave[0].numpy(), 16000, 32000))[None]
    cosine = (tiny_parts.clap.embed_audio(fast, 32000) * tiny_parts.clap.embed_audio(wave)).sum()
    assert cosine > 0.999


def test_short_waves_repeat_and_long_ones_are_cut(tiny_parts):
    model = tiny_parts.clap
    window = model.window
    assert window == 5120
    short = torch.arange(1.0, 2001.0)[None]
    fitted = model.fit_window(short)[0]
    assert torch.equal(fitted, torch.cat([short[0], short[0], torch.zeros(1120)]))
    long = torch.arange(1.0, 9001.0)[None]
    assert torch.equal(model.fit_window(long), long[:, :window])
    assert torch.equal(model.fit_window(long[:, :window]), long[:, :window])
    for bad in (torch.zeros(5), torch.zeros(2, 0)):
        with pytest.raises(ValueError, match="give .B, T."):
            model.fit_window(bad)


def test_front_end_is_that_of_the_extractor(tiny_parts):
    """`ClapFeatureExtractor` repeats and pads in numpy; ours is differentiable."""
    model, wave = tiny_parts.clap, tones(1, 2000)
    extractor = copy.copy(model.extractor)
    extractor.nb_max_samples = round(extractor.nb_max_samples)  # it fails at a fraction of seconds
    theirs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    ours = model.front_end(model.fit_window(wave))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.05  # dB


def test_gradient_reaches_the_waves(tiny_parts):
    waves = tones(2).requires_grad_()
    (gradient,) = torch.autograd.grad(tiny_parts.clap.audio(waves)[:, 0].sum(), waves)
    assert torch.isfinite(gradient).all() and (gradient.abs().amax(dim=1) > 0).all()


def test_gradient_at_silence_is_finite(tiny_parts):
    waves = torch.zeros(1, 5120, requires_grad=True)
    (gradient,) = torch.autograd.grad(tiny_parts.clap.audio(waves).sum(), waves)
    assert torch.isfinite(gradient).all()


def test_round_trip_is_exact(tiny_parts, tiny_models):
    loaded = clap.load(tiny_models / "clap")
    assert not loaded.training and loaded.window == tiny_parts.clap.window and loaded.rate == 16000
    assert torch.equal(loaded.embed_audio(tones(2)), tiny_parts.clap.embed_audio(tones(2)))
    assert torch.equal(loaded.embed_text(CAPTIONS), tiny_parts.clap.embed_text(CAPTIONS))
    assert loaded.model.config.text_config.layer_norm_eps == clap.TEXT_EPS


def test_tokenizer_of_another_model_is_refused(tiny_parts, tmp_path):
    tiny_parts.clap.save(tmp_path)
    clap.train_tokenizer(["abc abc"], 262, 12).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer knows .* tokens, the model"):
        clap.load(tmp_path)


def test_build_is_drawn_from_its_seed(tiny):
    before = torch.random.get_rng_state()
    one, same, other = (
        clap.build(tiny.foundation.clap, CAPTIONS, seed=s).eval().embed_text(["rain"]) for s in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
