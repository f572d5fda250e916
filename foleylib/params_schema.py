"""The sections of params.yaml as pydantic models: an unknown key, a wrong type or an impossible combination is an error."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params_base import Count, Positive, Section, Share, Train
from foleylib.params_foley import Filter, Foley, LatentClap, Listening, Run, Selection, Targets
from foleylib.params_foundation import Foundation


class Audio(Section):
    rate: Literal[16000, 24000, 32000, 48000]
    seconds: Annotated[float, Field(gt=0, le=60)]
    padding: Literal["dataset", "center"]

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)


class Archive(Section):
    """A corpus to download, where its root is not there."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Corpus(Section):
    kind: Literal["synthetic", "esc50", "dcase2023t7", "urbansound8k", "folder"]
    root: str | None = None
    archive: Archive | None = None
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
    prompts: dict[str, str] = Field(default_factory=dict)
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
        if self.kind == "synthetic" and self.archive is not None:
            raise ValueError("a corpus of kind 'synthetic' has no 'archive': it is made here")
        return self


class Judge(Section):
    corpus: str
    widths: list[Positive]
    embedding_dim: Positive
    mixup_alpha: Annotated[float, Field(ge=0)]
    train: Train


class Features(Section):
    batch_size: Positive


class Sampling(Section):
    corpus: str
    clips_per_class: Positive
    solver: Literal["ddim", "dpm++"]
    steps: Positive
    eta: Share
    guidance: Annotated[float, Field(ge=0)]
    batch_size: Positive


class Evaluate(Section):
    split: Literal["val", "test"]
    bootstrap: Positive
    level: Annotated[float, Field(gt=0, lt=1)]
    splits: Positive
    seed: Count


class Params(Section):
    seed: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bf16", "fp16"]
    audio: Audio
    corpora: dict[str, Corpus]
    foundation: Foundation
    judge: Judge
    features: Features
    latent_clap: LatentClap
    foley: Foley
    sampling: Sampling
    runs: dict[str, Run]
    selection: Selection
    filters: dict[str, Filter]
    targets: Targets
    listening: Listening
    evaluate: Evaluate

    @model_validator(mode="after")
    def _fits_together(self):
        for where, name in [("foundation", self.foundation.corpus), ("judge", self.judge.corpus),
                            ("latent_clap", self.latent_clap.corpus), ("foley.common", self.foley.common.corpus),
                            ("sampling", self.sampling.corpus)]:  # fmt: skip
            if name not in self.corpora:
                raise ValueError(f"{where}.corpus is '{name}', which is none of corpora: {', '.join(self.corpora)}")
        starts = self.foundation.ldms
        for name, variant in self.foley.variants.items():
            if variant.init not in starts:
                raise ValueError(
                    f"foley.variants.{name}.init is '{variant.init}', which is none of: {', '.join(starts)}"
                )
        models = [f"models/foundation/{name}" for name in starts]
        models += [f"models/foley/{name}" for name in self.foley.variants]
        for name, run in self.runs.items():
            if run.source != "real" and run.made_from not in models:
                raise ValueError(f"runs.{name}.made_from is '{run.made_from}', which is none of: {', '.join(models)}")
            variant = run.made_from.removeprefix("models/foley/")
            trained = self.seeds_of(variant) if variant in self.foley.variants else []
            if run.seeds is not None and not set(run.seeds) <= set(trained):
                raise ValueError(f"runs.{name}.seeds: {run.seeds} are not all among those trained, {trained}")
            if run.overrides and run.source != "model":
                raise ValueError(f"runs.{name}.overrides: only a run of source 'model' is sampled")
            self.sampling_of(name)
        self._filters_fit()
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

    def _filters_fit(self) -> None:
        made = [name for name, run in self.runs.items() if run.source == "model"]
        variants = self.foley.variants
        for name, chosen in self.filters.items():
            if chosen.of not in made:
                raise ValueError(
                    f"filters.{name}.of is '{chosen.of}', which is none of the sampled runs: {', '.join(made)}"
                )
            if name in self.runs:
                raise ValueError(f"filters.{name}: runs has that name too; call it {name}_filter")
        for target, variant in self.selection.calibrate.items():
            if variant not in variants:
                raise ValueError(
                    f"selection.calibrate.{target} is '{variant}', which is none of: {', '.join(variants)}"
                )
        known = [*self.runs, *self.filters]
        for name in self.listening.runs:
            if name not in known:
                raise ValueError(f"listening.runs has '{name}', which is none of: {', '.join(known)}")

    def seeds_of(self, variant: str) -> list[int]:
        """The training seeds of a variant of `foley`."""
        own = self.foley.variants[variant].seeds
        return self.foley.common.seeds if own is None else own

    def sampling_of(self, run: str) -> Sampling:
        """The sampling settings of a run (a selected run's are those of the run it selects from)."""
        run = self.filters[run].of if run in self.filters else run
        return Sampling.model_validate({**self.sampling.model_dump(), **self.runs[run].overrides})
