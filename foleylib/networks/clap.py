"""CLAP (Wu et al. 2023; `transformers.ClapModel`): text and audio embeddings of unit norm in one space."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foleylib.audio.io import at_rate
from foleylib.audio.mel import DecibelMel, MelConfig
from foleylib.runtime import load_strictly

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's, in its order: pad is 1
TOKENS = 16384  # padded tokens of a batch of texts at most; the attention of 256 texts of 512 tokens takes gigabytes
PADDED = 16  # batches of sorted texts are padded to a multiple of it
OF_CALLS = (  # what a tokenizer's settings have of its calls, and of where it was read
    "max_length",
    "stride",
    "truncation_side",
    "truncation_strategy",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "is_local",
    "local_files_only",
)
TEXT_EPS = 1e-5  # RoBERTa's layer norm; ClapTextConfig's default 1e-12 moves unit vectors by 4e-5


def train_tokenizer(captions: list[str], vocabulary: int, max_tokens: int):
    """A byte-level BPE tokenizer of at most `vocabulary` entries, in RoBERTa's format (`RobertaTokenizerFast`)."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(captions, vocabulary, min_frequency=1, special_tokens=SPECIALS, show_progress=False)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizerFast(vocab=model["vocab"], merges=merges, model_max_length=max_tokens)


def config(settings, vocabulary: int):
    """`ClapConfig` of the sizes in a section `params.foundation.Clap`."""
    from transformers import ClapConfig

    text, audio = settings.text, settings.audio
    return ClapConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": text.hidden,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "intermediate_size": 4 * text.hidden,
            "max_position_embeddings": text.max_tokens + 2,  # RoBERTa counts positions from pad + 1
            "layer_norm_eps": TEXT_EPS,
            "projection_dim": settings.dim,
        },
        audio_config={
            "num_mel_bins": audio.n_mels,
            "spec_size": audio.spec_size,
            "patch_embeds_hidden_size": audio.width,
            "hidden_size": audio.width * 2 ** (len(audio.depths) - 1),
            "depths": audio.depths,
            "num_attention_heads": audio.heads,
            "window_size": audio.window,
            "projection_dim": settings.dim,
        },
        projection_dim=settings.dim,
    )


