"""What the U-Net is told, and the one function that calls it."""

import ast
from types import SimpleNamespace

import pytest
import torch

from foleylib.diffusion.condition import Condition, denoise
from foleylib.networks import unet as unets
from foleylib.paths import ROOT

CALLERS = (
    "foleylib/diffusion/condition.py",
    "foleylib/networks/unet.py",
    "foleylib/networks/retrieval.py",
    "foleylib/networks/rates.py",
)  # the latter three pass on what they are called with


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(count=4):
    """A condition with all its fields."""
    return Condition(
        embedding=noise(count, 6),
        tokens=noise(count, 5, 12, seed=1),
        mask=torch.ones(count, 5, dtype=torch.bool),
        rate=torch.arange(1, count + 1) * 8000.0,
    )


NOTHING = Condition(
    embedding=torch.full((1, 6), 9.0), tokens=torch.full((1, 1, 12), 7.0), mask=torch.zeros(1, 1, dtype=torch.bool)
)


# Condition


def test_conditions_of_a_batch():
    condition = full()
    batch = condition.given() | {"moments": noise(4, 2), "audio": noise(4, 6), "step": 3}
    assert Condition.of(batch).given().keys() == {"embedding", "tokens", "mask", "rate"}
    assert all(value is batch[name] for name, value in Condition.of(batch).given().items())
    alone = Condition.of({"embedding": condition.embedding, "moments": noise(4, 2)})
    assert alone.given().keys() == {"embedding"} and alone.tokens is None


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0]), torch.tensor([False, True, True, False])])
def test_rows_of_all_fields(rows):
    condition = full()
    part = condition[rows]
    assert len(condition) == 4 and len(part) == 2 and part.given().keys() == condition.given().keys()
    assert all(torch.equal(value, condition.given()[name][rows]) for name, value in part.given().items())
    assert len(Condition(tokens=noise(3, 5, 12))) == 3


def test_moved_with_all_fields():
    condition = Condition(embedding=noise(2, 6), rate=torch.tensor([8000.0, 16000.0]))
    moved = condition.to("meta")
    assert {name: value.device.type for name, value in moved.given().items()} == {"embedding": "meta", "rate": "meta"}
    assert condition.to("cpu", dtype=torch.float64).embedding.dtype == torch.float64
    assert condition.embedding.device.type == "cpu"


