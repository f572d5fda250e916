"""Re-AudioLDM's U-Net: sizes, an addition that starts as nothing, masks, folders, and that training uses the tokens."""

import pytest
import torch
from networks import module_sha256, noise

from foleylib.diffusion.condition import Condition, denoise
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.diffusion.process import schedule
from foleylib.networks import pipeline as pipelines
from foleylib.networks import rates, retrieval
from foleylib.networks import unet as unets
from foleylib.params.base import Train
from foleylib.params.retrieval import Retrieved
from foleylib.runtime import parameters
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages.ldm import save_with_parts
from foleylib.train import Job, Trainable, fit

TOKENS = {"audio": 12, "text": 10, "width": 8}
SMALL = {"channels": [8, 16], "head_channels": 4, "layers": 1, "groups": 8, "dim": 6, "latent_channels": 2}
STEPS = torch.tensor([3, 300, 700, 999])
# Attentions of the published U-Nets by level below the first: two down and three up each, and one in the middle.
ATTENTIONS = {256: 5, 384: 5, 640: 6}


def base(seed=0):
    return unets.build(**SMALL, seed=seed).eval()


def added(unet=None):
    return retrieval.add_to(base() if unet is None else unet, **TOKENS, seed=1).eval()


def moved(model):
    """The model as training might leave it: no weight of what was added is zero any more."""
    with torch.no_grad():
        for i, weight in enumerate(model.retrieval.parameters()):
            weight.add_(0.3 * noise(*weight.shape, seed=i))
    return model


def both():
    """Both constructions, of which neither ignores its tokens."""
    return {"added": moved(added()), "second": retrieval.build(**SMALL, **TOKENS).eval()}


each_kind = pytest.mark.parametrize("kind", ["added", "second"])


def condition_of(count=4, mask=None):
    mask = torch.ones(count, 5, dtype=torch.bool) if mask is None else mask
    return Condition(
        embedding=noise(count, 6),
        tokens=noise(count, 5, 12, seed=1),
        mask=mask,
        text_tokens=noise(count, 3, 10, seed=2),
        text_mask=torch.ones(count, 3, dtype=torch.bool),
    )


@torch.no_grad()
def estimate(model, condition, **options):
    return denoise(model, noise(len(condition), 2, 8, 4, seed=5), STEPS[: len(condition)], condition, **options)


# Sizes


@pytest.mark.parametrize(("name", "factor"), [("re-audioldm-s", 1.0), ("re-audioldm-l", 1.5)])
def test_published_sizes(name, factor):
    """By hand: the second attentions' keys and values read 768 channels in place of their own, or are all added."""
    sizes = retrieval.PUBLISHED[name]
    width, levels = sizes["width"], {int(c * factor): count for c, count in ATTENTIONS.items()}
    projections = (768 + 1) * width + (1024 + 1) * width
    with torch.device("meta"):
        plain = unets.build(sizes["channels"], sizes["head_channels"])
        published = retrieval.build(**sizes)
        beside = retrieval.add_to(
            unets.build(sizes["channels"], sizes["head_channels"]), audio=768, text=1024, width=width
        )
    second = sum(count * 2 * c * (width - c) for c, count in levels.items())
    third = sum(count * 2 * c * (width + c) for c, count in levels.items())
    assert parameters(published) == parameters(plain) + second + projections
    assert parameters(beside) == parameters(plain) + third + projections


def test_every_attention_block_reads_the_tokens():
    second = retrieval.build(**SMALL, **TOKENS).unet
    reading = {name for name, m in second.named_modules() if hasattr(m, "to_k") and m.to_k.in_features == 8}
    blocks = {name for name, _ in base().named_modules() if name.endswith("transformer_blocks.0")}
    assert reading == {f"{name}.attn2" for name in blocks} and len(blocks) == 1 + 1 + 2
    assert len(added().retrieval.added) == len(blocks)


