"""The sections of params.yaml behind the foundation models: CLAP, VAE, vocoder and latent diffusion models."""

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from foleylib.params.base import Amount, Count, Name, OnceEach, Positive, Rate, Section, Share, Sizes, Train

Source = Literal["bundled", "scratch", "finetuned", "checkpoint", "hub"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+\.ckpt)?")
ORIGINAL = (".ckpt", ".pt", ".pth")  # files of the authors' code, which have no tokenizer beside them


class ClapText(Section):
    vocabulary: Positive
    hidden: Positive
    layers: Positive
    heads: Positive
    max_tokens: Positive = 77

    @model_validator(mode="after")
    def _divides(self):
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


class ClapAudio(Section):
    n_mels: Positive
    spec_size: Positive
    n_fft: Positive
    hop: Positive
    fmin: Amount
    fmax: Rate
    rate: Positive
    seconds: Rate
    width: Positive
    depths: Sizes
    heads: Sizes
    window: Positive

    @model_validator(mode="after")
    def _below_nyquist(self):
        if not self.fmin < self.fmax <= self.rate / 2:
            raise ValueError(f"fmax {self.fmax} must lie above fmin {self.fmin} and not above rate / 2")
        return self

    @model_validator(mode="after")
    def _has_heads_for_each_stage(self):
        if len(self.depths) != len(self.heads):
            raise ValueError(f"heads {self.heads}: give one number for each of depths {self.depths}")
        return self


class Clap(Section):
    dim: Positive
    confused: bool = False  # whether a prompt may be nearer to the clips of another class than to its own's
    prompt_share: Share = 0.15  # of a step's clips that come with the prompt of their class, not their caption
    microphone_share: Share = 0.5  # of a step's clips that are heard through another microphone (`audio.augment`)
    classmates: Positive = 8  # half of a step's clips come in groups of so many of one class; 1: drawn at random
    uniformity: Amount = 1.0  # weight of the uniformity of embeddings beside the contrastive loss
    text: ClapText
    audio: ClapAudio
    train: Train


class OtherRates(Section):
    """Clips whose log-mels the VAE learns beside those of the foundation's corpus, resampled from their own rate."""

    corpus: str
    rates: Annotated[list[Literal[16000, 24000, 32000, 48000]], Field(min_length=1), OnceEach]


class Vae(Section):
    channels: Sizes
    layers: Positive
    latent_channels: Positive = 8
    groups: Positive
    weights: dict[Literal["l1", "l2", "kl"], Amount]
    frozen_encoder: bool = False  # train the decoder alone, so that the latents stay as they are
    others: OtherRates | None = None  # one VAE then serves several sampling rates: all have 64 bands and a hop of 10 ms
    train: Train

    @model_validator(mode="after")
    def _divides(self):
        if any(c % self.groups for c in self.channels):
            raise ValueError(f"channels {self.channels} are not all multiples of groups {self.groups}")
        if set(self.weights) != {"l1", "l2", "kl"}:
            raise ValueError("weights must name l1, l2 and kl (0 switches one off)")
        return self


class Upsampling(Section):
    rates: Sizes
    kernels: Sizes

    @model_validator(mode="after")
    def _fit(self):
        if len(self.rates) != len(self.kernels) or any(k < r for r, k in zip(self.rates, self.kernels)):
            raise ValueError(f"kernels {self.kernels}: give one for each of rates {self.rates}, none of them smaller")
        return self


class Vocoder(Section):
    channels: Positive
    upsampling: Upsampling | None = None  # those of `networks.vocoder.UPSAMPLING` without
    weights: dict[Literal["mel", "stft", "adversarial", "feature_matching"], Amount]
    discriminator_width: Rate
    periods: Annotated[Sizes, OnceEach]
    scales: Positive
    segment: Positive
    adversarial_from: Count
    decoded_from: Count | None = None  # step from which the mels come through the VAE; real ones throughout without
    train: Train

    @model_validator(mode="after")
    def _divides(self):
        layers = 5 if self.upsampling is None else len(self.upsampling.rates)
        if self.channels % 2**layers:
            raise ValueError(f"channels {self.channels} is no multiple of {2**layers}: {layers} layers halve it")
        if set(self.weights) != {"mel", "stft", "adversarial", "feature_matching"}:
            raise ValueError("weights must name mel, stft, adversarial and feature_matching (0 switches one off)")
        return self


class Noise(Section):
    steps: Positive
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _rises(self):
        if self.beta_start >= self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} must lie below beta_end {self.beta_end}: noise is added")
        return self