class Clap(nn.Module):
    """A `ClapModel` with its tokenizer and a front end that is differentiable and runs on any device.

    Of `extractor`, a `ClapFeatureExtractor`, only the numbers are read.
    """

    def __init__(self, model: nn.Module, tokenizer, extractor) -> None:
        super().__init__()
        self.model, self.tokenizer, self.extractor = model, tokenizer, extractor
        self.rate, self.window = extractor.sampling_rate, round(extractor.nb_max_samples)
        self.front_end = DecibelMel(
            MelConfig(
                rate=self.rate,
                n_fft=extractor.fft_window_size,
                hop=extractor.hop_length,
                n_mels=extractor.feature_size,
                fmin=extractor.frequency_min,
                fmax=extractor.frequency_max,
                padding="center",
            )
        )

    @property
    def dim(self) -> int:
        return self.model.config.projection_dim

    def fit_window(self, waves: torch.Tensor) -> torch.Tensor:
        """Waves [shape=(B, T)] to the model's window: the first part of longer ones (the published code crops at
        random), whole repeats and then zeros for shorter ones ("repeatpad")."""
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= 1")
        waves = waves[:, : self.window]
        waves = waves.repeat(1, self.window // waves.shape[1])
        return F.pad(waves, (0, self.window - waves.shape[1]))

    def audio(self, waves: torch.Tensor) -> torch.Tensor:
        """Unit embeddings [shape=(B, D)] of waves [shape=(B, T)] at `self.rate`, in [-1, 1], differentiable."""
        features = self.front_end(self.fit_window(waves))
        return F.normalize(self.model.get_audio_features(input_features=features).pooler_output, dim=-1)

    def text(self, texts: list[str], *, length: int | None = None) -> torch.Tensor:
        """Unit embeddings [shape=(B, D)] of texts, padded to the longest of them or to `length` tokens."""
        tokens = self.tokenizer(
            list(texts),
            padding=True if length is None else "max_length",
            truncation=True,
            max_length=length or self.tokenizer.model_max_length,
            return_tensors="pt",
        ).to(self.model.device)
        features = self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(features.pooler_output, dim=-1)

    @torch.no_grad()
    def embed_audio(
        self,
        waves: torch.Tensor | np.ndarray,
        rate: int | None = None,
        *,
        batch_size: int = 64,
    ) -> torch.Tensor:
        """E_audio [shape=(N, D), unit norm] of waves [shape=(N, T)] in [-1, 1], without gradient.

        The waves are resampled where their `rate` is not the model's; `batch_size` of them are embedded at once.
        """
        parts = torch.as_tensor(waves).split(batch_size)
        return torch.cat([self.audio(at_rate(part, rate, self.rate).to(self.model.device)) for part in parts])

    @torch.no_grad()
    def embed_text(self, texts: list[str], *, batch_size: int = 256) -> torch.Tensor:
        """E_text [shape=(N, D), unit norm] of texts, in batches of `text_batches`, without gradient."""
        batches = self.text_batches(texts, batch_size=batch_size)
        parts = torch.cat([self.text([texts[row] for row in rows], length=length) for rows, length in batches])
        order = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in batches])))
        return parts[order.to(parts.device)]

    def text_batches(self, texts: list[str], *, batch_size: int = 256) -> list[tuple[np.ndarray, int | None]]:
        """Which texts are embedded at once: rows of each batch, and the tokens to which `text` pads it.

        Texts that fit into one batch, of `batch_size` and of `TOKENS` when padded, are one, padded to the longest. More
        of them are sorted by their number of tokens, and a batch of them is padded to a multiple of `PADDED`: below 16
        tokens the CPU takes the sums of the softmax in another order, and an embedding differs by up to 1.5e-7.
        """
        lengths, most = self._lengths(texts), self.tokenizer.model_max_length
        if len(texts) <= batch_size and len(texts) * lengths.max(initial=0) <= TOKENS:
            return [(np.arange(len(texts)), None)]
        order, batches, start = np.argsort(lengths, kind="stable"), [], 0
        padded = np.minimum(-(-lengths[order] // PADDED) * PADDED, most)
        while start < len(order):
            rows = np.arange(1, min(batch_size, len(order) - start) + 1)
            count = max(1, int((rows * padded[start : start + batch_size] <= TOKENS).sum()))
            batches.append((order[start : start + count], int(padded[start + count - 1])))
            start += count
        return batches

    def _lengths(self, texts: list[str]) -> np.ndarray:
        """Tokens of each text [shape=(N,)], at most as many as the model takes."""
        parts = (list(texts[start : start + 1024]) for start in range(0, len(texts), 1024))
        options = {"truncation": True, "max_length": self.tokenizer.model_max_length}
        return np.array([len(ids) for part in parts for ids in self.tokenizer(part, **options)["input_ids"]], dtype=int)

    def save(self, folder: str | Path) -> None:
        """Write model, tokenizer and feature extractor as transformers does."""
        forget_calls(self.tokenizer)
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(folder)


def forget_calls(tokenizer) -> None:
    """Take out of a tokenizer what its last call cut and padded to, and from where it was read, before it is saved.

    transformers saves these with it, and its ClapProcessor cuts audio to as many samples as a text has tokens then.
    """
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for name in OF_CALLS:
        tokenizer.init_kwargs.pop(name, None)


def load(folder: str | Path, device: str | torch.device = "cpu") -> Clap:
    """A CLAP folder (model, tokenizer, feature extractor) in eval mode, so that nothing in it is random."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = load_strictly(ClapModel, folder, stage="clap")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if len(tokenizer) != model.config.text_config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer knows {len(tokenizer)} tokens, the model {model.config.text_config.vocab_size}; "
            "the tokenizer's files are missing or of another model"
        )
    return Clap(model, tokenizer, ClapFeatureExtractor.from_pretrained(folder)).to(device).eval()


def build(settings, captions: list[str], *, seed: int) -> Clap:
    """A new CLAP of the sizes in a section `params.foundation.Clap`, its tokenizer trained on `captions`."""
    from transformers import ClapFeatureExtractor, ClapModel

    audio = settings.audio
    tokenizer = train_tokenizer(captions, settings.text.vocabulary, settings.text.max_tokens)
    extractor = ClapFeatureExtractor(
        feature_size=audio.n_mels,
        sampling_rate=audio.rate,
        hop_length=audio.hop,
        max_length_s=audio.seconds,
        fft_window_size=audio.n_fft,
        frequency_min=audio.fmin,
        frequency_max=audio.fmax,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Clap(ClapModel(config(settings, len(tokenizer))), tokenizer, extractor)