def test_drawn_from_the_seed():
    before = torch.random.get_rng_state()
    one, same, other = (retrieval.build(**SMALL, **TOKENS, seed=seed) for seed in (0, 0, 1))
    assert module_sha256(one) == module_sha256(same) != module_sha256(other)
    assert module_sha256(one.retrieval) != module_sha256(other.retrieval)
    assert torch.equal(torch.random.get_rng_state(), before)


# What was added starts as nothing


@pytest.mark.parametrize("training", [False, True])
def test_an_addition_starts_as_the_model_it_was_added_to(training):
    condition, plain = condition_of(), base().train(training)
    before = estimate(plain, Condition(condition.embedding))
    model = added(plain).train(training)
    for given in (condition, Condition(condition.embedding), condition_of(mask=torch.zeros(4, 5, dtype=torch.bool))):
        assert torch.equal(estimate(model, given), before)
    assert module_sha256(model.unet) == module_sha256(base())  # and its weights have their names


def test_without_neighbours_a_trained_addition_is_still_the_base_model():
    condition, model = condition_of(), moved(added())
    without = Condition(condition.embedding)
    expected = estimate(base(), without)
    assert torch.equal(estimate(model, without), expected)
    nothing = Condition(embedding=condition.embedding[:1], **model.retrieval.nothing().given())
    assert torch.equal(estimate(model, condition.drop(nothing.retrieved())), expected)
    assert (estimate(model, condition) - expected).abs().max() > 1e-3


def test_an_addition_that_does_not_fit_is_refused():
    other = retrieval.Retrieval(added().retrieval.config)
    with pytest.raises(ValueError, match="what was added fits blocks of"):
        retrieval.RetrievalUnet(unets.build(**SMALL | {"layers": 2}), other)
    crossed = unets.build(**SMALL, tokens=8)
    with pytest.raises(ValueError, match="second attentions do not attend to their own level"):
        retrieval.add_to(crossed, **TOKENS)
    with pytest.raises(ValueError, match="second attentions do not read tokens of width 8"):
        retrieval.RetrievalUnet(base(), retrieval.Retrieval(retrieval.RetrievalConfig(12, 10, 8)))
    with pytest.raises(ValueError, match="audio and text are both None"):
        retrieval.add_to(base(), audio=None, text=None, width=8)


def test_made_as_the_settings_say():
    sizes = {"audio": 12, "text": 10, "seed": 1}
    made = retrieval.of_settings(Retrieved(width=8), base(), **sizes)
    assert module_sha256(made) == module_sha256(added()) and all(p.requires_grad for p in made.parameters())
    branch = retrieval.of_settings(Retrieved(width=8, trained="branch"), base(), **sizes)
    assert not any(p.requires_grad for p in branch.unet.parameters())
    second = retrieval.of_settings(Retrieved(width=8, attention="second"), base(), **sizes)
    assert module_sha256(second) == module_sha256(retrieval.build(**SMALL, **TOKENS, seed=1))
    assert second.unet.config.attention_head_dim == base().config.attention_head_dim
    with pytest.raises(ValueError, match="trained 'branch' needs attention 'added'"):
        Retrieved(width=8, attention="second", trained="branch")


# Tokens and masks


@each_kind
def test_masked_tokens_have_no_effect(kind):
    mask = torch.tensor([[True, True, True, False, False]]).repeat(4, 1)
    model, condition = both()[kind], condition_of(mask=mask)
    expected = estimate(model, condition)
    other = torch.where(mask[..., None], condition.tokens, 50 * noise(4, 5, 12, seed=9))
    given = condition.given() | {"tokens": other}
    assert torch.equal(estimate(model, Condition(**given)), expected)
    short = given | {"tokens": other[:, :3], "mask": mask[:, :3]}
    assert torch.allclose(estimate(model, Condition(**short)), expected, atol=1e-5)
    unmasked = Condition(**{name: value for name, value in given.items() if name != "mask"})
    assert (estimate(model, unmasked) - expected).abs().max() > 1e-3


