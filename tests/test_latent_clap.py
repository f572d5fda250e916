"""The Latent CLAP encoder and its loss: sizes, gradients, closed forms of s_n and w(n), training, agreement, storage."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foleylib import agreement, diffusion, foundation, latent_clap, ldm
from foleylib.params_base import Train
from foleylib.params_foley import LatentClap as Section
from foleylib.params_foley import LatentClapLoss

ABAR = diffusion.schedule()
TINY = latent_clap.LatentClapConfig(channels=2, bands=4, widths=(8, 12), dim=6, dropout=0.5, scale=0.5)
CHOICES = ("clean", "previous", "noisy")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


def frozen(config=TINY, seed=0):
    """An encoder as `load` gives it, whose embedding depends on the latents: no biases, batch norms that have seen some."""
    model = latent_clap.build(config, seed=seed).requires_grad_(False)
    for layer in (model.fc1, model.out):
        layer.bias.zero_()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the dropout, which is on while the batch norms see their batch
        model.train()(noise(16, config.channels, 8, config.bands, seed=9))
    return model.eval()


def prediction_at(n, *, error=0.0, seed=0):
    """Latents z_0, their prediction at steps n, and an estimate that is off by `error`."""
    n = torch.as_tensor(n)
    z_0, eps = noise(len(n), 2, 8, 4, seed=seed), noise(len(n), 2, 8, 4, seed=seed + 1)
    estimate = (eps + error * noise(len(n), 2, 8, 4, seed=seed + 2)).requires_grad_()
    return z_0, diffusion.Prediction(diffusion.add_noise(z_0, eps, n, ABAR), n, eps, estimate)


def latents(n, seed=0):
    """Clips whose embedding can be read from their latents: the direction of the mean of each channel and band."""
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((n, 2, 1, 4))
    means = level + 0.1 * rng.standard_normal((n, 2, 8, 4))
    moments = np.concatenate([means, np.full_like(means, -8.0)], axis=1).astype(np.float32)
    embeddings = level.reshape(n, 8)[:, :6]
    return ldm.Latents(
        moments, (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), 0.5
    )


def section(**changes):
    train = Train(steps=60, batch_size=16, lr=3e-3, warmup=5, validate_every=20, ema_decay=0.9)
    settings = {"corpus": "broad", "widths": [8, 12], "dropout": 0.0, "normalise": True, "scaled": True, "train": train,
                "source": "scratch"}  # fmt: skip
    return Section(**(settings | changes))


def test_published_size():
    model = latent_clap.build(latent_clap.LatentClapConfig(), seed=0).eval()
    assert ldm.parameters(model) == 5_215_520  # 5.22 M
    assert model(noise(1, 8, 256, 16)).shape == (1, 512)
    shorter = model(noise(2, 8, 32, 16))
    torch.testing.assert_close(shorter.norm(dim=1), torch.ones(2))


def test_norm_of_the_embedding_is_a_choice():
    z = noise(3, 2, 8, 4)
    free = latent_clap.LatentClap(latent_clap.LatentClapConfig(**{**vars(TINY), "normalise": False})).eval()
    unit = frozen()
    free.load_state_dict(unit.state_dict())
    assert unit.normalise and not free.normalise
    torch.testing.assert_close(torch.nn.functional.normalize(free(z), dim=1), unit(z))
    assert not torch.allclose(free(z).norm(dim=1), torch.ones(3), atol=0.05)


def test_unscaled_encoder_divides_by_the_scale():
    z = noise(3, 2, 8, 4)
    raw = latent_clap.LatentClap(latent_clap.LatentClapConfig(**{**vars(TINY), "scaled": False})).eval()
    raw.load_state_dict(frozen().state_dict())
    torch.testing.assert_close(raw(z), frozen()(z / TINY.scale))
    assert not torch.allclose(raw(z), frozen()(z))


def test_pooling_over_time_and_front_norm():
    """A constant latent has no time in it: max + mean over any number of frames is the same inside."""
    model = frozen(latent_clap.LatentClapConfig(channels=2, bands=2, widths=(4,), dim=3))
    with torch.no_grad():
        model.blocks[0].conv1.weight[..., [0, 2], :] = 0  # no neighbours in time, so that borders are no different
        model.blocks[0].conv2.weight[..., [0, 2], :] = 0
    z = noise(2, 2, 1, 2)
    torch.testing.assert_close(model(z.expand(-1, -1, 4, -1)), model(z.expand(-1, -1, 32, -1)))
    moved = z.repeat(1, 1, 4, 1) * torch.tensor([1.0, 7.0])  # one band louder, and bn0 told so
    model.bn0.running_mean *= torch.tensor([1.0, 7.0])
    model.bn0.running_var = (model.bn0.running_var + model.bn0.eps) * torch.tensor([1.0, 49.0]) - model.bn0.eps
    torch.testing.assert_close(model(moved), frozen_like(model)(z.repeat(1, 1, 4, 1)), atol=1e-5, rtol=1e-4)


def frozen_like(model):
    """The same encoder with the batch norm in front as it was."""
    same = frozen(model.config)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("bn0")}
    same.load_state_dict(state, strict=False)
    return same


def test_encoder_refuses_other_latents():
    model = frozen()
    for shape in ((1, 3, 8, 4), (1, 2, 8, 5), (1, 2, 3, 4), (2, 8, 4)):
        with pytest.raises(ValueError, match=r"give latents \(B, 2, T >= 4, 4\)"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match="bands=4: 3 widths pool 8 bands"):
        latent_clap.LatentClapConfig(bands=4, widths=(4, 4, 4))


def test_dropout_is_for_training_alone():
    model, z = frozen(), noise(4, 2, 8, 4)
    assert torch.equal(model(z), model(z))
    model.train()
    assert not torch.allclose(model(z), model(z))


def test_build_is_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    assert ldm.digest(frozen(seed=1)) == ldm.digest(frozen(seed=1)) != ldm.digest(frozen(seed=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_round_trip(tmp_path):
    model, z = frozen(), noise(3, 2, 8, 4)
    model.save(tmp_path)
    model.save(tmp_path)  # over what is there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    found = latent_clap.load(tmp_path)
    assert found.config == TINY and not found.training and not any(p.requires_grad for p in found.parameters())
    assert torch.equal(found(z), model(z))
    with pytest.raises(ValueError, match="run the latent_clap stage first"):
        latent_clap.load(tmp_path / "absent")


def test_load_takes_half_precision(tmp_path):
    model = frozen()
    latent_clap.LatentClap.save(frozen().half(), tmp_path)
    found = latent_clap.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in found.parameters())
    torch.testing.assert_close(found(noise(3, 2, 8, 4)), model(noise(3, 2, 8, 4)), atol=5e-3, rtol=0)


def test_weight_over_steps():
    n = torch.tensor([0, 200, 400])
    torch.testing.assert_close(latent_clap.weight(n), torch.tensor([1.0, 0.1, 0.01]))
    assert latent_clap.weight(50, decay=50) == pytest.approx(0.1)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_perfect_estimate_gives_the_forward_process(choice):
    z_0, exact = prediction_at([0, 1, 400, 999])
    with torch.no_grad():
        s_n = latent_clap.output_at(exact, ABAR, choice)
    before = torch.cat([torch.ones(1), ABAR[:-1]])
    wanted = {"clean": z_0, "noisy": exact.z_n, "previous": diffusion.add_noise(z_0, exact.eps, exact.n, before)}
    torch.testing.assert_close(s_n, wanted[choice], atol=2e-4, rtol=1e-3)
    if choice == "previous":
        torch.testing.assert_close(s_n[0], z_0[0], atol=1e-5, rtol=1e-5)  # the last step leaves no noise


def test_choices_differ_where_the_estimate_errs():
    _, wrong = prediction_at([100, 300], error=0.5)
    made = [latent_clap.output_at(wrong, ABAR, choice) for choice in CHOICES]
    assert not torch.allclose(made[0], made[1]) and not torch.allclose(made[1], made[2], atol=1e-3)
    with pytest.raises(ValueError, match="choice='dirty'"):
        latent_clap.output_at(wrong, ABAR, "dirty")


@pytest.mark.parametrize("choice", CHOICES)
def test_gradient_reaches_the_estimate_alone(choice):
    encoder, (_, made) = frozen(), prediction_at([10, 150], error=0.1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    E_audio = torch.nn.functional.normalize(noise(2, 6, seed=5), dim=1)
    latent_clap.loss_term(encoder, made, E_audio, ABAR, choice=choice).backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert (made.estimate.grad.flatten(1).norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize("choice", CHOICES)
def test_gradient_is_that_of_finite_differences(choice):
    encoder, (_, made) = frozen(), prediction_at([30, 90], error=0.1)
    E_audio, way = torch.nn.functional.normalize(noise(2, 6, seed=5), dim=1), noise(2, 2, 8, 4, seed=6)

    def term(step):
        moved = diffusion.Prediction(made.z_n, made.n, made.eps, made.estimate.detach() + step * way)
        return float(latent_clap.loss_term(encoder, moved, E_audio, ABAR, choice=choice, reduction="sum"))

    latent_clap.loss_term(encoder, made, E_audio, ABAR, choice=choice, reduction="sum").backward()
    slope = float((made.estimate.grad * way).sum())
    assert (term(1e-3) - term(-1e-3)) / 2e-3 == pytest.approx(slope, rel=0.03, abs=1e-4)


def test_loss_is_the_weighted_squared_error():
    encoder, (z_0, made) = frozen(), prediction_at([0, 200, 400])
    E_audio = torch.nn.functional.normalize(noise(3, 6, seed=5), dim=1)
    error = (E_audio - encoder(z_0)).square()
    wanted = (torch.tensor([1.0, 0.1, 0.01]) * error.sum(1)).mean()
    summed, mean = (latent_clap.loss_term(encoder, made, E_audio, ABAR, reduction=r) for r in ("sum", "mean"))
    torch.testing.assert_close(summed, wanted, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(mean, summed / 6)
    faster = latent_clap.loss_term(encoder, made, E_audio, ABAR, decay=1e-3, reduction="sum")
    torch.testing.assert_close(faster, error[0].sum() / 3, atol=1e-5, rtol=1e-3)
    nothing = latent_clap.loss_term(encoder, made, encoder(z_0), ABAR)
    assert nothing.item() == pytest.approx(0, abs=1e-7)


def test_loss_refuses_what_it_does_not_know():
    encoder, (_, made) = frozen(), prediction_at([1])
    with pytest.raises(ValueError, match="reduction='max'"):
        latent_clap.loss_term(encoder, made, torch.zeros(1, 6), ABAR, reduction="max")
    with pytest.raises(ValueError, match="training mode"):
        latent_clap.loss_term(encoder.train(), made, torch.zeros(1, 6), ABAR)


def test_loss_is_exact_under_autocast():
    encoder, (_, made) = frozen(), prediction_at([10, 20], error=0.1)
    E_audio = torch.nn.functional.normalize(noise(2, 6, seed=5), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = diffusion.Prediction(made.z_n, made.n, made.eps, made.estimate.bfloat16())
        term = latent_clap.loss_term(encoder, rounded, E_audio, ABAR)
    same = diffusion.Prediction(made.z_n, made.n, made.eps, made.estimate.bfloat16().float())
    assert term.dtype == torch.float32
    assert torch.equal(term, latent_clap.loss_term(encoder, same, E_audio, ABAR))


def test_gradient_of_s_n_is_that_of_the_closed_form():
    """d s_n / d estimate: DDIM's step takes back in noise most of what it gives in signal, so "previous" hardly moves."""
    n = torch.tensor([0, 60, 400])
    a, before = ABAR[n], torch.cat([torch.ones(1), ABAR])[n]
    wanted = {"clean": -((1 - a) / a).sqrt(), "noisy": -(1 - a).sqrt(),
              "previous": (1 - before).sqrt() - (before * (1 - a) / a).sqrt()}  # fmt: skip
    for choice, slope in wanted.items():
        _, made = prediction_at(n)
        latent_clap.output_at(made, ABAR, choice).sum().backward()
        torch.testing.assert_close(made.estimate.grad[:, 0, 0, 0], slope, atol=1e-5, rtol=1e-3)
    assert (wanted["previous"][1:] / wanted["clean"][1:] < 0.05).all()


