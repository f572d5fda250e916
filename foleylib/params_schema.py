"""The sections of params.yaml as pydantic models: an unknown key, a wrong type or an impossible combination is an error."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Source = Literal["bundled", "scratch", "checkpoint"]


class Section(BaseModel):
    """A part of params.yaml in which an unknown key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Audio(Section):
    rate: Literal[16000, 24000, 32000, 48000]
    seconds: Annotated[float, Field(gt=0, le=60)]
    padding: Literal["dataset", "center"]

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)


class Corpus(Section):
    kind: Literal["synthetic", "esc50", "dcase2023t7", "urbansound8k", "folder"]
    root: str | None = None
    classes: Literal["foley", "broad"] | list[str] | None = None
    clips_per_class: dict[Literal["train", "val", "test"], Count] | None = None
    folds: dict[Literal["train", "val", "test"], list[Positive]] | None = None
    split_fractions: dict[Literal["train", "val", "test"], Share] | None = None
    rate: Positive
    seconds: Annotated[float, Field(gt=0)]
    fit: Literal["repeat", "pad"] = "repeat"
    crop: Literal["start", "loudest"] = "start"
    ambience: Share = 1.0
    prompt_template: str | None = None
    prompts: dict[str, str] = {}
    min_seconds: Annotated[float, Field(ge=0)] = 0.1
    seed: Count = 0
    jobs: int = -1

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self):
        needs = {"synthetic": "clips_per_class", "esc50": "folds", "urbansound8k": "folds"}
        need = needs.get(self.kind, "split_fractions")
        if getattr(self, need) is None:
            raise ValueError(f"a corpus of kind '{self.kind}' needs '{need}'")
        if self.kind != "synthetic" and self.root is None:
            raise ValueError(f"a corpus of kind '{self.kind}' needs 'root', the folder that holds it")
        return self


class Train(Section):
    steps: Positive
    batch_size: Positive
    accumulate: Positive = 1
    lr: Rate
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Count = 100
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: Rate = 1.0
    ema_decay: Share = 0.999
    validate_every: Positive = 500
    checkpoint_every: Positive = 200


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
    fmin: Annotated[float, Field(ge=0)]
    fmax: Rate
    rate: Positive
    seconds: Rate
    width: Positive
    depths: list[Positive]
    heads: list[Positive]
    window: Positive

    @model_validator(mode="after")
    def _below_nyquist(self):
        if not self.fmin < self.fmax <= self.rate / 2:
            raise ValueError(f"fmax {self.fmax} must lie above fmin {self.fmin} and not above rate / 2")
        return self


class Clap(Section):
    dim: Positive
    text: ClapText
    audio: ClapAudio
    train: Train


class Vae(Section):
    channels: list[Positive]
    layers: Positive
    latent_channels: Positive = 8
    groups: Positive
    weights: dict[Literal["l1", "l2", "kl"], Annotated[float, Field(ge=0)]]
    train: Train

    @model_validator(mode="after")
    def _divides(self):
        if any(c % self.groups for c in self.channels):
            raise ValueError(f"channels {self.channels} are not all multiples of groups {self.groups}")
        if set(self.weights) != {"l1", "l2", "kl"}:
            raise ValueError("weights must name l1, l2 and kl (0 switches one off)")
        return self


class Vocoder(Section):
    channels: Positive
    discriminator_width: Rate
    periods: list[Positive]
    scales: Positive
    segment: Positive
    adversarial_from: Count
    train: Train

    @model_validator(mode="after")
    def _divides(self):
        if self.channels % 32:
            raise ValueError(f"channels {self.channels} is no multiple of 32: five layers halve it")
        return self


class Noise(Section):
    steps: Positive
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]


class Ldm(Section):
    channels: list[Positive]
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


class Foundation(Section):
    corpus: str
    source: Source
    checkpoint: str | None = None
    clap: Clap
    vae: Vae
    vocoder: Vocoder
    ldm: Ldm

    @model_validator(mode="after")
    def _has_checkpoint(self):
        if self.source == "checkpoint" and not self.checkpoint:
            raise ValueError("source 'checkpoint' needs 'checkpoint': a folder or hub id of an AudioLDM pipeline")
        return self


