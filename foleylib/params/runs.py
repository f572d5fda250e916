"""The sections of params.yaml behind the rows of the tables: runs, selection, listening test, evaluation."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from foleylib.params.base import Amount, Count, OnceEach, Positive, Section, Seeds, Share, Sizes, Train

PUBLISHED = Path(__file__).parents[1] / "papers" / "published.csv"  # paper, table, row, class, metric, value
Table = Annotated[str, Field(pattern=r"^[^:]+:[^:]+:[^:]+$")]  # paper:table:row with published numbers
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
ALWAYS = ["judge", "clap"]  # the embedders of every evaluation
TargetKind = Literal["text", "tuned", "audio"]


class Display(NamedTuple):
    """How a run is shown in tables and figures."""

    name: str
    colour: str | None


class Judge(Section):
    """The evaluation network behind KAD, FD, coverage, IS, KL and accuracy."""

    source: Literal["bundled", "scratch"]
    corpus: str
    widths: Sizes
    embedding_dim: Positive
    mixup_alpha: Amount
    parameters: Amount  # weight of the known parameters' error beside the classes' cross-entropy
    train: Train


class Detector(Section):
    """The network that finds the events of scenes in generated clips: event recall, precision, order accuracy."""

    source: Literal["bundled", "scratch"]
    corpus: str  # with scenes: to be trained on, and to be tested on
    widths: Annotated[list[Positive], Field(min_length=2)]
    noise_share: Share  # of a step's clips that are noise, in which nothing is to be heard
    train: Train


class Features(Section):
    batch_size: Positive


class Sampling(Section):
    corpus: str
    clips_per_class: Positive
    solver: Literal["ddim", "dpm++"]
    steps: Positive
    spacing: Literal["leading", "log_snr"] = "leading"  # of the steps of dpm++
    eta: Share  # of ddim
    guidance: Amount
    batch_size: Positive
    vocoder: Literal["hifigan", "griffin_lim"] = "hifigan"  # the foundation's, or none


class Clips(Section):
    """Where the clips of a run come from; dvc.yaml reads `made_from`."""

    made_from: str  # the folder of a model (of a system: that of all its seeds)
    seeds: Seeds | None = None  # of the system's, those that are sampled
    sampling: dict[str, str | int | float] = Field(default_factory=dict)  # what is otherwise than `sampling` says


class Control(Section):
    """One row that no model made, which keeps a metric honest.

    It has `clips_per_class` clips of each class: of the split "val", "train" or "test", "one_clip" of the training clips
    or their "medoid" again and again, white "noise" or "silence". What is `decoded` passes through the foundation's VAE
    and the vocoder of `sampling`.
    """

    name: str
    colour: Colour | None = None
    tables: Annotated[list[Table], OnceEach] = Field(default_factory=list)
    source: Literal["val", "train", "test", "one_clip", "medoid", "noise", "silence"]
    decoded: bool = False


class Run(Section):
    """One row of a table."""

    name: str
    colour: Colour | None = None
    tables: Annotated[list[Table], OnceEach] = Field(default_factory=list)
    clips: Clips


class Select(Section):
    """Which run's models make the candidates, and what the candidates are compared with."""

    of: str
    target: TargetKind = "text"


class Filter(Section):
    """One row whose clips are selected by CLAP similarity among more candidates of another run's models."""

    name: str
    colour: Colour | None = None  # else that of the run it selects from
    tables: Annotated[list[Table], OnceEach] = Field(default_factory=list)
    select: Select


class Selection(Section):
    thresholds: Literal["validation", "text-driven-foley", "latent-clap-loss"] | dict[str, float]
    calibrate: dict[TargetKind, str]  # the system whose candidates set the thresholds of each kind of target ...
    seed: Count  # ... trained with this seed, of which no run has clips
    pool: Positive  # candidates a class for that
    shares: Annotated[
        list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1), OnceEach
    ]  # parts of the pool that pass
    best_of: dict[str, Positive] = Field(default_factory=dict)  # class -> candidates of which the best alone may pass
    relax_after: Positive
    relax_by: Amount
    duplicate: Share
    cap: Positive
    targets: Positive

    @model_validator(mode="after")
    def _a_group_fits(self):
        largest = max(self.best_of.values(), default=1)
        if largest > self.cap:
            raise ValueError(f"best_of {largest} is more than cap {self.cap}, the most candidates for a clip")
        return self


class Listening(Section):
    runs: Annotated[list[str], Field(min_length=2), OnceEach]
    clips_per_class: Positive
    by_class: bool
    seed: Count


class Evaluator(Section):
    """A published evaluator: whose weights, and by which convention they are used."""

    kind: Literal["cnn10", "cnn14", "cnn14_16k", "fad_16k", "fad_dcase", "laion_clap"]
    weights: (
        str  # the file, of laion_clap LAION's `.pt` or a folder of transformers; or an id of the Hub with its commit
    )
    revision: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = (
        None  # without it, loading tells the file's and stops
    )
    through: Literal["transformers", "laion_clap"] = "transformers"  # the code that reads a `.pt` of laion_clap
    tokenizer: str | None = None  # of such a `.pt` through transformers: the folder of roberta-base's tokenizer

    @model_validator(mode="after")
    def _clap_alone_reads(self):
        if self.kind != "laion_clap" and (self.tokenizer or self.through != "transformers"):
            raise ValueError(f"kind '{self.kind}' has no 'through' and no 'tokenizer': those are of laion_clap")
        return self


class Evaluate(Section):
    baseline: str  # the run that the others are compared with, seed by seed
    embedders: list[str] = Field(default_factory=lambda: [*ALWAYS])
    split: Literal["val", "test"]
    bootstrap: Positive
    level: Annotated[float, Field(gt=0, lt=1)]
    splits: Positive
    seed: Count

    @property
    def further(self) -> list[str]:
        """The embedders beyond the judge and CLAP."""
        return self.embedders[len(ALWAYS) :]

    @model_validator(mode="after")
    def _judge_and_clap_come_first(self):
        if self.embedders[: len(ALWAYS)] != ALWAYS or len(set(self.embedders)) < len(self.embedders):
            raise ValueError(f"embedders {self.embedders}: begin with judge, clap, which every table needs; each once")
        return self