@pytest.mark.parametrize(("choice", "step"), [("clean", 0.3), ("noisy", 0.3), ("previous", 10.0)])
def test_descent_brings_the_prediction_to_the_embedding(choice, step):
    """Steps down the gradient in the estimate alone bring E_latent nearer to another clip's embedding."""
    encoder, (_, made) = frozen(), prediction_at([60, 60])
    target = encoder(noise(2, 2, 8, 4, seed=8))
    losses = []
    for _ in range(15):
        term = latent_clap.loss_term(encoder, made, target, ABAR, choice=choice, reduction="sum")
        (gradient,) = torch.autograd.grad(term, made.estimate)
        losses.append(term.item())
        with torch.no_grad():
            made.estimate -= step * gradient / gradient.norm()
    assert losses[-1] < 0.7 * losses[0]


def test_loss_for_the_training_of_an_ldm():
    encoder, (_, made) = frozen(), prediction_at([5, 50], error=0.2)
    E_audio, settings = noise(2, 6, seed=3), LatentClapLoss(s_n="previous", reduction="sum", decay=100)
    made_term = latent_clap.loss(encoder, ABAR, 0.5, settings)(made, E_audio)
    options = {"choice": "previous", "decay": 100, "reduction": "sum"}
    assert torch.equal(made_term, latent_clap.loss_term(encoder, made, E_audio, ABAR, **options))
    with pytest.raises(ValueError, match="scale=0.7: the encoder was trained with 0.5"):
        latent_clap.loss(encoder, ABAR, 0.7, settings)


