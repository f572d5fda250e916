import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib import adversarial, vocoder
from foleylib.mel import FRONT_ENDS, LogMel

TINY = {"channels": 32, "resblock_kernels": (3,), "dilations": (1, 3)}
NARROW = {"width": 1 / 64, "periods": (2, 3), "scales": 2}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def golden_config(case):
    settings = case.manifest["config"]
    return vocoder.generator_config(
        settings["sampling_rate"],
        n_mels=settings["num_mels"],
        channels=settings["upsample_initial_channel"],
        upsample_rates=settings["upsample_rates"],
        upsample_kernels=settings["upsample_kernel_sizes"],
        resblock_kernels=settings["resblock_kernel_sizes"],
        dilations=settings["resblock_dilation_sizes"][0],
    )


def original_state(case, draw_weights):
    weights = draw_weights(case.rows, case.manifest["seed"])
    return {key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()}


@pytest.mark.parametrize("name", ["audioldm_16k64_small", "jik876_22k80_small", "audioldm_16k64_full"])
def test_golden(golden, draw_weights, name):
    case = golden(f"05_hifigan_{name}")
    model = vocoder.from_original_state_dict({"generator": original_state(case, draw_weights)}, golden_config(case))
    mel = torch.from_numpy(next(iter(case.inputs.values())).astype(np.float32))
    with torch.no_grad():
        wave = model(mel.transpose(1, 2))
    expected = case.outputs["wave"][:, 0]
    assert wave.shape == expected.shape
    assert np.abs(wave.numpy() - expected).max() <= case.manifest["outputs"]["wave"]["tolerance_max_abs"]


def test_golden_configs_are_the_published_ones(golden):
    full = golden_config(golden("05_hifigan_audioldm_16k64_full")).to_dict()
    assert full == vocoder.generator_config(**vocoder.PUBLISHED["audioldm_16k"]).to_dict()
    small = golden_config(golden("05_hifigan_jik876_22k80_small")).to_dict()
    assert small == vocoder.generator_config(22050, channels=64).to_dict()


def test_original_state_with_a_fault_is_refused(golden, draw_weights):
    case = golden("05_hifigan_audioldm_16k64_small")
    state = original_state(case, draw_weights)
    del state["conv_post.bias"]
    with pytest.raises(ValueError, match="conv_post.bias"):
        vocoder.from_original_state_dict(state, golden_config(case))
    with pytest.raises(ValueError, match="does not fit"):
        vocoder.from_original_state_dict(original_state(case, draw_weights), vocoder.generator_config(16000, **TINY))


def test_published_sizes():
    with torch.device("meta"):
        sizes = {name: vocoder.generator_config(**row) for name, row in vocoder.PUBLISHED.items()}
        sizes = {name: parameters(vocoder.generator(config)) for name, config in sizes.items()}
        period, scale = adversarial.MultiPeriodDiscriminator(), adversarial.MultiScaleDiscriminator()
    assert round(sizes["audioldm_16k"] / 1e6, 2) == 55.26
    assert round(sizes["hifigan_22k"] / 1e6, 2) == 13.93
    assert round(parameters(period) / 1e6, 1) == 41.1
    assert round(parameters(scale) / 1e6, 1) == 29.6


@pytest.mark.parametrize("rate", FRONT_ENDS)
def test_trimmed_output_has_one_hop_per_frame(rate):
    front = FRONT_ENDS[rate]
    assert math.prod(vocoder.UPSAMPLING[rate][0]) == front.hop
    model = vocoder.generator(vocoder.generator_config(rate, **TINY)).eval()
    with torch.no_grad():
        wave = model(noise(1, 7, front.n_mels))
    assert wave.shape[1] - 7 * front.hop == {16000: 32, 48000: 16}.get(rate, 0)
    assert vocoder.trim(wave, 7, front.hop).shape == (1, 7 * front.hop)
    with pytest.raises(ValueError, match="hop"):
        vocoder.trim(wave, 6, front.hop)


def test_config_refuses():
    with pytest.raises(ValueError, match="multiple of 32"):
        vocoder.generator_config(16000, channels=48)
    with pytest.raises(ValueError, match="no defaults"):
        vocoder.generator_config(44100)
    with pytest.raises(ValueError, match="one kernel"):
        vocoder.generator_config(16000, upsample_kernels=(16, 16))


