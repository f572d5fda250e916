"""The training loop: batches, schedules, resume, averages, failures, several processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import parallel_training
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foleylib import train
from foleylib.params.base import Train
from foleylib.paths import ROOT
from foleylib.runtime import step_generator

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


def job(scratch, seed=3):
    return train.Job(seed, scratch, device="cpu")


def fit(module, settings, scratch, *, loss=squares, load=load, seed=3, **how):
    trainable = train.Trainable(module, loss, {"l2": 1.0})
    return train.fit({"m": trainable}, load, len(DATA), settings, job(scratch, seed), **how)


# Batches


@given(st.integers(0, 99), st.integers(1, 30), st.integers(1, 12))
def test_every_epoch_is_a_permutation(seed, n, batch):
    drawn = np.concatenate([train.batch_indices(seed, step, n, batch) for step in range(-(-3 * n // batch))])
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_are_shuffled_anew():
    orders = {tuple(train.batch_indices(seed, step, 20, 20)) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4


def indices_by_definition(seed, step, n, batch):
    """The clips of a step, with the permutations of its epochs drawn at that step, as the first version of the loop
    did."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = {epoch: np.random.default_rng([seed, epoch]).permutation(n) for epoch in np.unique(positions // n)}
    return np.array([epochs[p // n][p % n] for p in positions])


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 64))
def test_indices_are_those_of_their_definition(seed, step, n, batch):
    result, expected = train.batch_indices(seed, step, n, batch), indices_by_definition(seed, step, n, batch)
    assert result.dtype == expected.dtype and result.shape == (batch,) and (result == expected).all()


def test_a_permutation_is_drawn_once_an_epoch(tmp_path, monkeypatch):
    keys, seed, generator = [], 2**33 + 1, np.random.default_rng  # a seed of no other test: permutations are kept
    monkeypatch.setattr(np.random, "default_rng", lambda key=None: keys.append(key) or generator(key))
    fit(linear(), settings(steps=10, batch_size=4), tmp_path, seed=seed)  # 40 clips of 10; step 2 is in two epochs
    own = [key for key in keys if isinstance(key, list) and key[0] == seed]  # modules draw too when first imported
    assert own == [[seed, epoch] for epoch in range(4)]


def test_learning_rate():
    constant, cosine = settings(steps=100, warmup=10, lr=2.0), settings(steps=100, warmup=0, lr=2.0, schedule="cosine")
    assert [train.learning_rate(s, constant) for s in (0, 4, 9, 10, 99)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0])
    assert [train.learning_rate(s, cosine) for s in (0, 50, 100)] == pytest.approx([2.0, 1.1, 0.2])
    warm = settings(steps=100, warmup=10, lr=2.0, schedule="cosine")
    assert train.learning_rate(4, warm) == pytest.approx(train.learning_rate(4, cosine) / 2)


# The update