@pytest.mark.parametrize("changes", [{}, {"scaled": False, "normalise": False}])
def test_fit_learns_and_is_frozen(tmp_path, changes):
    data, val = latents(96), latents(24, seed=1)
    options = {"val": val, "dim": 6, "seed": 0, "device": "cpu"}
    model, history = latent_clap.fit(section(**changes), data, scratch=tmp_path / "a", **options)
    assert history.mse.iloc[-10:].mean() < 0.5 * history.mse.iloc[:5].mean()
    points = history[["val_mse", "val_cosine"]].dropna()
    assert list(points.index) == [19, 39, 59] and points.val_cosine.iloc[-1] > 0.8
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert (model.config.scale, model.config.scaled) == (0.5, changes.get("scaled", True))
    found = agreement.agreement(*agreement.embed(model, val))
    assert found["cosine"] == pytest.approx(points.val_cosine.iloc[-1], abs=1e-5)
    if not changes:
        again, _ = latent_clap.fit(section(), data, scratch=tmp_path / "b", **options)
        assert ldm.digest(again) == ldm.digest(model)


def test_training_stage_and_bundle(tiny, tiny_paths, tiny_models, tmp_path, monkeypatch):
    folder, rng = tmp_path / "features" / "broad", np.random.default_rng(0)
    write_features(folder, rng, {"train": 8, "val": 4, "test": 4})
    for name, place in {"FEATURES": "features", "MODELS": "models", "SCRATCH": "scratch"}.items():
        monkeypatch.setattr(tiny_paths, name, tmp_path / place)
    train = Train(steps=2, batch_size=4, lr=1e-3, validate_every=1)
    cfg = SimpleNamespace(
        latent_clap=section(train=train), seed=0, device="cpu", precision="float32", corpora=tiny.corpora
    )
    history = latent_clap.make(cfg)
    out = tmp_path / "models" / "latent_clap"
    files = ["config.json", "history.csv", "model.safetensors", "provenance.json"]
    assert sorted(p.name for p in out.iterdir()) == files
    assert json.loads((out / "provenance.json").read_text())["corpus"]["kind"] == "synthetic"
    assert len(history) == 2 and not list((tmp_path / "scratch").glob("*/*"))
    made = latent_clap.load(out)
    assert (made.config.scale, made.config.dim, made.config.bands) == (pytest.approx(0.7), 6, 4)
    bundle = tmp_path / "bundled" / "latent_clap"
    monkeypatch.setattr(tiny_paths, "BUNDLED", bundle.parent)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    foundation.pack()
    assert json.loads((bundle / "provenance.json").read_text())["commit"] == "c0ffee"
    cfg.latent_clap = section(train=train, source="bundled")
    assert len(latent_clap.make(cfg)) == len(history)
    assert ldm.digest(latent_clap.load(out)) == ldm.digest(made.half().float())
    (bundle / "history.csv").unlink()
    foundation.pack()  # what came from the bundle is not packed again
    assert not (bundle / "history.csv").exists()
    cfg.latent_clap = section(widths=[8, 16], source="bundled")
    with pytest.raises(
        ValueError, match=r"latent_clap.widths differs from the bundle's .* or set latent_clap.source to"
    ):
        latent_clap.make(cfg)
    monkeypatch.setattr(tiny_paths, "BUNDLED", tmp_path / "none")
    with pytest.raises(ValueError, match=r"is missing: check out data/bundled, or set latent_clap.source to 'scratch'"):
        latent_clap.make(cfg)


