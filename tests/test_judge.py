"""The judge: storage, seeds, augmented training terms."""

import numpy as np
import pytest
import torch

from foleylib import judge, panns


def waves(batch, samples, seed=0):
    """Clips of decaying tones in noise, float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    tones = np.sin(2 * np.pi * rng.uniform(100, 4000, (batch, 1)) * time) * np.exp(-time)
    return (0.5 * tones + 0.02 * rng.normal(size=(batch, samples))).clip(-1, 1).astype(np.float32)


LABELS = ("low", "high", "noise")
TINY = judge.JudgeConfig(widths=(4, 8, 8), embedding_dim=8)


def test_judge_round_trip(tmp_path):
    model = judge.build_judge(TINY, LABELS, seed=1)
    model.features(torch.from_numpy(waves(4, 16000)))  # moves the statistics of bn0
    judge.save_judge(model, tmp_path)
    found = judge.load_judge(tmp_path)
    assert found.model.labels == LABELS and (found.dim, found.rate) == (8, 16000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(waves(3, 16000)))
    outputs = found.embed(waves(3, 16000), batch_size=3)
    assert np.array_equal(outputs["logits"], expected["logits"].numpy())
    single = found.embed(waves(3, 16000), batch_size=1)
    assert np.allclose(single["embedding"], outputs["embedding"], atol=1e-5)
    with pytest.raises(ValueError, match="run the judge stage first"):
        judge.load_judge(tmp_path / "absent")
    with pytest.raises(ValueError, match="each once"):
        judge.build_judge(TINY, ("a", "a"), seed=0)


def test_judge_is_drawn_from_its_seed():
    one, same, other = (judge.build_judge(TINY, LABELS, seed=s).fc1.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_judge_terms_are_drawn_from_the_generator_and_can_be_learned():
    model = judge.build_judge(TINY, LABELS, seed=0).train()
    time, targets = torch.arange(8000) / 16000, torch.tensor([0, 1, 2] * 3)
    tones = [torch.sin(2 * torch.pi * hz * time) for hz in (200, 3000)]
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=8000).astype(np.float32))
    clips = 0.3 * torch.stack([*tones, noise] * 3)
    first, again, other = (
        judge.judge_terms(model, clips, targets, generator=torch.Generator().manual_seed(s))["cross_entropy"]
        for s in (1, 1, 2)
    )
    assert first == again != other
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        loss = judge.judge_terms(model, clips, targets, generator=generator, mixup_alpha=0.0)["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5 * first


def test_augmentations_keep_what_they_promise():
    clips = torch.from_numpy(waves(8, 4000))
    moved = panns.gain_and_shift(clips, generator=torch.Generator().manual_seed(0), gain_db=6.0)
    gains = moved.abs().amax(dim=1) / clips.abs().amax(dim=1)
    assert gains.min() >= 0.501 and gains.max() <= 1.996
    assert torch.allclose(moved.sort().values, (clips * gains[:, None]).sort().values, atol=1e-6)
    ones = torch.ones(8, 1, 100, 64)
    masked = panns.spec_augment(ones, generator=torch.Generator().manual_seed(0), stripes=1, time=0.1, frequency=0.1)
    columns, rows = masked.sum(dim=3)[:, 0], masked.sum(dim=2)[:, 0]
    assert ((columns == 0).sum(dim=1) <= 10).all() and ((rows == 0).sum(dim=1) <= 6).all() and (masked == 0).any()
    targets = torch.eye(8)
    features, mixed = panns.mixup(targets, targets, generator=torch.Generator().manual_seed(0), alpha=1.0)
    assert torch.equal(features, mixed) and torch.allclose(mixed.sum(dim=1), torch.ones(8)) and (mixed < 1).any()
    with pytest.raises(ValueError, match="alpha"):
        panns.mixup(targets, targets, generator=torch.Generator(), alpha=-1)


def test_fit_learns_two_classes(tiny, tmp_path):
    from foleylib.params_schema import Train

    steps = Train(steps=50, batch_size=8, lr=1e-2, warmup=5, validate_every=25, ema_decay=0.0)
    settings = tiny.judge.model_copy(update={"train": steps, "mixup_alpha": 0.0})
    time, rng = torch.arange(8000) / 16000, np.random.default_rng(0)
    low, high = ([0.3 * torch.sin(2 * torch.pi * hz * time) for hz in rng.uniform(*band, 8)] for band in [(200, 500), (2000, 5000)])  # fmt: skip
    clips, targets = torch.stack(low + high), np.repeat([0, 1], 8)
    held = clips[::2], torch.from_numpy(targets[::2])
    model, history = judge.fit(settings, clips, targets, ["low", "high"], rate=16000, seed=0, scratch=tmp_path / "s",
                               device="cpu", held_out=held)  # fmt: skip
    assert history.cross_entropy.iloc[-5:].mean() < 0.5 * history.cross_entropy.iloc[:5].mean()
    assert history.val_accuracy.iloc[-1] == 1.0 and not model.training
    judge.save_judge(model, tmp_path / "judge")
    found = judge.load_judge(tmp_path / "judge")
    assert found.model.labels == ("low", "high")
    assert np.array_equal(found.embed(clips.numpy())["logits"].argmax(1), targets)
