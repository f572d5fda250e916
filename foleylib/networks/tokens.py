"""Tokens of clips and texts for cross-attention: hidden states of AudioMAE and T5, or of our CLAP's two towers.

Both kinds are called with a list and return tokens [shape=(N, S, C)] and a mask [shape=(N, S), bool] of those that count.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from foleylib.audio.io import at_rate
from foleylib.networks.clap import Clap
from foleylib.runtime import finite, load_strictly, told_of

T5_FILES = {
    "config": ["config.json"],
    "tokenizer": ["tokenizer.json", "spiece.model"],
    "weights": [
        "model.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    ],
}
T5_PADDING = 128  # T5's table of words is filled to a multiple of this: 32128 rows for 32100 tokens


def pool(grid: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """Half the mean and half the maximum of the cells under a kernel [shape=(B, T / t * F / f, C)], time by time.

    `grid` is [shape=(B, T, F, C)], `kernel` (t, f) must divide it. As AudioLDM 2's code pools AudioMAE's features.
    """
    t, f = kernel
    if grid.shape[1] % t or grid.shape[2] % f:
        raise ValueError(f"pool={list(kernel)} does not divide a grid of {grid.shape[1]} by {grid.shape[2]} features")
    cells = grid.unflatten(2, (-1, f)).unflatten(1, (-1, t))  # (B, T / t, t, F / f, f, C)
    return ((cells.mean(dim=(2, 4)) + cells.amax(dim=(2, 4))) / 2).flatten(1, 2)


class ClapGrid(nn.Module):
    """The last hidden states of CLAP's audio tower, before they are averaged."""

    def __init__(self, clap: Clap) -> None:
        super().__init__()
        self.clap, self.rate, self.dim = clap, clap.rate, clap.model.config.audio_config.hidden_size

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Features [shape=(B, T', F', C)] over time and frequency of waves [shape=(B, T)] at `rate`, in [-1, 1]."""
        features = self.clap.front_end(self.clap.fit_window(waves))
        states = self.clap.model.audio_model(input_features=features).last_hidden_state  # (B, C, F', T')
        return states.permute(0, 3, 2, 1)


class AudioTokens(nn.Module):
    """The tokens of clips: a network's features over time and frequency, pooled.

    Parameters
    ----------
    network : `audiomae.AudioMae` or `ClapGrid`: has `rate` and `dim`, and makes [shape=(B, T', F', C)] of waves.
    kernel : cells of time and frequency in a token.
    """

    def __init__(self, network: nn.Module, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.kernel, self.dim = network, tuple(kernel), network.dim

    @torch.no_grad()
    def forward(
        self, waves: torch.Tensor | np.ndarray, rate: int | None = None, *, batch_size: int = 32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask of waves [shape=(N, T)] in [-1, 1], resampled where their `rate` is not the network's. All
        tokens of a clip count."""
        device = next(self.network.parameters()).device
        parts = [at_rate(part, rate, self.network.rate) for part in torch.as_tensor(waves).split(batch_size)]
        tokens = torch.cat([pool(self.network(part.to(device)), self.kernel) for part in parts])
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device)


class TextTokens(nn.Module):
    """The tokens of texts: the last hidden states of an encoder, cut or filled to `length`.

    `encoder` takes ids and an attention mask as transformers' text models do, `tokenizer` belongs to it.
    """

    def __init__(self, encoder: nn.Module, tokenizer, length: int) -> None:
        super().__init__()
        if length > tokenizer.model_max_length:
            raise ValueError(f"length={length}: the text encoder reads {tokenizer.model_max_length} tokens at most")
        self.encoder, self.tokenizer, self.length, self.dim = encoder, tokenizer, length, encoder.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: list[str], *, batch_size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask of texts; tokens that do not count are zeros."""
        parts = [self._batch(list(texts[start : start + batch_size])) for start in range(0, len(texts), batch_size)]
        tokens, masks = zip(*parts)
        return torch.cat(tokens), torch.cat(masks)

    def _batch(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        fixed = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        read = self.tokenizer(texts, **fixed).to(next(self.encoder.parameters()).device)
        mask = read["attention_mask"]
        states = self.encoder(read["input_ids"], attention_mask=mask).last_hidden_state
        return states * mask[..., None], mask.bool()


def check_files(settings) -> None:
    """A ValueError where a file is missing that a section `params.retrieval.Tokens` needs."""
    if settings.audio == "audiomae" and not Path(settings.audiomae).is_file():
        raise ValueError(
            f"retrieval.tokens.audiomae {settings.audiomae}: no such file; fetch AudioMAE's checkpoint, which the README of "
            "facebookresearch/AudioMAE on GitHub links, or correct the path"
        )
    if settings.text == "t5":
        _check_t5(settings.t5)


def _check_t5(folder: str | Path) -> None:
    for what, names in T5_FILES.items():
        if not any((Path(folder) / name).is_file() for name in names):
            raise ValueError(
                f"retrieval.tokens.t5 {folder}: no {what} of a T5 there, {' or '.join(names)}; fetch the files of "
                "google/flan-t5-large from the Hugging Face Hub, or correct the path"
            )


def placed(settings, root: Path):
    """A section `params.retrieval.Tokens` with its weights where they lie: below `root`, or in the Hub's cache."""
    from foleylib.networks.published import hub

    found = {}
    for name in ("audiomae", "t5"):
        if (given := getattr(settings, name)) is not None:
            revision = getattr(settings, f"{name}_revision")
            found[name] = str(hub.placed(root, given, revision, f"retrieval.tokens.{name}"))
    return settings.model_copy(update=found)


def of_audio(settings, clap: Clap) -> AudioTokens | None:
    """What makes the audio tokens of a section `params.retrieval.Tokens`, in eval mode; None where it leaves them out."""
    if settings.audio is None:
        return None
    if settings.audio == "clap":
        return AudioTokens(ClapGrid(clap), settings.pool).eval()
    from foleylib.networks.published import reader, weights

    check_files(settings)
    state = reader.read(settings.audiomae)
    with told_of(settings.audiomae, "give AudioMAE's own checkpoint"):
        model = weights.audiomae_from_original(state)
    return AudioTokens(finite(model, settings.audiomae), settings.pool).eval()


def of_text(settings, clap: Clap) -> TextTokens | None:
    """What makes the text tokens of a section `params.retrieval.Tokens`, in eval mode; None where it leaves them out."""
    if settings.text is None:
        return None
    if settings.text == "clap":
        return TextTokens(clap.model.text_model, clap.tokenizer, settings.length).eval()
    return t5(settings.t5, settings.length)


def t5(folder: str | Path, length: int) -> TextTokens:
    """The encoder of a T5 in a folder as transformers saves one, whole or its encoder alone, with its tokenizer."""
    from transformers import AutoTokenizer, T5EncoderModel

    class T5Encoder(T5EncoderModel):
        _keys_to_ignore_on_load_unexpected = ("decoder", "lm_head")  # FLAN-T5 has a head of its own

    _check_t5(folder)
    encoder = load_strictly(T5Encoder, folder, stage="retrieval")
    with told_of(folder, "fetch the tokenizer of the same T5"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    unused = encoder.config.vocab_size - len(tokenizer)  # transformers makes an empty one of files that say nothing
    if not 0 <= unused < T5_PADDING or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"retrieval.tokens.t5 {folder}: the tokenizer knows {len(tokenizer)} tokens, the weights have rows for "
            f"{encoder.config.vocab_size}; fetch the tokenizer of the same T5"
        )
    return TextTokens(encoder, tokenizer, length).eval()
