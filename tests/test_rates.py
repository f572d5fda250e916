"""SRC-gAudio's U-Net: the rate in both places, and that it is read."""

import pytest
import torch

from foleylib.diffusion.condition import Condition, denoise
from foleylib.networks import rates
from foleylib.networks import unet as unets

SMALL = {"channels": [8, 16], "head_channels": 8, "text": 6, "layers": 1, "groups": 4, "latent_channels": 4}


def condition(rate=16000.0, count=2):
    tokens = torch.randn(count, 3, 6, generator=torch.Generator().manual_seed(0))
    return Condition(tokens=tokens, mask=torch.ones(count, 3, dtype=torch.bool), rate=torch.full((count,), float(rate)))


def estimate(model, given):
    z = torch.randn(len(given), 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoise(model.eval(), z, torch.tensor(500), given)


@pytest.mark.parametrize("place", ["time", "token"])
def test_the_rate_is_read_once_trained(place):
    model = rates.build(**SMALL, place=place)
    before = [estimate(model, condition(rate)) for rate in (16000, 48000)]
    assert torch.equal(*before) == (place == "time")  # from zero there
    torch.nn.init.normal_(model.rate.embedding.linear_2.weight, generator=torch.Generator().manual_seed(2))
    after = [estimate(model, condition(rate)) for rate in (16000, 16000, 48000)]
    assert torch.equal(after[0], after[1]) and (after[0] - after[2]).abs().max() > 1e-4


def test_a_pretrained_unet_stays_what_it_was():
    given = {"channels": [8, 16], "head_channels": 8, "layers": 1, "groups": 4, "dim": 6, "latent_channels": 4}
    unet = unets.build(**given)
    embedding = Condition(embedding=torch.randn(2, 6, generator=torch.Generator().manual_seed(0)))
    before = estimate(unet, embedding)
    model = rates.add_to(unet)
    told = Condition(**embedding.given(), rate=torch.tensor([16000.0, 48000.0]))
    assert torch.equal(estimate(model, told), before)


def test_the_unconditional_input_keeps_the_rate():
    model = rates.build(**SMALL, place="time")
    torch.nn.init.normal_(model.rate.embedding.linear_2.weight, generator=torch.Generator().manual_seed(2))
    nothing = Condition(tokens=torch.zeros(1, 1, 6), mask=torch.ones(1, 1, dtype=torch.bool))
    heard = []
    model.rate.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].tolist()))
    z, given = torch.zeros(2, 4, 8, 8), condition(24000)
    denoise(model.eval(), z, torch.tensor(500), given, guidance=3.0, unconditional=nothing)
    assert heard == [[24000.0] * 4]


@pytest.mark.parametrize("place", ["time", "token"])
def test_saved_and_read_back(place, tmp_path):
    model = rates.build(**SMALL, place=place, seed=3)
    torch.nn.init.normal_(model.rate.embedding.linear_2.weight, generator=torch.Generator().manual_seed(2))
    rates.save_unet(model, tmp_path)
    again = rates.load(tmp_path)
    assert torch.equal(estimate(again, condition(32000)), estimate(model, condition(32000)))