def write_features(folder, rng, counts):
    """A folder of features as `features.compute` writes it, of two classes."""
    import pandas as pd

    folder.mkdir(parents=True)
    splits = [split for split, count in counts.items() for _ in range(count)]
    index = pd.DataFrame({"id": [f"clip{i}" for i in range(len(splits))], "split": splits})
    index["label"] = np.where(np.arange(len(splits)) % 2, "Rain", "DogBark")
    index.assign(target=0, prompt="").to_parquet(folder / "index.parquet", index=False)
    unit = rng.standard_normal((len(splits), 6)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    arrays = {"moments": rng.standard_normal((len(splits), 4, 8, 4)).astype(np.float32), "audio": unit, "text": unit}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "features.json").write_text(json.dumps({"models": "x"}))


def test_clips_of_a_split(tmp_path):
    write_features(tmp_path / "broad", np.random.default_rng(0), {"train": 3, "test": 9})
    index, data = agreement.clips(tmp_path / "broad", "test", 0.5)
    assert len(index) == len(data) == 9 and index.id[0] == "clip3"
    some, fewer = agreement.clips(tmp_path / "broad", "test", 0.5, limit=3)
    assert list(some.id) == ["clip3", "clip7", "clip11"]
    assert np.array_equal(fewer.embeddings, data.embeddings[[0, 4, 8]])
    with pytest.raises(ValueError, match="split='val'"):
        agreement.clips(tmp_path / "broad", "val", 0.5)


