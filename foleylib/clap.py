"""CLAP (Wu et al. 2023; `transformers.ClapModel`): text and audio embeddings of unit norm in one space."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foleylib import train
from foleylib.mel import MelConfig
from foleylib.panns import DecibelMel

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's, in its order: pad is 1
TEXT_EPS = 1e-5  # RoBERTa's layer norm; ClapTextConfig's default 1e-12 moves unit vectors by 4e-5


def train_tokenizer(captions: list[str], vocabulary: int, max_tokens: int):
    """A byte-level BPE tokenizer of at most `vocabulary` entries, in RoBERTa's format."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(
        captions, vocab_size=vocabulary, min_frequency=1, special_tokens=SPECIALS, show_progress=False
    )
    bpe.post_process = None
    vocab, merges = bpe.get_vocab(), [tuple(m) for m in _merges(bpe)]
    return RobertaTokenizerFast(vocab=vocab, merges=merges, model_max_length=max_tokens)


def _merges(bpe) -> list:
    import json

    return json.loads(bpe.to_str())["model"]["merges"]


def config(settings, vocabulary: int):
    """`ClapConfig` of the sizes in `params.Clap`."""
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
    """A CLAP model with its tokenizer and a front end that is differentiable and runs on any device.

    Parameters
    ----------
    model : `transformers.ClapModel`.
    tokenizer : RoBERTa's, or the small one trained here.
    extractor : `transformers.ClapFeatureExtractor`, read for its numbers only.
    """

    def __init__(self, model, tokenizer, extractor):
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
        """Waves [shape=(B, T)] to the model's window: the first part of longer ones (the published code crops at random),
        whole repeats and then zeros for shorter ones ("repeatpad")."""
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= 1")
        waves = waves[:, : self.window]
        waves = waves.repeat(1, self.window // waves.shape[1])
        return F.pad(waves, (0, self.window - waves.shape[1]))

    def audio(self, waves: torch.Tensor) -> torch.Tensor:
        """Waves at `self.rate` Hz, in [-1, 1] [shape=(B, T)] to embeddings of unit norm [shape=(B, D)], differentiable."""
        features = self.front_end(self.fit_window(waves))
        return _unit(self.model.get_audio_features(input_features=features))

    def text(self, texts: list[str]) -> torch.Tensor:
        """Texts to embeddings of unit norm [shape=(B, D)]."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.tokenizer.model_max_length, return_tensors="pt"
        ).to(self.model.device)
        return _unit(self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"]))

    @torch.no_grad()
    def embed_audio(self, waves, rate: int | None = None, *, batch_size: int = 64) -> torch.Tensor:
        """E_audio [shape=(N, D), unit norm] of waves [shape=(N, T)] at `rate` Hz, without gradient.

        Waves are a tensor or an array, resampled where `rate` is not the model's; `batch_size` of them are embedded at once.
        """
        parts = torch.as_tensor(waves).split(batch_size)
        return torch.cat([self.audio(self._at_own_rate(part, rate).to(self.model.device)) for part in parts])

    def _at_own_rate(self, waves: torch.Tensor, rate: int | None) -> torch.Tensor:
        if rate in (None, self.rate):
            return waves
        from foleylib.audio import resample

        return torch.from_numpy(np.stack([resample(w, rate, self.rate) for w in waves.cpu().numpy()]))

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> torch.Tensor:
        """`text` without gradient."""
        return self.text(texts)

    def save(self, folder: Path) -> None:
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(folder)


def _unit(features) -> torch.Tensor:
    return F.normalize(getattr(features, "pooler_output", features), dim=-1)


def load(folder: str | Path, device: str | torch.device = "cpu") -> Clap:
    """A CLAP folder (model, tokenizer, feature extractor) in eval mode, so that nothing in it is random."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = ClapModel.from_pretrained(folder, dtype=torch.float32)
    if len(tokenizer) != model.config.text_config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer knows {len(tokenizer)} tokens, the model {model.config.text_config.vocab_size}; "
            "the tokenizer's files are missing or of another model"
        )
    return Clap(model, tokenizer, ClapFeatureExtractor.from_pretrained(folder)).to(device).eval()


def build(settings, captions: list[str], *, seed: int) -> Clap:
    """A new CLAP of the sizes in `params.Clap`, its tokenizer trained on `captions`."""
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


def contrastive_terms(clap: Clap, waves: torch.Tensor, captions: list[str], groups: torch.Tensor) -> train.Terms:
    """The symmetric contrastive loss of CLAP, with every pair of one group a positive.

    With all groups distinct this is the published loss. Class-labelled clips share captions, and a pair of two dogs is
    no negative: then each row's target is uniform over the clips of its group (Yang et al. 2022, UniCL).

    Parameters
    ----------
    waves : [shape=(B, T)], captions : B texts, groups : [shape=(B,)], integers.
    """
    audio, text = clap.audio(waves), clap.text(captions)
    same = (groups[:, None] == groups[None, :]).float()
    target = same / same.sum(1, keepdim=True)  # (B, B)
    to_text = clap.model.logit_scale_a.exp() * audio @ text.T
    to_audio = clap.model.logit_scale_t.exp() * text @ audio.T
    return {"contrastive": (F.cross_entropy(to_text, target) + F.cross_entropy(to_audio, target)) / 2}


def fit(settings, waves, captions: list[str], groups, *, seed: int, scratch: Path, device: str = "auto",
        precision: str = "float32", validate=None):  # fmt: skip
    """Train a CLAP from scratch on clips `waves[indices]` with a caption and a group (class) each; returns (clap, history).

    `validate(clap)` returns scalars for the history.
    """
    clap = build(settings, captions, seed=seed)
    groups = torch.as_tensor(groups)

    def load_batch(indices) -> dict:
        return {"waves": waves[indices], "captions": [captions[i] for i in indices], "groups": groups[indices]}

    def terms(module, batch: dict, generator: torch.Generator) -> train.Terms:
        gain = 10 ** (torch.empty(len(batch["waves"]), 1).uniform_(-0.5, 0.2, generator=_cpu(generator)))
        return contrastive_terms(clap, batch["waves"] * gain.to(batch["waves"]), batch["captions"], batch["groups"])

    player = train.Player(clap, terms, {"contrastive": 1.0})
    check = None if validate is None else lambda: validate(clap)
    history = train.fit({"clap": player}, load_batch, len(waves), settings.train, seed=seed, scratch=scratch,
                        device=device, precision=precision, validate=check)  # fmt: skip
    return clap.cpu().eval(), history


def _cpu(generator: torch.Generator) -> torch.Generator:
    return generator if generator.device.type == "cpu" else torch.Generator().manual_seed(generator.initial_seed())


def retrieval_accuracy(audio: torch.Tensor, text: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of clips whose nearest class prompt is that of their own class (zero-shot classification).

    Parameters
    ----------
    audio : clip embeddings [shape=(N, D)], text : one embedding a class [shape=(C, D)], targets : classes [shape=(N,)].
    """
    return float(((audio @ text.T).argmax(1) == targets).double().mean())
