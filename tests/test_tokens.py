"""Tokens of clips and texts: shapes, masks, pooling, T5 from a folder, and the store that neighbours are read from."""

import json

import numpy as np
import pytest
import torch
from networks import noise
from safetensors.torch import load_file, save_file

from foleylib.datasets import tokens as stores
from foleylib.datasets.features import Latents
from foleylib.diffusion.condition import Condition
from foleylib.networks import audiomae, tokens
from foleylib.params.retrieval import Tokens

WORDS = ["<pad>", "</s>", "<unk>", "a", "dog", "barks", "twice", "rain"]


def test_pooling_is_half_mean_half_maximum():
    grid = torch.arange(16.0).reshape(1, 4, 4, 1)  # (B, time, frequency, C)
    assert tokens.pool(grid, (1, 1)).flatten().tolist() == list(range(16))
    # Cells 0 1 4 5: mean 2.5, maximum 5; two of frequency before the next of time.
    assert tokens.pool(grid, (2, 2)).flatten().tolist() == [3.75, 5.75, 11.75, 13.75]
    assert tokens.pool(grid, (4, 1)).flatten().tolist() == [9.0, 10.0, 11.0, 12.0]
    with pytest.raises(ValueError, match=r"pool=\[3, 2\] does not divide a grid of 4 by 4"):
        tokens.pool(grid, (3, 2))


# Our CLAP


def test_audio_tokens_of_clap_are_its_hidden_states(tiny_parts):
    clap, waves = tiny_parts.clap, 0.3 * noise(5, 5120)
    whole = tokens.of_audio(Tokens(pool=(1, 1)), clap)
    states, mask = whole(waves, batch_size=2)
    assert states.shape == (5, 64, 16) and mask.shape == (5, 64) and mask.all() and whole.dim == 16
    with torch.no_grad():  # CLAP averages the same states, and projects the average
        embedding = torch.nn.functional.normalize(clap.model.audio_projection(states.mean(dim=1)), dim=-1)
    torch.testing.assert_close(embedding, clap.embed_audio(waves), atol=1e-5, rtol=1e-4)
    pooled, _ = tokens.of_audio(Tokens(pool=(4, 8)), clap)(waves)
    assert pooled.shape == (5, 2, 16)
    assert torch.allclose(pooled, tokens.pool(states.reshape(5, 8, 8, 16), (4, 8)), atol=1e-5)