def test_class_means_are_of_the_training_clips(tmp_path):
    write_features(tmp_path / "broad", np.random.default_rng(0), {"train": 4, "test": 4})
    audio = np.load(tmp_path / "broad" / "audio.npy").astype(np.float64)
    rain, dog = audio[1] + audio[3], audio[0] + audio[2]  # labels alternate
    wanted = np.stack([x / np.linalg.norm(x) for x in (rain, dog, rain)])
    np.testing.assert_allclose(
        agreement.class_means(tmp_path / "broad", ["Rain", "DogBark", "Rain"]), wanted, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"labels \['Sea'\] have no training clip in broad"):
        agreement.class_means(tmp_path / "broad", ["Rain", "Sea"])


def test_agreement_of_equal_and_of_unrelated_embeddings():
    x, y = (np.random.default_rng(s).standard_normal((200, 16)) for s in (0, 1))
    same = agreement.agreement(3 * x, x)
    assert same.pop("mse") == pytest.approx(4 * np.square(x).mean())
    assert same == pytest.approx({"cosine": 1, "neighbour": 1, "neighbours": 1, "own_audio": 1})
    other = agreement.agreement(x, y)
    assert abs(other["cosine"]) < 0.1 and max(other["neighbour"], other["own_audio"]) < 0.05
    assert other["neighbours"] == pytest.approx(10 / 199, abs=0.03)  # by chance