def test_fit_learns_and_keeps_the_global_stream(tmp_path):
    module, before = linear(), torch.random.get_rng_state()
    history = fit(module, settings(steps=120, batch_size=10, lr=0.1), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(history.columns) == ["step", "l2", "grad_norm"] and list(history.step) == list(range(1, 121))
    assert history.l2.iloc[-1] < 1e-3 * history.l2.iloc[0]
    assert torch.allclose(module.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.1) and not module.training


def noisy_net():
    """A network with dropout and a batch norm, so that its weights depend on every random draw and on the mode."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))


def noisy_terms(module, batch, generator):
    estimate = module(batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator))
    return {"l2": (estimate - batch["y"]).square().mean(), "small": estimate.abs().mean()}


def fit_by_hand(module, loss, weights, options, seed):
    """The training written out on `torch.optim.AdamW` and an average by hand; returns a row a step."""
    params = list(module.parameters())
    average, rows = [p.detach().clone() for p in params], []
    adam = {"betas": options.betas, "weight_decay": options.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(params, options.lr, **adam)
    for step in range(options.steps):
        generator = step_generator("cpu", seed, step, 0)
        torch.manual_seed(generator.initial_seed())
        indices = indices_by_definition(seed, step, len(DATA), options.batch_size * options.accumulate)
        optimizer.param_groups[0]["lr"] = train.learning_rate(step, options)
        optimizer.zero_grad()
        row = {"step": step + 1}
        for part in np.array_split(indices, options.accumulate):
            terms = loss(module, load(part), generator)
            (sum(weights[name] * term for name, term in terms.items()) / options.accumulate).backward()
            for name, term in terms.items():
                row[name] = row.get(name, 0.0) + float(term.detach()) / options.accumulate
        row["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(params, options.clip_norm))
        optimizer.step()
        decay = min(options.ema_decay, (2 + step) / (11 + step))
        with torch.no_grad():
            for mean, param in zip(average, params):
                mean -= (1 - decay) * (mean - param)
        rows.append(row)
    if options.ema_decay:
        for mean, param in zip(average, params):
            param.data.copy_(mean)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.0, "weight_decay": 0.0, "warmup": 0},
        {"batch_size": 6, "accumulate": 3, "clip_norm": 0.05},
        {"steps": 15, "schedule": "cosine", "betas": (0.8, 0.99), "weight_decay": 0.3},
    ],
)
def test_weights_are_those_of_the_update_by_hand(tmp_path, changes):
    options, weights = settings(**changes), {"l2": 2.0, "small": 0.1}
    module, expected = noisy_net(), noisy_net()
    trainable = train.Trainable(module, noisy_terms, weights)
    history = train.fit({"m": trainable}, load, len(DATA), options, job(tmp_path))
    with torch.random.fork_rng():
        rows = fit_by_hand(expected.train(), noisy_terms, weights, options, seed=3)
    pd.testing.assert_frame_equal(history, rows, check_exact=True)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), expected.state_dict().values()))
    assert not torch.equal(module[0].weight, noisy_net()[0].weight)


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


def test_frozen_parameters_do_not_move(tmp_path):
    module = linear()
    module.bias.requires_grad_(False)
    before, weight = module.bias.clone(), module.weight.clone()
    fit(module, settings(), tmp_path)
    assert torch.equal(module.bias, before) and not torch.equal(module.weight, weight)


# Averages and validation


def test_average_of_weights_follows_its_rule(golden):
    case, module = golden("11_ema"), nn.Linear(4, 3, bias=False)
    module.weight.data = torch.from_numpy(case.inputs["w0"].copy())
    accelerator = SimpleNamespace(prepare=lambda *parts: parts, device=torch.device("cpu"))
    options = settings(ema_decay=case.manifest["config"]["decay"])
    side = train._Side(train.Trainable(module, squares, {}), options, accelerator)
    for change, expected in zip(case.inputs["increments"], case.outputs["shadow"]):
        module.weight.data += torch.from_numpy(change)
        side.ema.step(side.weights)
        assert np.allclose(side.ema.shadow_params[0].numpy(), expected, atol=2e-6)


def test_averages_are_validated_and_kept(tmp_path):
    module, raw, validated = linear(), [], []

    def record(module, batch, generator):
        assert module.training
        raw.append(module.weight.detach().clone())  # before step n: what step n - 1 left
        return squares(module, batch, generator)

    def validate():
        assert not module.training and not torch.is_grad_enabled()
        validated.append(module.weight.clone())
        return {"w": module.weight[0, 0]}

    history = fit(module, settings(validate_every=1, ema_decay=0.5), tmp_path, loss=record, validate=validate)
    averages = [raw[0]]
    for n, weight in enumerate(raw[1:], 1):
        d = min(0.5, (1 + n) / (10 + n))
        averages.append(d * averages[-1] + (1 - d) * weight)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(averages[1:], validated))
    assert torch.equal(module.weight, validated[-1]) and not torch.allclose(validated[-2], raw[-1])
    assert history.val_w.tolist() == [float(w[0, 0]) for w in validated]


def test_validation_happens_when_it_should_and_changes_nothing(tmp_path):
    watched, alone = linear(), linear()
    history = fit(watched, settings(validate_every=3), tmp_path / "a", validate=lambda: {"r": torch.rand(1)})
    fit(alone, settings(validate_every=3), tmp_path / "b")
    assert history.step[history.val_r.notna()].tolist() == [3, 6, 8]
    assert torch.equal(watched.weight, alone.weight)


# Several modules, killed runs, failures


def adversaries(fails_at=None):
    """A generator and a discriminator that joins at step 4; both draw noise, one has dropout."""
    generator_net = nn.Sequential(linear(1), nn.Dropout(0.3))
    critic = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    torch.manual_seed(2)
    for layer in (critic[0], critic[2]):
        nn.init.normal_(layer.weight)
        nn.init.zeros_(layer.bias)

    def generate(module, batch, generator):
        if batch["step"] == fails_at:
            raise InterruptedError
        noisy = module(batch["x"] + torch.randn(batch["x"].shape, generator=generator))
        return {"l2": (noisy - batch["y"]).square().mean(), "fool": -critic(noisy).mean()}

    def discriminate(module, batch, generator):
        with torch.no_grad():
            fake = generator_net(batch["x"] + torch.randn(batch["x"].shape, generator=generator))
        return {"d": (module(fake).mean() - module(batch["y"]).mean()).square()}

    return {
        "g": train.Trainable(generator_net, generate, {"l2": 1.0, "fool": 0.1}),
        "d": train.Trainable(critic, discriminate, {"d": 1.0}, start=4),
    }


def run_adversaries(trainables, scratch, **changes):
    def score():
        return {"weight": trainables["g"].module[0].weight.sum()}

    options = settings(steps=12, validate_every=5, schedule="cosine", **changes)
    return train.fit(trainables, load, len(DATA), options, job(scratch), validate=score)


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


def test_state_is_read_to_the_cpu(tmp_path, monkeypatch):
    with pytest.raises(InterruptedError):
        run_adversaries(adversaries(fails_at=7), tmp_path)
    devices, read = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **o: devices.append(o.get("map_location")) or read(*a, **o))
    run_adversaries(adversaries(), tmp_path)
    assert [torch.device(device).type for device in devices] == ["cpu"]


def test_module_that_waits_does_not_move(tmp_path):
    trainables = adversaries()
    before = trainables["d"].module[0].weight.clone()
    train.fit(trainables, load, len(DATA), settings(steps=4), job(tmp_path))
    assert torch.equal(trainables["d"].module[0].weight, before)
    train.fit(trainables, load, len(DATA), settings(steps=5), job(tmp_path))
    assert not torch.equal(trainables["d"].module[0].weight, before)


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    def bad(module, batch, generator):
        return {"l2": squares(module, batch, generator)["l2"] / (0 if batch["step"] == 2 else 1)}

    module = linear()
    with pytest.raises(FloatingPointError, match="not finite at step 2.*learning rate"):
        fit(module, settings(), tmp_path, loss=bad)
    assert torch.isfinite(module.weight).all()


def test_term_without_a_weight_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="loss term 'small' has no weight; weights are given for l2"):
        fit(noisy_net(), settings(), tmp_path, loss=noisy_terms)


def test_no_clips_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no training clip"):
        train.fit({}, load, 0, settings(), job(tmp_path))


def test_finished_job_forgets_its_state(tmp_path):
    with pytest.raises(InterruptedError):
        run_adversaries(adversaries(fails_at=7), tmp_path / "run")
    assert (tmp_path / "run" / "state.pt").is_file()
    job(tmp_path / "run").forget()
    job(tmp_path / "run").forget()
    assert not (tmp_path / "run").exists()


# Several processes


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = Path(parallel_training.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([*command, script, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["seeds"] != second["seeds"]  # each process has its own random draws
    assert sorted(first["clips"] + second["clips"]) == sorted(parallel_training.clips_of_a_run())

    # One module, trained on the clips of both: not what the clips of one process give.
    together = parallel_training.fit(tmp_path / "together")
    alone = parallel_training.fit(tmp_path / "alone", share=slice(0, None, 2))
    for name, weights in first["weights"].items():
        assert torch.equal(weights, second["weights"][name])
        torch.testing.assert_close(weights, together["weights"][name], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(weights, alone["weights"][name], atol=1e-3)
    assert alone["clips"] == first["clips"]


# The best weights


@pytest.mark.parametrize("killed_at", [None, 5, 9])
def test_the_weights_of_the_least_validation_score_stay(tmp_path, killed_at):
    """Scores fall until step 4 and rise from there, whatever the weights are."""
    module, seen = linear(), {}

    def validate():
        step = len(seen) + 1
        seen[step] = module.weight.detach().clone()
        if killed_at and step == killed_at and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            del seen[step]
            raise KeyboardInterrupt
        return {"score": abs(step - 4)}

    options = settings(steps=10, validate_every=1, checkpoint_every=2)
    how = {"validate": validate, "best": "score"}
    if killed_at:
        with pytest.raises(KeyboardInterrupt):
            fit(module, options, tmp_path, **how)
        for step in [step for step in seen if step > (killed_at - 1) // 2 * 2]:
            del seen[step]
        module = linear()
    fit(module, options, tmp_path, **how)
    assert torch.equal(module.weight, seen[4]) and not torch.equal(module.weight, seen[10])