class Ldm(Section):
    channels: Sizes
    layers: Positive
    head_channels: Positive
    groups: Positive
    noise: Noise
    condition_dropout: Share
    snr_gamma: Rate | None
    train: Train

    @model_validator(mode="after")
    def _divides(self):
        for c in self.channels:
            if c % self.head_channels or c % self.groups:
                raise ValueError(
                    f"channels {c} is no multiple of head_channels {self.head_channels} and groups {self.groups}"
                )
        return self

    def resized(self, size: "LdmSize") -> "Ldm":
        """These settings in another size."""
        return Ldm.model_validate(self.model_dump() | size.model_dump(exclude={"checkpoint", "revision"}))


class LdmSize(Section):
    """Another size of the LDM: what it has otherwise than `foundation.ldm`."""

    channels: Sizes
    head_channels: Positive
    checkpoint: str | None = None  # as that of the foundation
    revision: str | None = None


class Foundation(Section):
    """Where the foundation comes from, and its parts.

    With source "hub" `checkpoint` is an id of the Hugging Face Hub, of a repository in diffusers' format or of a .ckpt
    file in one, and `revision` its commit; with "checkpoint" a folder in diffusers' format or an original .ckpt file.
    `clap_checkpoint` (folder, LAION's .pt, or an id with `clap_revision`) is the whole CLAP where that folder has its text
    half alone, `tokenizer` (folder, or id with `tokenizer_revision`) RoBERTa's, which .ckpt and .pt files lack.
    """

    corpus: str
    source: Source
    checkpoint: str | None = None
    revision: str | None = None
    clap_checkpoint: str | None = None
    clap_revision: str | None = None
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    clap: Clap
    vae: Vae
    vocoder: Vocoder
    ldm: Ldm
    sizes: dict[Name, LdmSize] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_checkpoint(self):
        if not self.published:
            return self
        own = {"": self} | {f"sizes.{name}.": size for name, size in self.sizes.items()}
        for where, part in own.items():
            if not part.checkpoint:
                kind = "an id of the Hub" if self.source == "hub" else "a folder or .ckpt file of an AudioLDM"
                raise ValueError(f"source '{self.source}' needs '{where}checkpoint': {kind}")
            if self.source == "hub" and not HUB_ID.fullmatch(part.checkpoint):
                raise ValueError(f"{where}checkpoint: '{part.checkpoint}' is no id of the Hub (owner/name)")
            if self.source == "checkpoint" and part.revision:
                raise ValueError(f"{where}revision is of source 'hub'; leave it empty, or set source to that")
        files = {f"{where}checkpoint": part.checkpoint for where, part in own.items()}
        for where, file in (files | {"clap_checkpoint": self.clap_checkpoint or ""}).items():
            if file.endswith(ORIGINAL) and not self.tokenizer:
                raise ValueError(f"'{where}' is a file without tokenizer: name RoBERTa's in 'tokenizer'")
        return self

    @model_validator(mode="after")
    def _frozen_encoder_was_trained(self):
        if self.vae.frozen_encoder and self.source == "scratch":
            raise ValueError("vae.frozen_encoder: source 'scratch' would leave it untrained; set source to 'finetuned'")
        return self

    @model_validator(mode="after")
    def _sizes_are_new_parts(self):
        for name, size in self.sizes.items():
            if name in (*type(self).model_fields, "latent_clap") or not name.isidentifier():
                raise ValueError(f"sizes.{name}: that is no name for a new part of the foundation; call it ldm_{name}")
            try:
                self.ldm.resized(size)
            except ValidationError as error:
                raise ValueError(f"sizes.{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    @property
    def published(self) -> bool:
        """Whether the parts are taken from published files."""
        return self.source in ("hub", "checkpoint")

    @property
    def ldms(self) -> list[str]:
        """The latent diffusion models: "ldm" and those of `sizes`; each has its folder in models/foundation."""
        return ["ldm", *self.sizes]

    def section(self, part: str) -> Clap | Vae | Vocoder | Ldm:
        """The settings of a part: clap, vae, vocoder, ldm, or one of `sizes`, which has the rest from ldm."""
        if part in ("clap", "vae", "vocoder", "ldm"):
            return getattr(self, part)
        if part not in self.sizes:
            raise ValueError(f"the foundation has no part '{part}'; it has: clap, vae, vocoder, {', '.join(self.ldms)}")
        return self.ldm.resized(self.sizes[part])