def test_audio_tokens_follow_the_sound_in_time(tiny_parts):
    clap = tiny_parts.clap
    late = torch.zeros(1, clap.window)
    late[:, clap.window * 3 // 4 :] = 0.5 * noise(1, clap.window - clap.window * 3 // 4)
    grid = tokens.ClapGrid(clap)
    with torch.no_grad():
        change = (grid(late) - grid(torch.zeros(1, clap.window))).square().sum(dim=(0, 2, 3))
    assert change[-2:].sum() > 2 * change[:2].sum()


def test_clips_of_another_rate_are_resampled(tiny_parts):
    made, waves = tokens.of_audio(Tokens(pool=(8, 8)), tiny_parts.clap), 0.3 * noise(1, 2560)
    at_8k, _ = made(waves, 8000)
    as_they_are, _ = made(waves)
    assert at_8k.shape == as_they_are.shape and (at_8k - as_they_are).abs().max() > 1e-3


def test_text_tokens_of_clap(tiny_parts):
    made = tokens.of_text(Tokens(length=12), tiny_parts.clap)
    texts = ["a big dog barks twice, far away", "rain", ""]
    states, mask = made(texts, batch_size=2)
    assert states.shape == (3, 12, 16) and made.dim == 16
    counts = [len(ids) for ids in tiny_parts.clap.tokenizer(texts)["input_ids"]]
    assert mask.sum(dim=1).tolist() == [min(count, 12) for count in counts]
    assert (states[~mask] == 0).all() and (states[mask] != 0).any()
    alone, _ = made(["rain"])
    assert torch.allclose(alone[0], states[1], atol=1e-6)  # whatever stands beside it
    with pytest.raises(ValueError, match="length=50: the text encoder reads 40 tokens at most"):
        tokens.of_text(Tokens(length=50), tiny_parts.clap)


def test_a_kind_that_is_left_out_has_no_network(tiny_parts):
    assert tokens.of_audio(Tokens(audio=None), tiny_parts.clap) is None
    assert tokens.of_text(Tokens(text=None), tiny_parts.clap) is None


# AudioMAE and T5


@pytest.fixture
def audiomae_file(golden, draw_weights, tmp_path):
    case = golden("09_audiomae_full")
    weights = {key: torch.from_numpy(value) for key, value in draw_weights(case.rows, 0).items()}
    torch.save({"model": weights | {"pos_embed": torch.zeros(1, 513, 768)}}, tmp_path / "pretrained.pth")
    return tmp_path / "pretrained.pth"


def test_audiomae_from_its_file_gives_32_tokens(audiomae_file):
    made = tokens.of_audio(Tokens(audio="audiomae", audiomae=str(audiomae_file), pool=(4, 4)), None)
    states, mask = made(0.1 * noise(1, 16000))
    assert states.shape == (1, 32, 768) and mask.shape == (1, 32) and mask.all() and made.dim == 768
    assert made.network.rate == 16000
    with pytest.raises(
        ValueError, match="tokens.audiomae none.pth: no such file; fetch AudioMAE's .* facebookresearch"
    ):
        tokens.of_audio(Tokens(audio="audiomae", audiomae="none.pth"), None)


def test_audiomae_grid_runs_over_time_then_mel():
    model = audiomae.AudioMae(audiomae.vit(dim=8, depth=3, heads=2)).eval()
    with torch.no_grad():
        grid = model(0.1 * noise(2, 1600))
        assert grid.shape == (2, 64, 8, 8)
        assert torch.equal(grid[:, 1, 2], model.sequence(model.front_end(0.1 * noise(2, 1600)))[:, 1 + 8 + 2])


@pytest.fixture
def t5_folder(tmp_path):
    """A small T5 of FLAN's kind, decoder and head included, and a tokenizer of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(T5Config(vocab_size=8, feed_forward_proj="gated-gelu", **sizes))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = noise(8, 16)  # FLAN-T5 has a head of its own, transformers may leave it out
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


def test_t5_reads_its_encoder_from_a_whole_model(t5_folder):
    from transformers import T5ForConditionalGeneration

    assert {"lm_head.weight", "decoder.final_layer_norm.weight"} <= load_file(t5_folder / "model.safetensors").keys()
    made = tokens.of_text(Tokens(text="t5", t5=str(t5_folder), length=50), None)
    states, mask = made(["a dog barks twice", "rain"])
    assert states.shape == (2, 50, 16) and mask.sum(dim=1).tolist() == [5, 2] and made.dim == 16
    assert (states[~mask] == 0).all()
    encoder = T5ForConditionalGeneration.from_pretrained(t5_folder).eval().encoder
    with torch.no_grad():
        expected = encoder(torch.tensor([[7, 1]])).last_hidden_state[0]
    torch.testing.assert_close(states[1, :2], expected, atol=1e-5, rtol=1e-4)
    cut, counts = tokens.t5(t5_folder, 3)(["a dog barks twice"])
    assert cut.shape == (1, 3, 16) and counts.all()


def test_a_folder_without_t5_is_named(tmp_path):
    with pytest.raises(
        ValueError, match="tokens.t5 .*: no config of a T5 there, config.json; fetch .*google/flan-t5-large"
    ):
        tokens.t5(tmp_path, 50)


def test_t5_is_read_from_either_kind_of_weights(t5_folder):
    texts = ["a dog barks twice", "rain"]
    expected, _ = tokens.t5(t5_folder, 8)(texts)
    torch.save(load_file(t5_folder / "model.safetensors"), t5_folder / "pytorch_model.bin")
    (t5_folder / "model.safetensors").unlink()
    assert torch.equal(tokens.t5(t5_folder, 8)(texts)[0], expected)
    (t5_folder / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="no weights of a T5 there, model.safetensors or pytorch_model.bin or"):
        tokens.t5(t5_folder, 8)


def test_a_t5_without_its_tokenizer_is_refused(t5_folder):
    words = t5_folder / "tokenizer.json"
    content = json.loads(words.read_text())
    content["model"]["vocab"] = {word: i for word, i in content["model"]["vocab"].items() if i < 3}  # specials alone
    words.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="tokens.t5 .*: the tokenizer knows [0-9]+ tokens, the weights have rows for 8"
    ):
        tokens.t5(t5_folder, 8)
    words.unlink()
    with pytest.raises(ValueError, match="no tokenizer of a T5 there, tokenizer.json or spiece.model; fetch"):
        tokens.t5(t5_folder, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": "audiomae"}, "audio 'audiomae' needs 'audiomae': the path of its weights"),
        ({"text": "t5"}, "text 't5' needs 't5'"),
        ({"audio": None, "text": None}, "both left out"),
        ({"pool": (0, 2)}, "greater than or equal to 1"),
    ],
)
def test_settings_of_tokens_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Tokens(**changes)


# The store


@pytest.fixture
def store(tmp_path):
    """Tokens of seven clips, the last token of each but the first hidden."""
    values, mask = noise(7, 3, 4), torch.ones(7, 3, dtype=torch.bool)
    mask[1:, 2] = False
    batches = [(values[rows], mask[rows]) for rows in (slice(0, 4), slice(4, 7))]
    stores.write(tmp_path / "audio", 7, batches)
    return tmp_path / "audio", values * mask[..., None], mask


def test_neighbours_are_read_from_the_store(store):
    folder, values, mask = store
    rows = np.array([[3, 0], [5, -1], [-1, -1]])
    conditions = stores.of_neighbours(rows, audio=folder, text=folder)
    assert list(conditions) == ["tokens", "mask", "text_tokens", "text_mask"]
    data = Latents(np.zeros((3, 4, 2, 2), np.float32), conditions, 1.0)
    condition = Condition.of(data[np.array([2, 0, 1])])
    assert condition.tokens.shape == (3, 6, 4) and condition.tokens.dtype == torch.float32
    assert condition.mask.dtype == torch.bool
    nothing, both, one = condition.tokens
    assert torch.equal(both, torch.cat([values[3], values[0]]).half().float())
    assert torch.equal(one[:3], values[5].half().float()) and (one[3:] == 0).all() and (nothing == 0).all()
    assert condition.mask.tolist() == [[False] * 6, [True, True, False, True, True, True], [True, True] + [False] * 4]
    assert torch.equal(condition.text_tokens, condition.tokens) and torch.equal(condition.text_mask, condition.mask)
    assert isinstance(conditions["tokens"].values, np.memmap)
    assert torch.equal(torch.from_numpy(conditions["mask"][np.arange(1)]), torch.cat([mask[3], mask[0]])[None])


def test_a_store_that_does_not_fit_is_refused(store, tmp_path):
    folder, values, mask = store
    with pytest.raises(ValueError, match="neighbours 0 to 7 of a store of 7 clips: the index is of another corpus"):
        stores.of_neighbours(np.array([[0, 7]]), audio=folder)
    with pytest.raises(ValueError, match="none holds no tokens; run the stage"):
        stores.of_neighbours(np.array([[0, 1]]), text=tmp_path / "none")
    with pytest.raises(ValueError, match="tokens of 7 clips, but the corpus has 8"):
        stores.write(folder, 8, [(values, mask)])
    with pytest.raises(ValueError, match="tokens of clips 0 to 6 are not finite in half precision"):
        stores.write(folder, 7, [(values * 1e6, mask)])
    kept = np.load(folder / "tokens.npy")
    assert np.array_equal(kept, values.numpy().astype(np.float16))  # and nothing was lost
