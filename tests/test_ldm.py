"""The latent diffusion model: the U-Net's heads and sizes, cached latents, training, held-out loss."""

import numpy as np
import pytest
import torch

from foleylib import diffusion, ldm
from foleylib.params_schema import Train

ABAR = diffusion.schedule()
MILLIONS = {"audioldm-s-full": 185.04, "audioldm-m-full": 415.95, "audioldm-l-full": 739.14}


def small(seed=0):
    return ldm.build([8, 16], 4, layers=1, groups=8, dim=6, latent_channels=2, seed=seed)


def latents(n=4, seed=0):
    rng = np.random.default_rng(seed)
    moments = np.concatenate([rng.standard_normal((n, 2, 8, 4)), np.full((n, 2, 8, 4), -8.0)], 1).astype(np.float32)
    embeddings = rng.standard_normal((n, 6)).astype(np.float32)
    return ldm.Latents(moments, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), 1.0)


@pytest.mark.parametrize("name", MILLIONS)
def test_published_sizes_and_heads(name):
    with torch.device("meta"):
        unet = ldm.build(**ldm.PUBLISHED[name])
    assert ldm.parameters(unet) / 1e6 == pytest.approx(MILLIONS[name], abs=0.005)
    heads = heads_by_width(unet)
    assert heads == {c: c // ldm.PUBLISHED[name]["head_channels"] for c in ldm.PUBLISHED[name]["channels"][1:]}


def heads_by_width(unet):
    """Width -> heads of every attention; a width with two counts fails."""
    found = {}
    for module in unet.modules():
        if hasattr(module, "to_q"):
            assert found.setdefault(module.to_q.in_features, module.heads) == module.heads
    return found


def test_attention_is_only_to_itself():
    unet = small()
    assert heads_by_width(unet) == {16: 4}
    widths = [(m.to_q.in_features, m.to_k.in_features) for m in unet.modules() if hasattr(m, "to_q")]
    assert widths and all(q == k for q, k in widths)
    assert not any(hasattr(m, "to_q") for m in unet.down_blocks[0].modules())


def test_condition_reaches_the_output():
    unet, z = small().eval(), torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (unet(z, 5, None, class_labels=c).sample for c in (torch.ones(1, 6), -torch.ones(1, 6)))
    assert one.shape == z.shape and not torch.allclose(one, other, atol=1e-3)


def test_build_is_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    assert ldm.digest(small(1)) == ldm.digest(small(1)) != ldm.digest(small(2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_latents_belong_to_embeddings():
    data = latents(3)
    with pytest.raises(ValueError, match="3 latents but 2 embeddings"):
        ldm.Latents(data.moments, data.embeddings[:2], 1.0)
    batch = data[np.array([2, 0])]
    assert len(data) == 3 and batch["moments"].dtype == torch.float32
    assert np.array_equal(batch["moments"], data.moments[[2, 0]]) and np.array_equal(
        batch["condition"], data.embeddings[[2, 0]]
    )


def test_loss_drops_the_condition():
    seen, data, nothing = [], latents(64), torch.full((6,), 9.0)

    def unet(z, n, context, class_labels):
        seen.append(class_labels)
        return type("Out", (), {"sample": torch.zeros_like(z)})

    for share in (0.0, 0.5, 1.0):
        terms = ldm.loss(ABAR, nothing, data.scale, condition_dropout=share, snr_gamma=None)
        terms(unet, data[np.arange(64)], torch.Generator().manual_seed(0))
    dropped = [float((s == 9).all(1).double().mean()) for s in seen]
    assert dropped[0] == 0 and 0.3 < dropped[1] < 0.7 and dropped[2] == 1


def test_held_out_loss_is_not_random():
    unet, data = small().eval(), latents(10)
    one = ldm.held_out_loss(unet, data, ABAR)
    torch.rand(3)
    assert ldm.held_out_loss(unet, data, ABAR) == one != ldm.held_out_loss(unet, data, ABAR, seed=1)


def test_held_out_loss_sees_every_clip_at_spread_steps():
    steps, data = [], latents(10)

    class Silent:
        device = torch.device("cpu")

        def __call__(self, z, n, context, class_labels):
            steps.extend(n.tolist())
            return type("Out", (), {"sample": torch.zeros_like(z)})

    loss = ldm.held_out_loss(Silent(), data, ABAR, levels=5, batch=10)["ddpm"]
    assert steps == [100, 300, 500, 700, 900] * 2
    assert loss == pytest.approx(1.0, abs=0.15)  # the noise itself


def test_overfits_a_batch(tmp_path):
    data, unet = latents(), small()
    before = ldm.held_out_loss(unet.eval(), data, ABAR)["ddpm"]
    settings = Train(steps=50, batch_size=16, lr=5e-3, warmup=5, validate_every=25, ema_decay=0.9)
    history = ldm.fit(unet, data, ABAR, torch.zeros(6), settings, condition_dropout=0.1, snr_gamma=5.0, seed=0,
                      scratch=tmp_path, held_out=data, device="cpu")  # fmt: skip
    after = ldm.held_out_loss(unet, data, ABAR)["ddpm"]
    assert history.val_ddpm.iloc[-1] == pytest.approx(after, rel=1e-6) and after < 0.6 * before
