"""The diffusion process and its losses: schedule, forward process, the training loss, errors on held-out clips."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foleylib.datasets.features import Latents, sample_latents
from foleylib.diffusion import process
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss, errors_by_level, held_out_loss
from foleylib.networks import unet as unets
from foleylib.params.base import Train
from foleylib.stages.ldm import fit_unet
from foleylib.train import Job

ABAR = process.schedule()
NOTHING = Condition(embedding=torch.full((1, 3), 9.0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Oracle:
    """A network that knows the clean latents and so estimates the noise without error; `bias` is added to it."""

    device = torch.device("cpu")

    def __init__(self, z_0, bias=0.0):
        self.z_0, self.bias, self.calls = z_0, bias, []

    def __call__(self, z_n, n, tokens, class_labels, **more):
        self.calls.append({"n": n, "tokens": tokens, "embedding": class_labels} | more)
        a = ABAR[n].double().view(-1, 1, 1, 1)
        eps = (z_n.double() - a.sqrt() * self.z_0) / (1 - a).sqrt()
        return SimpleNamespace(sample=(eps + self.bias).float())


def certain(mean):
    """Posterior moments without variance to speak of."""
    return torch.cat([mean, torch.full_like(mean, -30.0)], 1)


def batch_of(count=6, seed=5):
    """A training batch, and its clean latents under a scale of 2."""
    mean, embedding = torch.randn(count, 2, 4, 4, generator=seeded(seed)), torch.randn(count, 3, generator=seeded(6))
    return {"moments": certain(mean), "embedding": embedding, "audio": -embedding}, 2.0 * mean.double()


def cached(count=4, seed=0, dim=6):
    """Cached clips with little posterior variance."""
    rng = np.random.default_rng(seed)
    mean, log_variance = rng.standard_normal((count, 2, 8, 4)), np.full((count, 2, 8, 4), -8.0)
    embeddings = rng.standard_normal((count, dim)).astype(np.float32)
    moments = np.concatenate([mean, log_variance], 1).astype(np.float32)
    return Latents(moments, {"embedding": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)}, 1.0)


# The process


def test_schedule():
    assert ABAR.shape == (1000,) and ABAR.dtype == torch.float32
    assert float(ABAR[0]) == pytest.approx(1 - 0.0015, abs=1e-7)
    assert (ABAR.diff() < 0).all() and 0 < ABAR[-1] < 1e-3
    betas = np.linspace(np.sqrt(0.0015), np.sqrt(0.0195), 1000) ** 2
    assert np.allclose(ABAR, np.exp(np.log1p(-betas).cumsum()), rtol=1e-6)


def test_schedule_of_other_lengths():
    assert process.schedule(2, 0.04, 0.09).tolist() == pytest.approx([0.96, 0.96 * 0.91])


@pytest.mark.parametrize("count", [3, 10, 200])
def test_steps_uniform_in_log_snr(count):
    abar = process.schedule()
    steps = process.log_snr_steps(abar, count)
    assert (steps[0], steps[-1]) == (900, 5) and steps == sorted(set(steps), reverse=True) and len(steps) <= count
    if count == 10:
        gaps = np.diff(torch.logit(abar.double())[steps])
        assert len(steps) == 10 and gaps == pytest.approx(np.full(9, gaps.mean()), rel=0.15)
    short = process.log_snr_steps(process.schedule(100), count)
    assert short[0] == 90 and short[-1] == 0


def test_noise_is_added_and_taken_away():
    z_0, eps = (torch.randn(4, 2, 4, 4, generator=seeded(seed)) for seed in (1, 2))
    n = torch.tensor([0, 10, 500, 999])
    z_n = process.add_noise(z_0, eps, n, ABAR)
    a = ABAR[500].sqrt()
    assert torch.allclose(z_n[2], a * z_0[2] + (1 - a * a).sqrt() * eps[2], atol=1e-6)
    assert torch.allclose(process.predict_clean(z_n, eps, n, ABAR), z_0, atol=1e-4)


def test_min_snr_weight():
    n = torch.arange(1000)
    snr = ABAR / (1 - ABAR)
    weight = process.min_snr_weight(n, ABAR, 5.0)
    assert torch.equal(weight[snr <= 5], torch.ones(int((snr <= 5).sum())))
    assert torch.allclose(weight[snr > 5], 5 / snr[snr > 5]) and (snr > 5).any()


# The training loss


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_loss_counts_the_error_of_the_noise(gamma):
    batch, z_0 = batch_of()
    loss = DiffusionLoss(ABAR, NOTHING, 2.0, snr_gamma=gamma)
    oracle, wrong = Oracle(z_0), Oracle(z_0, bias=2.0)
    terms = loss(oracle, batch, seeded())
    assert terms.keys() == {"ddpm"} and terms["ddpm"].item() < 1e-8
    assert torch.equal(oracle.calls[0]["embedding"], batch["embedding"])  # none is dropped unless asked for
    error = loss(wrong, batch, seeded())["ddpm"]
    n = wrong.calls[0]["n"]
    weight = torch.ones(6) if gamma is None else process.min_snr_weight(n, ABAR, gamma)
    assert error.item() == pytest.approx(4.0 * float(weight.mean()), rel=1e-4)
    assert loss(wrong, batch, seeded())["ddpm"] == error and n.unique().numel() > 1


def test_draws_of_the_loss_come_in_their_order():
    """Latents, dropped conditions, noise, steps: another order would train other weights from the same seed."""
    batch, _ = batch_of()
    batch["moments"] = torch.randn(6, 4, 4, 4, generator=seeded(8))

    def network(z_n, n, tokens, class_labels):
        return SimpleNamespace(sample=0.5 * z_n + n.view(-1, 1, 1, 1) / 1000 + class_labels.mean())

    draws = seeded(3)
    z_0 = sample_latents(batch["moments"], 2.0, draws)
    dropped = torch.rand(6, generator=draws) < 0.5
    eps, n = torch.randn(z_0.shape, generator=draws), torch.randint(1000, (6,), generator=draws)
    embedding = torch.where(dropped[:, None], NOTHING.embedding, batch["embedding"])
    estimate = network(process.add_noise(z_0, eps, n, ABAR), n, None, embedding).sample
    expected = (estimate - eps).square().mean(dim=(1, 2, 3)).mean()
    assert 0 < dropped.sum() < 6
    assert DiffusionLoss(ABAR, NOTHING, 2.0, condition_dropout=0.5)(network, batch, seeded(3))["ddpm"] == expected


def test_neighbours_change_no_draw_unless_they_are_dropped():
    """A loss without dropout of neighbours is that of before there were any; with it there is one draw more, of all clips."""
    batch, z_0 = batch_of(count=300)
    read = batch | {"tokens": torch.ones(300, 2, 3), "mask": torch.ones(300, 2, dtype=torch.bool)}
    nothing = Condition(NOTHING.embedding, torch.zeros(1, 1, 3), torch.zeros(1, 1, dtype=torch.bool))

    def call(batch, nothing, **rates):
        oracle = Oracle(z_0)
        DiffusionLoss(ABAR, nothing, 2.0, condition_dropout=0.5, **rates)(oracle, batch, seeded(3))
        return oracle.calls[0]

    plain, beside, less = call(batch, NOTHING), call(read, nothing), call(read, nothing, retrieval_dropout=0.3)
    assert torch.equal(plain["n"], beside["n"]) and torch.equal(plain["embedding"], beside["embedding"])
    draws = seeded(3)
    sample_latents(batch["moments"], 2.0, draws)
    text, drawn = torch.rand(300, generator=draws) < 0.5, torch.rand(300, generator=draws)
    torch.randn(z_0.shape, generator=draws)
    assert torch.equal(less["n"], torch.randint(1000, (300,), generator=draws)) and (less["n"] != plain["n"]).any()
    assert torch.equal(less["embedding"], plain["embedding"])
    assert torch.equal(
        (less["tokens"] == 0).all((1, 2)), text | (drawn < 0.6)
    )  # 0.3 without all, 0.3 without the sound


def test_condition_is_dropped_at_its_share():
    batch, z_0 = batch_of(count=4000)

    def embedding(share, seed=0):
        oracle = Oracle(z_0)
        DiffusionLoss(ABAR, NOTHING, 2.0, condition_dropout=share)(oracle, batch, seeded(seed))
        return oracle.calls[0]["embedding"]

    kept = embedding(0.1)
    dropped = (kept == 9).all(1)
    assert torch.equal(kept[~dropped], batch["embedding"][~dropped])
    assert float(dropped.double().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(kept, embedding(0.1)) and not torch.equal(kept, embedding(0.1, seed=1))
    assert torch.equal(embedding(0.0), batch["embedding"]) and (embedding(1.0) == 9).all()


def test_all_conditions_of_a_batch_reach_the_network():
    batch, z_0 = batch_of(count=64)
    oracle = Oracle(z_0)
    more = {
        "tokens": torch.ones(64, 5, 7),
        "mask": torch.ones(64, 5, dtype=torch.bool),
        "rate": torch.full((64,), 16e3),
    }
    nothing = Condition(NOTHING.embedding, tokens=torch.zeros(1, 5, 7), mask=torch.zeros(1, 5, dtype=torch.bool))
    DiffusionLoss(ABAR, nothing, 2.0, condition_dropout=0.5)(oracle, batch | more, seeded())
    call = oracle.calls[0]
    dropped = (call["embedding"] == 9).all(1)
    assert 0 < dropped.sum() < 64
    for given in (call["tokens"], call["encoder_attention_mask"].unsqueeze(2)):  # dropped in the same clips
        assert not given[dropped].any() and given[~dropped].all()
    assert torch.equal(call["rate"], more["rate"])


def test_further_loss_gets_the_prediction():
    (batch, z_0), given = batch_of(), []

    def further(prediction, E_audio):
        given.append((prediction, E_audio))
        return prediction.estimate.mean()

    terms = DiffusionLoss(ABAR, NOTHING, 2.0, latent_clap=further)(Oracle(z_0, 0.5), batch, seeded())
    (prediction, E_audio) = given[0]
    assert terms.keys() == {"ddpm", "lclap"} and terms["lclap"] == prediction.estimate.mean()
    assert torch.equal(E_audio, batch["audio"])
    expected = process.add_noise(z_0.float(), prediction.eps, prediction.n, ABAR)
    assert torch.allclose(prediction.z_n, expected, atol=1e-5)
    assert torch.allclose(prediction.estimate, prediction.eps + 0.5, atol=1e-3)


# Errors on held-out clips


def test_error_by_level_counts_the_noise_alone():
    mean = torch.randn(5, 2, 4, 4, generator=seeded(7))
    data = Latents(certain(mean).numpy(), {"embedding": np.zeros((5, 3), np.float32)}, 2.0)
    oracle = Oracle(2.0 * mean.double(), 0.5)
    table = errors_by_level({"a": data, "b": data}, oracle, ABAR, levels=4)
    assert table.n.tolist() == [0, 333, 666, 999]
    assert np.allclose(table.a, 0.25, atol=1e-3) and table.a.equals(table.b)
    limited = errors_by_level({"a": data}, Oracle(2.0 * mean.double()[:2], 0.5), ABAR, levels=2, limit=2)
    assert np.allclose(limited.a, 0.25, atol=1e-3)


def small(seed=0):
    return unets.build([8, 16], 4, layers=1, groups=8, dim=6, latent_channels=2, seed=seed)


def test_held_out_loss_is_not_random():
    unet, data = small().eval(), cached(10)
    one = held_out_loss(unet, data, ABAR)
    torch.rand(3)
    assert held_out_loss(unet, data, ABAR) == one != held_out_loss(unet, data, ABAR, seed=1)


def test_held_out_loss_covers_every_clip_at_spread_steps():
    data, silent = cached(10), Oracle(torch.zeros(1))
    loss = held_out_loss(silent, data, ABAR, levels=5, batch_size=10)["ddpm"]
    assert silent.calls[0]["n"].tolist() == [100, 300, 500, 700, 900] * 2
    assert np.array_equal(silent.calls[0]["embedding"], data.conditions["embedding"])
    # A network that takes the clean latent for zero errs by sqrt(abar / (1 - abar)) z_0.
    snr, energy = ABAR / (1 - ABAR), torch.from_numpy(data.moments[:, :2]).square().mean(dim=(1, 2, 3))
    expected = (snr[[100, 300, 500, 700, 900]].repeat(2) * energy).mean()
    assert loss == pytest.approx(float(expected), rel=0.05)
    parts = held_out_loss(Oracle(torch.zeros(1)), data, ABAR, levels=1, batch_size=4)["ddpm"]  # 4, 4 and 2 clips
    assert parts == pytest.approx(float(snr[500] * energy.mean()), rel=0.02)


def test_overfits_a_batch(tmp_path):
    data, unet = cached(), small()
    before = held_out_loss(unet.eval(), data, ABAR)["ddpm"]
    settings = Train(steps=50, batch_size=16, lr=5e-3, warmup=5, validate_every=25, ema_decay=0.9)
    loss = DiffusionLoss(ABAR, Condition(torch.zeros(1, 6)), data.scale, condition_dropout=0.1, snr_gamma=5.0)
    history = fit_unet(unet, data, loss, settings, Job(0, tmp_path, "cpu"), held_out=data)
    after = held_out_loss(unet, data, ABAR)["ddpm"]
    assert history.val_ddpm.iloc[-1] == pytest.approx(after, rel=1e-6) and after < 0.6 * before


def test_terms_are_weighted_in_training(tmp_path):
    """L_DDPM + lambda L_LCLAP, Eq. 4 of latent-clap-loss: lambda decides where a term of its own leads."""
    data, weights = cached(), {}
    data.audio = data.conditions["embedding"]
    settings = Train(steps=1, batch_size=4, lr=1e-3, warmup=0, ema_decay=0.0)
    term = DiffusionLoss(ABAR, Condition(torch.zeros(1, 6)), 1.0, latent_clap=lambda p, E: p.estimate.square().mean())
    for name, factor in [("none", 0.0), ("some", 10.0)]:
        unet = small()
        history = fit_unet(unet, data, term, settings, Job(0, tmp_path / name, "cpu"), lambda_lclap=factor)
        weights[name] = unet.conv_out.weight.detach()
        assert list(history.columns) == ["step", "ddpm", "lclap", "grad_norm"]
    plain = small()
    loss = DiffusionLoss(ABAR, Condition(torch.zeros(1, 6)), 1.0)
    fit_unet(plain, data, loss, settings, Job(0, tmp_path / "plain", "cpu"))
    assert torch.equal(plain.conv_out.weight, weights["none"])
    assert not torch.allclose(weights["none"], weights["some"], atol=1e-4)