@each_kind
@pytest.mark.parametrize("name", ["tokens", "text_tokens"])
def test_both_kinds_of_tokens_reach_the_output(kind, name):
    model, condition = both()[kind], condition_of()
    expected = estimate(model, condition)
    changed = condition.given() | {name: condition.given()[name].flip(0)}
    assert (estimate(model, Condition(**changed)) - expected).abs().max() > 1e-3
    mask = {"tokens": "mask", "text_tokens": "text_mask"}[name]
    without = {k: v for k, v in condition.given().items() if k not in (name, mask)}
    hidden = condition.given() | {mask: torch.zeros_like(condition.given()[mask])}
    assert torch.allclose(estimate(model, Condition(**without)), estimate(model, Condition(**hidden)), atol=1e-5)


@each_kind
def test_a_clip_does_not_read_the_tokens_of_another(kind):
    model, condition = both()[kind], condition_of()
    mask = condition.mask.clone()
    mask[1] = False
    some = Condition(**condition.given() | {"mask": mask})
    together = estimate(model, some)
    for i in range(4):
        z, n = noise(4, 2, 8, 4, seed=5)[i : i + 1], STEPS[i : i + 1]
        with torch.no_grad():
            assert torch.allclose(denoise(model, z, n, some[i : i + 1]), together[i : i + 1], atol=1e-5)


@each_kind
def test_guidance_drops_text_and_retrieval_or_retrieval_alone(kind):
    model, condition = both()[kind], condition_of()
    nothing = Condition(torch.full((1, 6), 0.5), **model.retrieval.nothing().given())
    c = estimate(model, condition)
    empty = Condition(torch.full((4, 6), 0.5))
    for unconditional, u in (
        (nothing, estimate(model, empty)),
        (nothing.retrieved(), estimate(model, Condition(condition.embedding))),
    ):
        guided = estimate(model, condition, guidance=2.5, unconditional=unconditional)
        torch.testing.assert_close(guided, u + 2.5 * (c - u), atol=1e-5, rtol=1e-4)
        assert (c - u).abs().max() > 1e-3


def test_one_kind_of_tokens_alone():
    model = moved(retrieval.add_to(base(), audio=12, text=None, width=8).eval())
    assert model.retrieval.nothing().given().keys() == {"tokens", "mask"}
    condition = condition_of()
    given = Condition(condition.embedding, condition.tokens, condition.mask)
    assert (estimate(model, given) - estimate(model, Condition(condition.embedding))).abs().max() > 1e-3
    with pytest.raises(ValueError, match="text tokens are given, but the model was made without"):
        estimate(model, condition)


@each_kind
def test_mixed_precision_keeps_the_mask(kind):
    mask = torch.tensor([[True, True, False, False, False]]).repeat(4, 1)
    model, condition = both()[kind], condition_of(mask=mask)
    other = Condition(**condition.given() | {"tokens": condition.tokens.masked_fill(~mask[..., None], 30.0)})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = estimate(model, condition)
        assert torch.equal(low, estimate(model, other))
    assert (low.float() - estimate(model, condition)).abs().max() < 0.1


def test_under_a_tuning_layer():
    model, condition = moved(added()), condition_of()
    tuned = unets.TunedUnet(model, unets.TuningLayer(6, noise=0.0, seed=0))
    assert torch.equal(estimate(tuned, condition), estimate(model, condition))


# Training


def loss_of(model):
    return DiffusionLoss(schedule(), Condition(torch.zeros(1, 6), **model.retrieval.nothing().given()), 1.0)


def batch_of(count=4):
    return condition_of(count).given() | {"moments": 0.1 * noise(count, 4, 8, 4, seed=6)}


@each_kind
def test_gradients_reach_all_that_reads_tokens(kind):
    model = both()[kind]
    loss_of(model)(model, batch_of(), torch.Generator().manual_seed(0))["ddpm"].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.retrieval.parameters())
    assert all(p.grad is not None for p in model.unet.parameters())


