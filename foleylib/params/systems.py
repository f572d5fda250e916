"""The sections of params.yaml that say what is fine-tuned: Latent CLAP encoder, common settings, systems, and what the
papers compare beside them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params.base import Amount, Count, Names, OnceEach, Positive, Rate, Section, Seeds, Share, Third, Train
from foleylib.params.retrieval import Retrieved


class LatentClap(Section):
    """The Latent CLAP encoder."""

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


class Finetune(Section):
    """What all systems share."""

    seeds: Seeds
    condition_dropout: Share  # of the whole condition: the text, and with it what was retrieved
    retrieval_dropout: Third = 0.0  # of the neighbours; as much of their sound alone, and of their captions alone
    snr_gamma: Rate | None
    tuning_noise: Amount
    lclap: LatentClapLoss
    train: Train


class Loss(Section):
    """Weights of the loss terms beside L_DDPM, whose weight is 1."""

    lclap: Amount = 0.0  # lambda of Eq. 4 of latent-clap-loss


class System(Section):
    """One fine-tuned model: the smallest difference over `finetune`. dvc.yaml reads corpus and init of every system."""

    corpus: str
    init: str  # the foundation's "ldm", or one of foundation.sizes
    pretrained: bool = True  # else from scratch, in that size
    condition: Literal["text", "audio"] = "text"
    prompts: Literal["corpus", "label"] = "corpus"  # label: the class name as the data set spells it
    tuning: bool = False
    loss: Loss = Loss()
    retrieval: Retrieved | None = None  # what it reads of its clips' neighbours (re-audioldm)
    rates: bool = False  # whether it is told the sampling rate (src-gaudio); its corpus has several
    seeds: Seeds | None = None  # others than finetune.seeds


class LambdaSweep(Section):
    """Fig. 3 of latent-clap-loss: average FAD over lambda, in shorter trainings, scored on validation clips."""

    corpus: str
    tuning: Annotated[list[bool], Field(min_length=1), OnceEach]  # with the tuning layer, without, or both
    lambdas: Annotated[list[Amount], Field(min_length=2), OnceEach]
    seeds: Seeds
    steps: Positive
    clips_per_class: Positive

    @model_validator(mode="after")
    def _has_a_baseline(self):
        if 0 not in self.lambdas:
            raise ValueError("lambdas must hold 0: the model without the loss is what the others are compared with")
        return self


class Targets(Section):
    """Table 2 and the box plot of text-driven-foley: one class, trained and selected with several texts."""

    corpus: str
    label: str
    texts: Annotated[dict[str, str], Field(min_length=1)]  # row of the table -> prompt of that class
    seeds: Seeds
    steps: Positive
    clips: Positive  # of a row, and of each point of the box plot
    candidates: Positive  # half of them set the threshold, the clips are among the others

    @model_validator(mode="after")
    def _has_enough_candidates(self):
        if self.candidates <= 2 * self.clips:
            raise ValueError(
                f"candidates {self.candidates}: give more than twice the {self.clips} clips; half set a threshold, and of no more "
                "than are wanted none is selected"
            )
        return self


class Transfer(Section):
    """Tables I and II and Fig. 2 of audioldm-transfer-benchmark: what pre-training and the kind of condition bring."""

    untuned: Names  # corpora on which the foundation is scored as it is
    corpora: Names  # corpora that it is fine-tuned on
    seeds: Seeds
    steps: Positive
    scratch_lr: Rate  # of training from scratch; pre-trained models have that of `finetune`
    every: Positive  # steps between two checkpoints, which are scored on validation and on test clips
    clips: dict[Literal["val", "test"], Positive]  # sampled at each checkpoint, one for each of as many real ones

    @model_validator(mode="after")
    def _has_checkpoints(self):
        if self.steps % self.every:
            raise ValueError(
                f"every {self.every}: give a divisor of steps {self.steps}, so that the last one is scored"
            )
        if set(self.clips) != {"val", "test"}:
            raise ValueError(f"clips has {', '.join(self.clips)}: give a number for val, which chooses, and for test")
        return self


class Sensitivity(Section):
    """Fig. 1 of audioldm-transfer-benchmark: which metric notices what is done to real clips."""

    clips: Annotated[int, Field(strict=True, ge=4)]  # test clips, each damaged in every way
    scored: Annotated[int, Field(strict=True, ge=2)]  # of them, drawn anew in each draw
    shares: Annotated[list[Share], Field(min_length=2)]  # of the scored clips that are damaged ones
    draws: Annotated[int, Field(strict=True, ge=3)]
    noise: Rate  # variance of the noise, as a part of the range of the log-mel
    masks: Positive
    mask_length: Annotated[float, Field(gt=0, lt=1)]  # of each, as a part of the clip
    interferers: Count  # classes that are mixed in; with 0 the experiment is left out
    excluded: list[str] = Field(
        default_factory=list
    )  # of these classes, those that are the sampled ones by another name

    @model_validator(mode="after")
    def _starts_from_nothing(self):
        if self.shares[0] != 0 or sorted(set(self.shares)) != self.shares:
            raise ValueError(
                f"shares {self.shares}: give them in rising order, from 0, what the others are held against"
            )
        if self.scored >= self.clips:
            raise ValueError(f"scored {self.scored}: give fewer than the {self.clips} clips, so that draws differ")
        return self
