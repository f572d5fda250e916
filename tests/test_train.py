"""The training loop: batches, schedules, resume, averages, failures."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foleylib import train
from foleylib.params_schema import Train

DATA = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
TARGET = DATA @ torch.tensor([[1.0], [-2.0], [0.5]])


def settings(**changes):
    values = {"steps": 8, "batch_size": 4, "lr": 0.05, "warmup": 2, "checkpoint_every": 3, "ema_decay": 0.9}
    return Train(**(values | changes))


def load(indices):
    return {"x": DATA[indices], "y": TARGET[indices]}


def linear(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 1)


def squares(module, batch, generator):
    return {"l2": (module(batch["x"]) - batch["y"]).square().mean()}


def fit(module, options, scratch, *, loss=squares, load=load, **more):
    return train.fit({"m": train.Player(module, loss, {"l2": 1.0})}, load, len(DATA), options, seed=3, scratch=scratch,
                     device="cpu", **more)  # fmt: skip


@given(st.integers(0, 99), st.integers(1, 30), st.integers(1, 12))
def test_every_epoch_is_a_permutation(seed, n, batch):
    seen = np.concatenate([train.batch_indices(seed, step, n, batch) for step in range(-(-3 * n // batch))])
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_are_shuffled_anew():
    orders = {tuple(train.batch_indices(seed, step, 20, 20)) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4


def test_learning_rate():
    constant, cosine = settings(steps=100, warmup=10, lr=2.0), settings(steps=100, warmup=0, lr=2.0, schedule="cosine")
    assert [train.learning_rate(s, constant) for s in (0, 4, 9, 10, 99)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0])
    assert [train.learning_rate(s, cosine) for s in (0, 50, 100)] == pytest.approx([2.0, 1.1, 0.2])
    warm = settings(steps=100, warmup=10, lr=2.0, schedule="cosine")
    assert train.learning_rate(4, warm) == pytest.approx(train.learning_rate(4, cosine) / 2)


def test_generators_depend_on_their_key_alone():
    draws = [torch.rand(4, generator=train.step_generator("cpu", *key)) for key in [(0, 1, 0), (0, 1, 0), (0, 2, 0)]]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_unknown_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="device is 'cuda'.*params.yaml"):
        train.pick_device("cuda")


def test_fit_learns_and_keeps_the_global_stream(tmp_path):
    module, before = linear(), torch.random.get_rng_state()
    history = fit(module, settings(steps=120, batch_size=10, lr=0.1), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(history.columns) == ["step", "l2", "grad_norm"] and list(history.step) == list(range(1, 121))
    assert history.l2.iloc[-1] < 1e-3 * history.l2.iloc[0]
    assert torch.allclose(module.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.1) and not module.training


def adversaries(fails_at=None):
    """A generator and a discriminator that joins at step 4; both draw noise, one has dropout."""
    made, judged = nn.Sequential(linear(1), nn.Dropout(0.3)), nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))  # fmt: skip
    torch.manual_seed(2)
    nn.init.normal_(judged[0].weight), nn.init.normal_(judged[2].weight)
    nn.init.zeros_(judged[0].bias), nn.init.zeros_(judged[2].bias)

    def generate(module, batch, generator):
        if batch["step"] == fails_at:
            raise InterruptedError
        noisy = module(batch["x"] + torch.randn(batch["x"].shape, generator=generator))
        return {"l2": (noisy - batch["y"]).square().mean(), "fool": -judged(noisy).mean()}

    def discriminate(module, batch, generator):
        with torch.no_grad():
            fake = made(batch["x"] + torch.randn(batch["x"].shape, generator=generator))
        return {"d": (module(fake).mean() - module(batch["y"]).mean()).square()}

    return {
        "g": train.Player(made, generate, {"l2": 1.0, "fool": 0.1}),
        "d": train.Player(judged, discriminate, {"d": 1.0}, start=4),
    }


def run_adversaries(players, scratch, **changes):
    def score():
        return {"weight": players["g"].module[0].weight.sum()}

    options = settings(steps=12, validate_every=5, schedule="cosine", **changes)
    return train.fit(players, load, len(DATA), options, seed=3, scratch=scratch, device="cpu", validate=score)


@pytest.mark.parametrize("stopped", [4, 7, 11])
def test_resumed_run_is_the_unbroken_run(tmp_path, stopped):
    unbroken = adversaries()
    expected = run_adversaries(unbroken, tmp_path / "a")
    with pytest.raises(InterruptedError):
        run_adversaries(adversaries(fails_at=stopped), tmp_path / "b")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["state.pt"]
    resumed = adversaries()
    torch.rand(7)  # the global stream stands elsewhere
    history = run_adversaries(resumed, tmp_path / "b")
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    for name in ("g", "d"):
        pairs = zip(unbroken[name].module.state_dict().values(), resumed[name].module.state_dict().values())
        assert all(torch.equal(a, b) for a, b in pairs)
    assert expected.d.isna().sum() == 4 and expected.val_weight.notna().sum() == 3


def test_waiting_player_does_not_move(tmp_path):
    players = adversaries()
    before = players["d"].module[0].weight.clone()
    options = settings(steps=4)
    train.fit(players, load, len(DATA), options, seed=3, scratch=tmp_path, device="cpu")
    assert torch.equal(players["d"].module[0].weight, before)


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    def bad(module, batch, generator):
        return {"l2": squares(module, batch, generator)["l2"] / (0 if batch["step"] == 2 else 1)}

    module = linear()
    with pytest.raises(FloatingPointError, match="not finite at step 2.*learning rate"):
        fit(module, settings(), tmp_path, loss=bad)
    assert torch.isfinite(module.weight).all()


def test_no_clips_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no training clip"):
        train.fit({}, load, 0, settings(), seed=0, scratch=tmp_path, device="cpu")


def test_accumulated_batches_equal_a_large_one(tmp_path):
    large, parts = linear(), linear()
    fit(large, settings(batch_size=8), tmp_path / "a")
    fit(parts, settings(batch_size=2, accumulate=4), tmp_path / "b")
    assert torch.allclose(large.weight, parts.weight, atol=1e-6) and torch.allclose(large.bias, parts.bias, atol=1e-6)


def test_gradient_norm_is_clipped(tmp_path):
    free, clipped = linear(), linear()
    options = {"steps": 1, "warmup": 0, "ema_decay": 0.0, "weight_decay": 0.0}
    history = fit(free, settings(**options, clip_norm=1e9), tmp_path / "a")
    assert history.grad_norm[0] > 0.1
    again = fit(clipped, settings(**options, clip_norm=1e-12), tmp_path / "b")
    assert again.grad_norm[0] == history.grad_norm[0]
    moved = [(m.weight - linear().weight).abs().max() for m in (free, clipped)]
    assert moved[1] < 0.1 * moved[0]


def test_average_of_weights_follows_its_rule(golden):
    case, module = golden("11_ema"), nn.Linear(4, 3, bias=False)
    module.weight.data = torch.from_numpy(case.inputs["w0"].copy())
    accelerator = SimpleNamespace(prepare=lambda *parts: parts)
    side = train._Side(
        train.Player(module, squares, {}), settings(ema_decay=case.manifest["config"]["decay"]), accelerator
    )
    for change, expected in zip(case.inputs["increments"], case.outputs["shadow"]):
        module.weight.data += torch.from_numpy(change)
        side.ema.step(side.weights)
        assert np.allclose(side.ema.shadow_params[0].numpy(), expected, atol=2e-6)


def test_averages_are_validated_and_kept(tmp_path):
    module, raw, seen = linear(), [], []

    def record(module, batch, generator):
        raw.append(module.weight.detach().clone())  # before step n: what step n - 1 left
        return squares(module, batch, generator)

    def validate():
        assert not module.training and not torch.is_grad_enabled()
        seen.append(module.weight.clone())
        return {"w": module.weight[0, 0]}

    history = fit(module, settings(validate_every=1, ema_decay=0.5), tmp_path, loss=record, validate=validate)
    averages = [raw[0]]
    for n, weight in enumerate(raw[1:], 1):
        d = min(0.5, (1 + n) / (10 + n))
        averages.append(d * averages[-1] + (1 - d) * weight)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(averages[1:], seen))
    assert torch.equal(module.weight, seen[-1]) and not torch.allclose(seen[-2], raw[-1])
    assert history.val_w.tolist() == [float(w[0, 0]) for w in seen]


def test_validation_happens_when_it_should_and_changes_nothing(tmp_path):
    watched, alone = linear(), linear()
    history = fit(watched, settings(validate_every=3), tmp_path / "a", validate=lambda: {"r": torch.rand(1)})
    fit(alone, settings(validate_every=3), tmp_path / "b")
    assert history.step[history.val_r.notna()].tolist() == [3, 6, 8]
    assert torch.equal(watched.weight, alone.weight)


def test_without_average_the_last_weights_stay(tmp_path):
    plain, averaged = linear(), linear()
    fit(plain, settings(ema_decay=0.0), tmp_path / "a")
    fit(averaged, settings(ema_decay=0.9), tmp_path / "b")
    assert not torch.equal(plain.weight, averaged.weight)


def test_frozen_parameters_do_not_move(tmp_path):
    module = linear()
    module.bias.requires_grad_(False)
    before = module.bias.clone()
    fit(module, settings(), tmp_path)
    assert torch.equal(module.bias, before)


def test_state_is_replaced_at_once_and_forgotten(tmp_path):
    train.save_atomically({"a": 1}, tmp_path / "run" / "state.pt")
    train.save_atomically({"a": 2}, tmp_path / "run" / "state.pt")
    assert torch.load(tmp_path / "run" / "state.pt") == {"a": 2}
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["state.pt"]
    train.forget(tmp_path / "run")
    train.forget(tmp_path / "run")
    assert not (tmp_path / "run").exists()