def test_weight_norm_changes_neither_output_nor_the_saved_weights(tmp_path):
    model = vocoder.generator(vocoder.generator_config(16000, **TINY), seed=1).eval()
    mel, plain = noise(1, 9, 64), {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        before = model(mel)
        vocoder.apply_weight_norm(model)
        assert any("original0" in key for key in model.state_dict())
        torch.testing.assert_close(model(mel), before, atol=1e-6, rtol=0)
        vocoder.save(model, tmp_path / "a")
        assert any("original0" in key for key in model.state_dict())
        loaded = vocoder.load(tmp_path / "a")
        torch.testing.assert_close(loaded(mel), before, atol=1e-6, rtol=0)
        assert loaded.state_dict().keys() == plain.keys() and not loaded.training
        twin = copy.deepcopy(model)
        assert torch.equal(vocoder.remove_weight_norm(twin)(mel), loaded(mel))
        assert torch.equal(twin(mel), model(mel))
        assert (tmp_path / "a" / "model.safetensors").is_file() and not loaded.config.normalize_before


def test_load_refuses_missing_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    vocoder.save(vocoder.generator(vocoder.generator_config(16000, **TINY)), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["conv_post.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="conv_post.weight"):
        vocoder.load(tmp_path)


def test_seeds_decide_and_global_state_stays():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    config = vocoder.generator_config(16000, **TINY)
    a, b, c = (vocoder.generator(config, seed=seed).conv_post.weight for seed in (0, 0, 1))
    d, e = (adversarial.Discriminators(seed=0, **NARROW).state_dict() for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert all(torch.equal(d[key], e[key]) for key in d)
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_segments_are_aligned(batch, frames, count, seed):
    hop, draw = 5, torch.Generator().manual_seed(seed)
    mels = torch.arange(frames).float().expand(batch, frames)[..., None] + 100 * torch.arange(batch)[:, None, None]
    waves = mels[..., 0].repeat_interleave(hop, dim=1)
    if count > frames:
        with pytest.raises(ValueError, match="longer"):
            vocoder.random_segments(waves, mels, count * hop, hop, draw)
        return
    wave, mel = vocoder.random_segments(waves, mels, count * hop, hop, draw)
    assert wave.shape == (batch, count * hop) and mel.shape == (batch, count, 1)
    assert torch.equal(wave, mel[..., 0].repeat_interleave(hop, dim=1))
    again, _ = vocoder.random_segments(waves, mels, count * hop, hop, torch.Generator().manual_seed(seed))
    assert torch.equal(wave, again)


def test_segment_must_be_whole_frames():
    with pytest.raises(ValueError, match="multiple of hop=160"):
        vocoder.random_segments(noise(1, 1600), noise(1, 10, 64), 500, 160, torch.Generator())


def test_segments_reach_both_ends():
    draw, starts = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        starts.add(int(vocoder.random_segments(torch.arange(10)[None], torch.zeros(1, 5, 1), 4, 2, draw)[0][0, 0]))
    assert starts == {0, 2, 4, 6}


def test_terms_in_closed_form():
    class Fixed(torch.nn.Module):
        def forward(self, waves):
            return [(waves, [waves, 2 * waves]), (3 * waves, [waves])]

    real, fake = torch.ones(2, 4), torch.full((2, 4), 0.5)
    judged = adversarial.discriminator_terms(Fixed(), real, fake)
    assert judged["real"].item() == pytest.approx(0 + 4)
    assert judged["fake"].item() == pytest.approx(0.25 + 2.25)
    made = adversarial.generator_terms(Fixed(), lambda waves: 3 * waves, real, fake)
    assert made["adversarial"].item() == pytest.approx(0.25 + 0.25)
    assert made["feature_matching"].item() == pytest.approx(0.5 + 1 + 0.5)
    assert made["mel"].item() == pytest.approx(1.5)
    assert (
        made.keys() == adversarial.GENERATOR_WEIGHTS.keys()
        and judged.keys() == adversarial.DISCRIMINATOR_WEIGHTS.keys()
    )
    assert adversarial.generator_terms(None, lambda waves: waves, real, fake).keys() == {"mel"}


def test_discriminators_look_where_they_should():
    judges = adversarial.Discriminators(width=1 / 64).eval()
    outputs = judges(noise(2, 1001))
    assert len(outputs) == 8 and [len(features) for _, features in outputs] == [6] * 5 + [8] * 3
    assert all(score.shape[0] == 2 and score.ndim == 2 for score, _ in outputs)
    waves = noise(1, 600).requires_grad_()
    judges.mpd.parts[1].layers[0](waves.reshape(1, 1, -1, 3))[..., 0].sum().backward()
    assert waves.grad[0, 1::3].abs().sum() == 0 and waves.grad[0, ::3].abs().sum() > 0


def test_terms_reach_only_whom_they_train():
    judges, fake = adversarial.Discriminators(**NARROW), noise(1, 1600, seed=1).requires_grad_()
    sum(adversarial.discriminator_terms(judges, noise(1, 1600), fake).values()).backward()
    assert fake.grad is None and all(p.grad is not None for p in judges.parameters())
    sum(adversarial.generator_terms(judges, LogMel(FRONT_ENDS[16000]), noise(1, 1600), fake).values()).backward()
    assert torch.isfinite(fake.grad).all() and fake.grad.abs().sum() > 0


def test_overfits_one_batch():
    front = FRONT_ENDS[16000]
    log_mel, time = LogMel(front), torch.arange(1600) / 16000
    real = 0.3 * torch.stack([torch.sin(2 * torch.pi * f * time) * torch.exp(-16 * time) for f in (440, 900)])
    mel = log_mel(real)[:, 0]
    model = vocoder.apply_weight_norm(vocoder.generator(vocoder.generator_config(16000, **TINY)))
    judges = adversarial.Discriminators(**NARROW)
    for_model = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.8, 0.99))
    for_judges = torch.optim.AdamW(judges.parameters(), lr=1e-3, betas=(0.8, 0.99))
    history, judged = [], []
    for _ in range(60):
        fake = vocoder.trim(model(mel), mel.shape[1], front.hop)
        for_judges.zero_grad()
        terms = adversarial.discriminator_terms(judges, real, fake)
        sum(adversarial.DISCRIMINATOR_WEIGHTS[name] * terms[name] for name in terms).backward()
        for_judges.step()
        judged.append(sum(terms.values()).item())
        for_model.zero_grad()
        terms = adversarial.generator_terms(judges, log_mel, real, fake)
        sum(adversarial.GENERATOR_WEIGHTS[name] * terms[name] for name in terms).backward()
        for_model.step()
        history.append(terms["mel"].item())
    assert np.mean(history[-5:]) < 0.5 * history[0], history
    assert np.mean(judged[-5:]) < 0.8 * judged[0], judged