def test_the_branch_alone_is_trained():
    model = added().train_only_what_was_added()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"retrieval"}
    loss_of(model)(model, batch_of(), torch.Generator().manual_seed(0))["ddpm"].backward()
    # At first the output alone learns, since nothing passes through zeros; what lies before it follows.
    grads = {name: p.grad.abs().sum() > 0 for name, p in model.retrieval.named_parameters()}
    assert {name for name, moves in grads.items() if moves} == {name for name in grads if "to_out" in name}
    with pytest.raises(ValueError, match="nothing was added to this U-Net"):
        retrieval.build(**SMALL, **TOKENS).train_only_what_was_added()


def told_by_tokens():
    """Clips of one noisy latent and one embedding, each with a noise of its own level to be estimated."""
    given = condition_of().given() | {"embedding": torch.ones(4, 6), "z_n": noise(1, 2, 8, 4).repeat(4, 1, 1, 1)}
    return given | {"eps": torch.tensor([-1.0, 1.0, -0.5, 0.5]).view(4, 1, 1, 1).expand(4, 2, 8, 4)}


def square_error(model, batch, generator=None):
    estimated = denoise(model, batch["z_n"], torch.tensor(500), Condition.of(batch))
    return {"ddpm": (estimated - batch["eps"]).square().mean()}


@pytest.mark.parametrize("kind", ["added", "branch", "second"])
def test_training_learns_what_only_the_tokens_tell(kind, tmp_path):
    """Without the tokens the best estimate is the mean, and its error the variance of the levels.

    A frozen U-Net of random weights lets little of what the branch says through, yet more than without tokens is possible.
    """
    model, batch = retrieval.build(**SMALL, **TOKENS) if kind == "second" else added(), told_by_tokens()
    if kind == "branch":
        model.train_only_what_was_added()
    frozen, variance = module_sha256(model.unet), float(batch["eps"].var(dim=0, correction=0).mean())
    settings = Train(steps=200, batch_size=4, lr=5e-3, warmup=5, weight_decay=0.0, ema_decay=0.0)
    trainable, job = {"unet": Trainable(model, square_error, {"ddpm": 1.0})}, Job(0, tmp_path, "cpu")
    history = fit(trainable, lambda rows: {k: v[torch.from_numpy(rows)] for k, v in batch.items()}, 4, settings, job)
    assert (module_sha256(model.unet) == frozen) == (kind == "branch")
    assert history.ddpm.iloc[-1] < (0.85 if kind == "branch" else 0.01) * variance
    hidden = batch | {name: torch.zeros_like(batch[name]) for name in ("mask", "text_mask")}
    with torch.no_grad():
        assert square_error(model, hidden)["ddpm"] >= variance


def test_dropout_of_retrieval_apart_and_together():
    """Text and retrieval go together at 0.1; of the rest, 0.2 each lose neighbours, their sound, and their captions."""
    calls, count = [], 4000
    batch = condition_of(count).given() | {"moments": torch.zeros(count, 4, 2, 2)}
    nothing = Condition(
        torch.full((1, 6), 9.0), torch.zeros(1, 1, 12), torch.zeros(1, 1, dtype=torch.bool), torch.zeros(1, 1, 10),
        torch.zeros(1, 1, dtype=torch.bool),
    )  # fmt: skip

    def network(z_n, n, tokens, class_labels, **more):
        calls.append({"tokens": tokens, "embedding": class_labels} | more)
        return type("Output", (), {"sample": z_n})

    def outcome(**rates):
        """Which clips train without text, without the sound of neighbours, without their captions [each (count,)]."""
        DiffusionLoss(schedule(), nothing, 1.0, **rates)(network, batch, torch.Generator().manual_seed(0))
        call = calls.pop()
        audio, text = ~call["encoder_attention_mask"].any(1), ~call["text_mask"].any(1)
        assert (call["tokens"][audio] == 0).all() and (call["text_tokens"][text] == 0).all()
        assert (call["tokens"][~audio] == batch["tokens"][~audio]).all()
        assert (call["text_tokens"][~text] == batch["text_tokens"][~text]).all()
        return (call["embedding"] == 9).all(1), audio, text

    def share(rows):
        return float(rows.double().mean())

    nothing_at_all, no_sound, no_captions = outcome(condition_dropout=0.1, retrieval_dropout=0.2)
    assert no_sound[nothing_at_all].all() and no_captions[nothing_at_all].all()
    assert share(nothing_at_all) == pytest.approx(0.1, abs=0.02)
    rest = ~nothing_at_all
    for kinds in (no_sound & no_captions, no_sound & ~no_captions, ~no_sound & no_captions):
        assert share(kinds & rest) == pytest.approx(0.9 * 0.2, abs=0.025)
    together, *retrieved = outcome(condition_dropout=0.1)
    assert all(torch.equal(together, rows) for rows in (*retrieved, nothing_at_all))  # the same clips, drawn first
    text, sound, captions = outcome(retrieval_dropout=1 / 3)
    assert not text.any() and (sound | captions).all()  # three disjoint thirds: no clip has both kinds


