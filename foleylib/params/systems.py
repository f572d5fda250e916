"""The sections of params.yaml that say what is fine-tuned: Latent CLAP encoder, common settings, systems, sweep."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params.base import Amount, Positive, Rate, Section, Seeds, Share, Train


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
    condition_dropout: Share
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
    seeds: Seeds | None = None  # others than finetune.seeds


class LambdaSweep(Section):
    """Fig. 3 of latent-clap-loss: average FAD over lambda, in shorter trainings, scored on validation clips."""

    corpus: str
    tuning: Annotated[list[bool], Field(min_length=1)]  # with the tuning layer, without, or both
    lambdas: Annotated[list[Amount], Field(min_length=2)]
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
    texts: dict[str, str]  # row of the table -> prompt of that class
    seeds: Seeds
    steps: Positive
    clips: Positive  # of a row, and of each point of the box plot
    candidates: Positive  # half of them set the threshold, the clips are among the others

    @model_validator(mode="after")
    def _has_enough_candidates(self):
        if self.candidates < 2 * self.clips:
            raise ValueError(
                f"candidates {self.candidates}: give at least twice the {self.clips} clips, half set a threshold"
            )
        return self
