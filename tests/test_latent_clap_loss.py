"""The Latent CLAP loss: closed forms of s_n and w(n), gradients, its value, what it refuses."""

from dataclasses import replace

import pytest
import torch
from networks import frozen, noise

from foleylib.diffusion import process
from foleylib.diffusion.latent_clap_loss import LatentClapLoss, output_at, weight

ABAR = process.schedule()
CHOICES = ("clean", "previous", "noisy")


def unit(count):
    """Embeddings E_audio of unit norm."""
    return torch.nn.functional.normalize(noise(count, 6, seed=5), dim=1)


def prediction_at(n, *, error=0.0, seed=0):
    """Latents z_0, their prediction at steps n, and an estimate that is off by `error`."""
    n = torch.as_tensor(n)
    z_0, eps = noise(len(n), 2, 8, 4, seed=seed), noise(len(n), 2, 8, 4, seed=seed + 1)
    estimate = (eps + error * noise(len(n), 2, 8, 4, seed=seed + 2)).requires_grad_()
    return z_0, process.Prediction(process.add_noise(z_0, eps, n, ABAR), n, eps, estimate)


def test_weight_over_steps():
    n = torch.tensor([0, 200, 400])
    torch.testing.assert_close(weight(n), torch.tensor([1.0, 0.1, 0.01]))
    assert weight(50, decay=50) == pytest.approx(0.1)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_perfect_estimate_gives_the_forward_process(choice):
    z_0, exact = prediction_at([0, 1, 400, 999])
    with torch.no_grad():
        s_n = output_at(exact, ABAR, choice)
    before = torch.cat([torch.ones(1), ABAR[:-1]])
    wanted = {"clean": z_0, "noisy": exact.z_n, "previous": process.add_noise(z_0, exact.eps, exact.n, before)}
    torch.testing.assert_close(s_n, wanted[choice], atol=2e-4, rtol=1e-3)
    if choice == "previous":
        torch.testing.assert_close(s_n[0], z_0[0], atol=1e-5, rtol=1e-5)  # the last step leaves no noise


def test_choices_differ_where_the_estimate_errs():
    _, wrong = prediction_at([100, 300], error=0.5)
    outputs = [output_at(wrong, ABAR, choice) for choice in CHOICES]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[1], outputs[2], atol=1e-3)
    with pytest.raises(ValueError, match="s_n='dirty'"):
        output_at(wrong, ABAR, "dirty")


@pytest.mark.parametrize("choice", CHOICES)
def test_gradient_reaches_the_estimate_alone(choice):
    encoder, (_, prediction) = frozen(), prediction_at([10, 150], error=0.1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    LatentClapLoss(encoder, ABAR, choice)(prediction, unit(2)).backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert (prediction.estimate.grad.flatten(1).norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize("choice", CHOICES)
def test_gradient_is_that_of_finite_differences(choice):
    loss, (_, prediction) = LatentClapLoss(frozen(), ABAR, choice, reduction="sum"), prediction_at([30, 90], error=0.1)
    E_audio, way = unit(2), noise(2, 2, 8, 4, seed=6)

    def value(step):
        return float(loss(replace(prediction, estimate=prediction.estimate.detach() + step * way), E_audio))

    loss(prediction, E_audio).backward()
    slope = float((prediction.estimate.grad * way).sum())
    assert (value(1e-3) - value(-1e-3)) / 2e-3 == pytest.approx(slope, rel=0.03, abs=1e-4)


def test_loss_is_the_weighted_squared_error():
    encoder, (z_0, prediction) = frozen(), prediction_at([0, 200, 400])
    E_audio = unit(3)
    error = (E_audio - encoder(z_0)).square()
    expected = (torch.tensor([1.0, 0.1, 0.01]) * error.sum(1)).mean()
    summed = LatentClapLoss(encoder, ABAR, reduction="sum")(prediction, E_audio)
    torch.testing.assert_close(summed, expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(LatentClapLoss(encoder, ABAR)(prediction, E_audio), summed / 6)
    faster = LatentClapLoss(encoder, ABAR, decay=1e-3, reduction="sum")(prediction, E_audio)
    torch.testing.assert_close(faster, error[0].sum() / 3, atol=1e-5, rtol=1e-3)
    nothing = LatentClapLoss(encoder, ABAR)(prediction, encoder(z_0))
    assert nothing.item() == pytest.approx(0, abs=1e-7) and summed > 1e-3


def test_loss_refuses_what_it_does_not_know():
    encoder, (_, prediction) = frozen(), prediction_at([1])
    with pytest.raises(ValueError, match="reduction='max'"):
        LatentClapLoss(encoder, ABAR, reduction="max")
    with pytest.raises(ValueError, match="training mode"):
        LatentClapLoss(encoder.train(), ABAR)(prediction, torch.zeros(1, 6))


def test_loss_is_exact_under_autocast():
    loss, (_, prediction), E_audio = LatentClapLoss(frozen(), ABAR), prediction_at([10, 20], error=0.1), unit(2)
    rounded = replace(prediction, estimate=prediction.estimate.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        term = loss(rounded, E_audio)
    same = replace(prediction, estimate=rounded.estimate.float())
    assert term.dtype == torch.float32
    assert torch.equal(term, loss(same, E_audio)) and not torch.equal(term, loss(prediction, E_audio))


def test_gradient_of_s_n_is_that_of_the_closed_form():
    """d s_n / d estimate: DDIM's step takes back in noise most of what it gives in signal: "previous" hardly moves."""
    n = torch.tensor([0, 60, 400])
    a, before = ABAR[n], torch.cat([torch.ones(1), ABAR])[n]
    slopes = {
        "clean": -((1 - a) / a).sqrt(),
        "noisy": -(1 - a).sqrt(),
        "previous": (1 - before).sqrt() - (before * (1 - a) / a).sqrt(),
    }
    for choice, slope in slopes.items():
        _, prediction = prediction_at(n)
        output_at(prediction, ABAR, choice).sum().backward()
        torch.testing.assert_close(prediction.estimate.grad[:, 0, 0, 0], slope, atol=1e-5, rtol=1e-3)
    assert (slopes["previous"][1:] / slopes["clean"][1:] < 0.05).all()


@pytest.mark.parametrize(("choice", "step"), [("clean", 0.3), ("noisy", 0.3), ("previous", 10.0)])
def test_descent_brings_the_prediction_to_the_embedding(choice, step):
    """Steps down the gradient in the estimate alone bring E_latent nearer to another clip's embedding."""
    encoder, (_, prediction) = frozen(), prediction_at([60, 60])
    loss, target = LatentClapLoss(encoder, ABAR, choice, reduction="sum"), encoder(noise(2, 2, 8, 4, seed=8))
    losses = []
    for _ in range(15):
        term = loss(prediction, target)
        (gradient,) = torch.autograd.grad(term, prediction.estimate)
        losses.append(term.item())
        with torch.no_grad():
            prediction.estimate -= step * gradient / gradient.norm()
    assert losses[-1] < 0.7 * losses[0]


def test_settings_are_those_of_the_loss(tiny):
    section = tiny.finetune.lclap.changed(s_n="previous", reduction="sum", decay=100)
    loss = LatentClapLoss(frozen(), ABAR, **section.model_dump())
    assert (loss.s_n, loss.reduction, loss.decay) == ("previous", "sum", 100)