# Folders


@pytest.mark.parametrize("kind", ["added", "second"])
def test_saved_beside_its_pipeline_and_read_back(kind, tiny, tiny_parts, tmp_path):
    section, sizes = tiny.foundation.ldm, {"dim": 48, "latent_channels": 8, "seed": 0}
    if kind == "added":
        model = retrieval.add_to(unets.new(section, **sizes), **TOKENS)
    else:
        layers = {"layers": section.layers, "groups": section.groups}
        model = retrieval.build(section.channels, section.head_channels, **TOKENS, **layers, **sizes)
    moved(model).eval()
    parts = {name: getattr(tiny_parts, name) for name in ("clap", "vae", "vocoder")}
    save_with_parts(tmp_path, model.unet, tiny, parts)
    retrieval.save(model, tmp_path)
    again = retrieval.load(tmp_path)
    assert module_sha256(again) == module_sha256(model) and not again.training
    assert again.retrieval.config == model.retrieval.config

    # Sampled with guidance, both are the same and hear the tokens.
    pipeline = pipelines.load(tmp_path)
    assert module_sha256(pipeline.unet) == module_sha256(model)
    nothing = retrieval.unconditional(tiny_parts.clap, again)
    condition = Condition(tiny_parts.clap.embed_text(["a dog bark"]), noise(1, 5, 12), torch.ones(1, 5) > 0)
    options = SamplerOptions(steps=3, eta=0.0, guidance=2.0)

    def draw(model, condition, nothing):
        pipeline.unet = model
        return sample(pipeline, condition, nothing, (8, 16, 16), seeds=[5], options=options, show=False)

    heard = draw(again, condition, nothing)
    assert torch.equal(heard, draw(model, condition, nothing))
    assert (heard - draw(again, Condition(condition.embedding), nothing)).abs().max() > 1e-3


def test_a_folder_without_retrieval_is_a_plain_unet(tiny_parts, tiny_models, tmp_path):
    unet = retrieval.load(tiny_models / "ldm")
    assert module_sha256(unet) == module_sha256(tiny_parts.unet) and not isinstance(unet, retrieval.RetrievalUnet)
    assert retrieval.unconditional(tiny_parts.clap, unet).given().keys() == {"embedding"}
    rates.save_unet(unet, tmp_path)
    (tmp_path / "retrieval").mkdir()  # what was to be saved there is lost
    with pytest.raises(ValueError, match="no config.json with model.safetensors; run the retrieval stage first"):
        retrieval.load(tmp_path)


def test_a_unet_alone_is_saved_and_read_back(tmp_path):
    for kind, model in both().items() | {"plain": base()}.items():
        rates.save_unet(model, tmp_path / kind)
        again = retrieval.load(tmp_path / kind)
        assert module_sha256(again) == module_sha256(model) and type(again) is type(model)


def test_a_tuning_layer_is_folded_into_the_unet_that_reads_tokens():
    model, condition = moved(added()), condition_of()
    tuned = unets.TunedUnet(model, unets.TuningLayer(6, noise=0.5, seed=3))
    expected = estimate(tuned, condition)
    folded = unets.fold(tuned)
    assert folded is model
    torch.testing.assert_close(estimate(folded, condition), expected, atol=1e-5, rtol=1e-4)
