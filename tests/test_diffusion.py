"""The diffusion process: schedule, forward process, losses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foleylib import diffusion, ldm

ABAR = diffusion.schedule()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Oracle:
    """A network that knows the clean latents and so estimates the noise without error; `bias` is added to it."""

    device = torch.device("cpu")

    def __init__(self, z_0, bias=0.0):
        self.z_0, self.bias, self.seen = z_0, bias, None

    def __call__(self, z_n, n, _, class_labels):
        self.seen, a = class_labels, ABAR[n].double().view(-1, 1, 1, 1)
        eps = (z_n.double() - a.sqrt() * self.z_0) / (1 - a).sqrt()
        return SimpleNamespace(sample=(eps + self.bias).float())


def test_schedule():
    assert ABAR.shape == (1000,) and ABAR.dtype == torch.float32
    assert float(ABAR[0]) == pytest.approx(1 - 0.0015, abs=1e-7)
    assert (ABAR.diff() < 0).all() and 0 < ABAR[-1] < 1e-3
    betas = np.linspace(np.sqrt(0.0015), np.sqrt(0.0195), 1000) ** 2
    assert np.allclose(ABAR, np.exp(np.log1p(-betas).cumsum()), rtol=1e-6)


def test_schedule_of_other_lengths():
    assert diffusion.schedule(2, 0.04, 0.09).tolist() == pytest.approx([0.96, 0.96 * 0.91])


def test_noise_is_added_and_taken_away():
    z_0, eps, n = torch.randn(4, 2, 4, 4, generator=seeded(1)), torch.randn(4, 2, 4, 4, generator=seeded(2)), torch.tensor([0, 10, 500, 999])  # fmt: skip
    z_n = diffusion.add_noise(z_0, eps, n, ABAR)
    a = ABAR[500].sqrt()
    assert torch.allclose(z_n[2], a * z_0[2] + (1 - a * a).sqrt() * eps[2], atol=1e-6)
    assert torch.allclose(diffusion.predict_clean(z_n, eps, n, ABAR), z_0, atol=1e-4)


def test_min_snr_weight():
    n = torch.arange(1000)
    snr = ABAR / (1 - ABAR)
    weight = diffusion.min_snr_weight(n, ABAR, 5.0)
    assert torch.equal(weight[snr <= 5], torch.ones(int((snr <= 5).sum())))
    assert torch.allclose(weight[snr > 5], 5 / snr[snr > 5]) and (snr > 5).any()


def test_condition_is_dropped_at_its_share():
    condition, nothing = torch.ones(4000, 3), torch.zeros(3)
    kept = diffusion.drop_condition(condition, nothing, 0.1, seeded())
    assert ((kept == 0).all(1) | (kept == 1).all(1)).all()
    assert float((kept == 0).all(1).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(kept, diffusion.drop_condition(condition, nothing, 0.1, seeded()))
    assert not torch.equal(kept, diffusion.drop_condition(condition, nothing, 0.1, seeded(1)))
    assert torch.equal(diffusion.drop_condition(condition, nothing, 0.0, seeded()), condition)
    assert (diffusion.drop_condition(condition, nothing, 1.0, seeded()) == 0).all()


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_denoising_loss(gamma):
    z_0, condition = torch.randn(6, 2, 4, 4, generator=seeded(5)), torch.randn(6, 3, generator=seeded(6))
    oracle = Oracle(z_0.double())
    loss = diffusion.denoising_terms(oracle, z_0, condition, ABAR, generator=seeded(), snr_gamma=gamma)["ddpm"]
    assert loss.item() < 1e-8 and torch.equal(oracle.seen, condition)
    wrong = diffusion.denoising_terms(
        Oracle(z_0.double(), 2.0), z_0, condition, ABAR, generator=seeded(), snr_gamma=gamma
    )
    again = diffusion.denoising_terms(
        Oracle(z_0.double(), 2.0), z_0, condition, ABAR, generator=seeded(), snr_gamma=gamma
    )
    assert wrong == again
    if gamma is None:
        assert wrong["ddpm"].item() == pytest.approx(4.0, rel=1e-4)
    else:
        assert 0 < wrong["ddpm"].item() <= 4.0


def test_error_by_level_counts_the_noise_alone():
    mean = torch.randn(5, 2, 4, 4, generator=seeded(7))
    moments = torch.cat([mean, torch.full_like(mean, -30.0)], 1).numpy()  # no posterior variance to speak of
    data = ldm.Latents(moments, np.zeros((5, 3), np.float32), 2.0)
    table = diffusion.errors_by_level({"a": data, "b": data}, Oracle(2.0 * mean.double(), 0.5), ABAR, levels=4)
    assert table.n.tolist() == [0, 333, 666, 999]
    assert np.allclose(table.a, 0.25, atol=1e-3) and table.a.equals(table.b)