def test_agreement_by_hand():
    """Four clips in the plane; the third's E_latent has gone to the other side."""
    angles = np.radians([[0, 20, 100, 110], [0, 20, -15, 110]])
    E_audio, E_latent = (np.stack([np.cos(a), np.sin(a)], 1) for a in angles)
    found = agreement.agreement(E_latent, E_audio)
    assert found["neighbour"] == pytest.approx(1 / 4)  # of 1: 0 in both; of 0: 2, not 1; of 2: 0, not 3; of 3: 1, not 2
    assert found["neighbours"] == 1  # all three others of four
    assert found["own_audio"] == pytest.approx(3 / 4)
    assert found["cosine"] == pytest.approx((3 + np.cos(np.radians(115))) / 4)
    with pytest.raises(ValueError, match="give the same"):
        agreement.agreement(E_latent[:2], E_audio[:2])


def test_embedding_falls_from_agreement_with_noise(tmp_path):
    data = latents(120)
    model, _ = latent_clap.fit(section(), data, dim=6, seed=0, scratch=tmp_path, device="cpu")
    table = agreement.by_noise(model, data, ABAR, levels=4, limit=100)
    assert list(table.columns) == ["n", "mse", "cosine", "neighbour", "neighbours", "own_audio"]
    assert table.n.tolist() == [0, 333, 666, 999]
    assert table.cosine.iloc[0] > 0.8 and abs(table.cosine.iloc[-1]) < 0.4
    assert table.cosine.is_monotonic_decreasing and table.mse.is_monotonic_increasing
    assert table.equals(agreement.by_noise(model, data, ABAR, levels=4, limit=100))


def test_scores_and_their_file(tmp_path):
    rng, labels = np.random.default_rng(0), ["a", "b"] * 20
    E_audio = rng.standard_normal((40, 6))
    E_latent = E_audio + 0.3 * rng.standard_normal((40, 6))
    rows = agreement.scores(E_latent, E_audio, labels, seed=3, bootstrap=50)
    found = {(r["class"], r["metric"]): r for r in rows}
    assert set(found) == {(c, m) for c in ("all", "a", "b") for m in ("cosine", "mse")}
    whole = agreement.agreement(E_latent, E_audio)
    for metric in ("cosine", "mse"):
        row = found["all", metric]
        assert row["value"] == pytest.approx(whole[metric]) and row["low"] < row["value"] < row["high"]
        parts = [found[c, metric]["value"] for c in "ab"]
        assert np.mean(parts) == pytest.approx(whole[metric]) and parts[0] != parts[1]
        assert (row["n"], found["a", metric]["n"], row["seed"]) == (40, 20, 3)
    few = agreement.scores(E_latent[:3], E_audio[:3], ["a", "a", "b"], bootstrap=5)
    assert {r["class"] for r in few} == {"all", "a"}  # one clip has no interval
    agreement.save_scores(tmp_path / "latent_clap.json", rows, corpus="broad", split="test", weights="f" * 64)
    made = json.loads((tmp_path / "latent_clap.json").read_text())
    assert set(made) == {"headline", "card", "scores"} and len(made["scores"]) == 6
    assert made["headline"] == pytest.approx({m: whole[m] for m in ("cosine", "mse")}, abs=1e-5)
    assert (made["card"]["run"], made["card"]["n"], made["card"]["corpus"]) == ("latent_clap", 40, "broad")
    assert set(made["scores"][0]) >= {"class", "metric", "embedder", "value", "low", "high", "n"}
