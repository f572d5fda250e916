"""The sections of params.yaml behind Foley fine-tuning: Latent CLAP, variants, runs, selection, listening test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params_base import Amount, Count, Positive, Rate, Section, Share, Train

Table = Annotated[str, Field(pattern=r"^[^:]+:[^:]+:[^:]+$")]  # paper:table:row with published numbers
Seeds = Annotated[list[Count], Field(min_length=1)]
TargetKind = Literal["text", "tuned", "audio"]


class LatentClap(Section):
    source: Literal["bundled", "scratch"]
    corpus: str
    widths: Annotated[list[Positive], Field(min_length=1)]
    dropout: Share
    normalise: bool  # E_latent divided by its norm, as E_audio is
    scaled: bool  # latents times the VAE's scale, as the LDM sees them
    train: Train


class LatentClapLoss(Section):
    """Eq. 3 of latent-clap-loss with what it leaves open."""

    s_n: Literal["clean", "previous", "noisy"]
    reduction: Literal["mean", "sum"]
    decay: Rate  # w(n) = 10^(-n / decay)


class FoleyVariant(Section):
    """What makes one fine-tuned model: the smallest difference over `foley.common`."""

    init: str  # the foundation's "ldm", or one of foundation.sizes; dvc.yaml reads it of every variant
    pretrained: bool = True  # else from scratch, in that size
    condition: Literal["text", "audio"] = "text"
    prompts: Literal["corpus", "label"] = "corpus"  # label: the class name as the data set spells it
    tuning: bool = False
    lambda_lclap: Amount = 0.0
    seeds: Seeds | None = None  # others than foley.common.seeds


class FoleyCommon(Section):
    corpus: str
    seeds: Seeds
    condition_dropout: Share
    snr_gamma: Rate | None
    tuning_noise: Amount
    lclap: LatentClapLoss
    train: Train


class Sweep(Section):
    """Fig. 3 of latent-clap-loss: average FAD over lambda, in shorter trainings, scored on validation clips."""

    lambdas: Annotated[list[Amount], Field(min_length=2)]
    seeds: Seeds
    steps: Positive
    clips_per_class: Positive


class Foley(Section):
    common: FoleyCommon
    variants: dict[str, FoleyVariant]
    sweep: Sweep


class Run(Section):
    """One row of a table: what its clips are made from, and what is sampled otherwise than `sampling` says."""

    source: Literal["real", "reconstruction", "model"] = "model"
    made_from: str  # a model's folder (of a variant: every seed's), or the manifest of real clips
    seeds: Seeds | None = None  # of the variant's, those that are sampled
    tables: list[Table] = Field(default_factory=list)
    overrides: dict[str, str | int | float] = Field(default_factory=dict)


class Filter(Section):
    """A run whose clips are selected by CLAP similarity among more candidates of another run's models."""

    of: str
    target: TargetKind = "text"
    tables: list[Table] = Field(default_factory=list)


class Selection(Section):
    thresholds: Literal["validation", "text-driven-foley", "latent-clap-loss"] | dict[str, float]
    calibrate: dict[TargetKind, str]  # the variant whose candidates set the thresholds of each kind of target
    pool: Positive  # candidates a class for that
    shares: Annotated[list[Share], Field(min_length=1)]  # tried: the part of the candidates that passes
    relax_after: Positive
    relax_by: Amount
    duplicate: Share
    cap: Positive
    targets: Positive

    @model_validator(mode="after")
    def _some_pass(self):
        if min(self.shares) <= 0:
            raise ValueError("shares: a share of 0 lets no candidate through; give shares above 0")
        return self


class Targets(Section):
    """Table 2 and the box plot of text-driven-foley: one class, trained and selected with several texts."""

    label: str
    texts: dict[str, str]  # row of the table -> prompt of that class
    steps: Positive
    clips: Positive
    candidates: Positive
    repeats: Positive


class Listening(Section):
    runs: Annotated[list[str], Field(min_length=2)]
    clips_per_class: Positive
    by_class: bool
    seed: Count
