"""AudioMAE against the public code's outputs, and its front end."""

import numpy as np
import pytest
import torch
from golden_cases import check, empty_state, original_state, tensor

from foleylib.networks import audiomae
from foleylib.networks.published import weights as published
from foleylib.networks.tokens import pool

CASES = ["09_audiomae_small", "09_audiomae_full"]


def waves_of(case):
    return tensor(case.inputs["wave"].astype(np.float32) / 32768)


def sizes(case):
    settings = case.manifest["config"]
    return {"dim": settings["embed_dim"], "depth": settings["depth"], "heads": settings["num_heads"]}


def positions(dim):
    """The table of the public checkpoint, of 513 positions: `pos_embed_rule` of the golden cases."""
    i, w = np.arange(512), 10000.0 ** (-np.arange(dim // 4) / (dim / 4))
    halves = [np.outer(p, w) for p in (i % 64, i // 64)]
    table = np.concatenate([part(half) for half in halves for part in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(np.concatenate([np.zeros((1, dim)), table])[None].astype(np.float32))


def state_of(case, draw_weights):
    return original_state(case, draw_weights) | {"pos_embed": positions(sizes(case)["dim"])}


def test_golden_fbank(golden):
    case = golden("09_audiomae_fbank")
    fbank = audiomae.Fbank()(waves_of(case))
    assert fbank.shape == (2, 1, 1024, 128)
    check(case, fbank=fbank[:, 0, :340], tail=fbank[:, 0, -4:])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_golden_encoder(golden, draw_weights, name):
    case = golden(name)
    assert name != "09_audiomae_full" or sizes(case) == audiomae.PUBLISHED
    file = {
        "model": state_of(case, draw_weights) | {"mask_token": torch.zeros(1), "decoder_embed.bias": torch.zeros(1)}
    }
    model = published.audiomae_from_original(file, sizes(case))
    with torch.no_grad():
        grid = model(waves := waves_of(case))
        tokens = model.sequence(model.front_end(waves))
    assert torch.allclose(grid.flatten(1, 2), tokens[:, 1:], atol=1e-5)
    check(case, pos_embed_sample=model.encoder.embeddings.position_embeddings[0, ::37].detach())
    if name == "09_audiomae_small":
        check(case, tokens=tokens[:1, ::4], mean=tokens.mean(dim=1))
    else:
        grid, tokens = grid[:1], tokens[:1]
        check(case, tokens=tokens[:, ::16], mean=tokens.mean(dim=1), pool_8x8=pool(grid, (8, 8)))
        check(case, pool_4x4=pool(grid, (4, 4)))


def test_missing_or_unknown_keys_are_named(golden):
    case = golden("09_audiomae_small")
    state = empty_state(case)
    with pytest.raises(ValueError, match='Unexpected key.*"stray.weight"'):
        published.audiomae_from_original(state | {"stray.weight": torch.zeros(1)}, sizes(case))
    with pytest.raises(ValueError, match='Missing key.*"layernorm.bias"'):
        published.audiomae_from_original({k: v for k, v in state.items() if k != "norm.bias"}, sizes(case))


def test_clips_are_cut_and_filled_to_the_window():
    front_end, draws = audiomae.Fbank(), torch.Generator().manual_seed(0)
    wave = 0.1 * torch.randn(1, 170000, generator=draws)
    assert torch.equal(front_end(wave), front_end(wave[:, : audiomae.SAMPLES]))
    short = wave[:, :16000]
    filled = torch.nn.functional.pad(short, (0, audiomae.SAMPLES - 16000))
    assert torch.equal(front_end(short), front_end(filled))
    assert (front_end(torch.zeros(1, 400)).diff(dim=3) == 0).all()  # silence is the same in every band
    with pytest.raises(ValueError, match=r"waves has shape \(16000,\)"):
        front_end(wave[0, :16000])