class Judge(Section):
    corpus: str
    widths: list[Positive]
    embedding_dim: Positive
    mixup_alpha: Annotated[float, Field(ge=0)]
    train: Train


class Features(Section):
    batch_size: Positive


class FoleyVariant(Section):
    """What makes one fine-tuned model; every key can be set for all in `foley.common` and for one in its variant."""

    init: Literal["foundation", "scratch"] = "foundation"
    condition: Literal["text", "audio"] = "text"


class FoleyCommon(Section):
    corpus: str
    condition_dropout: Share
    snr_gamma: Rate | None
    train: Train


class Foley(Section):
    common: FoleyCommon
    variants: dict[str, FoleyVariant]


class Sampling(Section):
    corpus: str
    clips_per_class: Positive
    solver: Literal["ddim", "dpm++"]
    steps: Positive
    eta: Share
    guidance: Annotated[float, Field(ge=0)]
    batch_size: Positive


class Run(Section):
    """One row of a table: what its clips are made from, and what is sampled otherwise than `sampling` says."""

    source: Literal["real", "reconstruction", "model"] = "model"
    made_from: str  # a pipeline folder, or the manifest of real clips; relative to the repository
    table: Annotated[str, Field(pattern=r"^[^:]+:[^:]+:[^:]+$")] | None = None  # paper:table:row with published numbers
    overrides: dict[str, str | int | float] = {}


class Evaluate(Section):
    split: Literal["val", "test"]
    bootstrap: Positive
    level: Annotated[float, Field(gt=0, lt=1)]
    splits: Positive
    seed: Count


class Params(Section):
    seed: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["no", "bf16", "fp16"]
    audio: Audio
    corpora: dict[str, Corpus]
    foundation: Foundation
    judge: Judge
    features: Features
    foley: Foley
    sampling: Sampling
    runs: dict[str, Run]
    evaluate: Evaluate

    @model_validator(mode="after")
    def _fits_together(self):
        for where, name in [("foundation", self.foundation.corpus), ("judge", self.judge.corpus),
                            ("foley.common", self.foley.common.corpus), ("sampling", self.sampling.corpus)]:  # fmt: skip
            if name not in self.corpora:
                raise ValueError(f"{where}.corpus is '{name}', which is none of corpora: {', '.join(self.corpora)}")
        models = ["models/foundation/ldm", *(f"models/foley/{variant}" for variant in self.foley.variants)]
        for name, run in self.runs.items():
            if run.source != "real" and run.made_from not in models:
                raise ValueError(f"runs.{name}.made_from is '{run.made_from}', which is none of: {', '.join(models)}")
            if run.overrides and run.source != "model":
                raise ValueError(f"runs.{name}.overrides: only a run of source 'model' is sampled")
            self.sampling_of(name)
        for name, corpus in self.corpora.items():
            if (corpus.rate, corpus.seconds) != (self.audio.rate, self.audio.seconds):
                raise ValueError(f"corpora.{name}: rate and seconds differ from audio.rate and audio.seconds")
        if self.foundation.vocoder.segment % (self.audio.rate // 100):
            raise ValueError(
                f"foundation.vocoder.segment is no multiple of the hop of {self.audio.rate // 100} samples"
            )
        frames = self.audio.samples / (self.audio.rate // 100)  # the hop is 10 ms at every rate
        if frames % 32:
            raise ValueError(
                f"audio.seconds {self.audio.seconds} makes {frames:g} mel frames; the VAE and U-Net halve them five times: "
                "give a multiple of 0.32 s"
            )
        return self

    def sampling_of(self, run: str) -> Sampling:
        """The sampling settings of a run: `sampling` with the run's overrides."""
        return Sampling.model_validate({**self.sampling.model_dump(), **self.runs[run].overrides})