def test_dropped_rows_of_an_embedding():
    embedding, nothing = noise(4, 6), Condition(embedding=torch.full((1, 6), 9.0))
    rows = torch.tensor([True, False, False, True])
    dropped = Condition(embedding=embedding).drop(nothing, rows).embedding
    assert torch.equal(dropped[rows], nothing.embedding.expand(2, 6)) and torch.equal(dropped[~rows], embedding[~rows])
    whole = Condition(embedding=embedding).drop(nothing)
    assert torch.equal(whole.embedding, nothing.embedding.expand(4, 6)) and len(whole) == 4
    unmoved = Condition(embedding=embedding).drop(nothing, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(unmoved.embedding, embedding)


@pytest.mark.parametrize("rows", [torch.tensor([False, True, False, True]), None])
def test_tokens_are_dropped_with_their_mask(rows):
    condition = full()
    dropped = condition.drop(NOTHING, rows)
    rows = torch.ones(4, dtype=torch.bool) if rows is None else rows
    assert dropped.tokens.shape == (4, 5, 12) and dropped.mask.shape == (4, 5) and dropped.mask.dtype == torch.bool
    assert (dropped.tokens[rows] == 7).all() and not dropped.mask[rows].any() and (dropped.embedding[rows] == 9).all()
    kept = condition[~rows]
    assert all(torch.equal(dropped.given()[name][~rows], value) for name, value in kept.given().items())


def test_what_the_unconditional_leaves_out_is_kept():
    condition = full()
    assert torch.equal(condition.drop(NOTHING).rate, condition.rate)
    alone = Condition(rate=condition.rate).drop(NOTHING)
    assert alone.given().keys() == {"rate"}  # and what the condition leaves out is not added


def test_some_of_the_fields():
    condition = full()
    assert condition.only("tokens", "text_tokens").given().keys() == {"tokens"}  # what is not given is not added
    assert condition.only("embedding").embedding is condition.embedding and condition.only().given() == {}
    assert condition.retrieved().given().keys() == {"tokens", "mask"}
    dropped = condition.drop(NOTHING.only("tokens", "mask"))
    assert (dropped.tokens == 7).all() and torch.equal(dropped.embedding, condition.embedding)


# Calls of the U-Net


@pytest.fixture(scope="module")
def unet():
    return unets.build([8, 16], 4, layers=1, groups=8, dim=6, latent_channels=2, seed=0).eval()


@pytest.fixture(scope="module")
def crossed():
    """A small U-Net of diffusers whose attention reads tokens."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            in_channels=2,
            out_channels=2,
            block_out_channels=[8, 16],
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
            cross_attention_dim=12,
            attention_head_dim=2,
        ).eval()


@torch.no_grad()
def estimate(unet, condition, **options):
    options = {"n": torch.tensor([3, 300, 700, 999])} | options
    return denoise(unet, noise(4, 2, 8, 4, seed=5), condition=condition, **options)


def test_estimate_is_the_output_of_the_unet(unet):
    n, embedding = torch.tensor([3, 300, 700, 999]), noise(4, 6)
    with torch.no_grad():
        direct = unet(noise(4, 2, 8, 4, seed=5), n, None, class_labels=embedding).sample
    assert torch.equal(estimate(unet, Condition(embedding)), direct) and direct.std() > 1e-3
    assert torch.equal(estimate(unet, Condition(embedding), unconditional=NOTHING), direct)  # guidance 1 needs none


@pytest.mark.parametrize("n", [torch.tensor(300), torch.tensor([3, 300, 700, 999])])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guidance_leads_away_from_the_unconditional(unet, guidance, n):
    condition, nothing = Condition(noise(4, 6)), Condition(torch.full((1, 6), 0.5))
    c = estimate(unet, condition, n=n)
    u = estimate(unet, Condition(torch.full((4, 6), 0.5)), n=n)
    guided = estimate(unet, condition, n=n, guidance=guidance, unconditional=nothing)
    torch.testing.assert_close(guided, u + guidance * (c - u), atol=1e-5, rtol=1e-4)
    assert (c - u).abs().max() > 1e-3


def test_guidance_without_its_other_half_is_refused():
    with pytest.raises(ValueError, match="guidance=2.0: give the unconditional condition too"):
        denoise(None, noise(2, 8, 4, 4), torch.tensor(5), full(2), guidance=2.0)


def test_both_halves_of_guidance_are_one_pass():
    passes = []

    def network(z_n, n, tokens, class_labels, **more):
        passes.append({"n": n, "tokens": tokens, "embedding": class_labels} | more)
        return SimpleNamespace(sample=z_n)

    condition = full()
    estimate(network, condition, guidance=2.0, unconditional=NOTHING)
    assert len(passes) == 1
    first, second = ({name: value[rows] for name, value in passes[0].items()} for rows in (slice(4), slice(4, 8)))
    assert (first["embedding"] == 9).all() and torch.equal(second["embedding"], condition.embedding)
    assert (first["tokens"] == 7).all() and torch.equal(second["tokens"], condition.tokens)
    assert not first["encoder_attention_mask"].any() and second["encoder_attention_mask"].all()
    assert torch.equal(first["rate"], condition.rate) and torch.equal(second["rate"], condition.rate)
    assert torch.equal(first["n"], second["n"])


def test_tokens_and_mask_reach_the_attention(crossed):
    tokens, mask = noise(4, 5, 12), torch.tensor([[True, True, True, False, False]]).repeat(4, 1)
    masked = estimate(crossed, Condition(tokens=tokens, mask=mask))
    other = torch.cat([tokens[:, :3], noise(4, 2, 12, seed=9)], dim=1)
    assert torch.equal(estimate(crossed, Condition(tokens=other, mask=mask)), masked)  # hidden tokens have no effect
    assert torch.allclose(estimate(crossed, Condition(tokens=tokens[:, :3])), masked, atol=1e-6)
    assert (estimate(crossed, Condition(tokens=tokens)) - masked).abs().max() > 1e-4
    assert (estimate(crossed, Condition(tokens=tokens.flip(1), mask=mask)) - masked).abs().max() > 1e-4


def test_guidance_over_tokens(crossed):
    condition = Condition(tokens=noise(4, 5, 12), mask=torch.ones(4, 5, dtype=torch.bool))
    nothing = Condition(tokens=noise(1, 5, 12, seed=3), mask=torch.tensor([[True, False, False, False, False]]))
    c = estimate(crossed, condition)
    u = estimate(crossed, Condition(tokens=nothing.tokens[:, :1].repeat(4, 1, 1)))
    guided = estimate(crossed, condition, guidance=2.5, unconditional=nothing)
    torch.testing.assert_close(guided, u + 2.5 * (c - u), atol=1e-5, rtol=1e-4)


def test_rate_reaches_a_network_that_takes_it(unet):
    class Rated(torch.nn.Module):
        def forward(self, z_n, n, encoder_hidden_states=None, class_labels=None, rate=None):
            return SimpleNamespace(sample=z_n * rate.view(-1, 1, 1, 1))

    condition = full()[:4]
    rated = Condition(embedding=condition.embedding, rate=condition.rate)
    assert torch.equal(estimate(Rated(), rated), noise(4, 2, 8, 4, seed=5) * condition.rate.view(-1, 1, 1, 1))
    tuned = unets.TunedUnet(Rated(), unets.TuningLayer(6, noise=0.0, seed=0))
    assert torch.equal(estimate(tuned, rated), estimate(Rated(), rated))
    with pytest.raises(TypeError, match="rate"):  # nothing is dropped in silence
        estimate(unet, rated)


def calls_of_a_unet(tree):
    """Lines of a module that call a U-Net: something named so, or anything with the arguments that only it has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            arguments = {keyword.arg for keyword in node.keywords}
            if name in ("unet", "tuned") or arguments & {"class_labels", "encoder_hidden_states"}:
                yield node.lineno


def test_calls_of_a_unet_are_recognised():
    source = "self.unet(z, n)\nunet(z, n)\nnetwork(z, n, None, class_labels=E)\nunet.eval()\nbuild(unet=unet)"
    assert sorted(calls_of_a_unet(ast.parse(source))) == [1, 2, 3]


def test_no_other_file_calls_a_unet():
    files = [file for folder in ("foleylib", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    callers = {
        file.relative_to(ROOT).as_posix(): lines
        for file in files
        if (lines := list(calls_of_a_unet(ast.parse(file.read_text(encoding="utf8")))))
    }
    assert callers.keys() == set(CALLERS), callers
