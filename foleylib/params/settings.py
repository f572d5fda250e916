"""The settings of every stage: read from params.yaml alone, typed and checked to fit together."""

import csv
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from foleylib import paths
from foleylib.params.base import Count, Name, Positive, Section
from foleylib.params.corpora import HOPS_PER_SECOND, Corpus
from foleylib.params.foundation import Foundation
from foleylib.params.read import read_yaml
from foleylib.params.retrieval import Read, ReAudioLdm, Retrieval
from foleylib.params.runs import (
    PUBLISHED,
    Control,
    Detector,
    Display,
    Evaluate,
    Evaluator,
    Features,
    Filter,
    Judge,
    Listening,
    Run,
    Sampling,
    Selection,
)
from foleylib.params.src_gaudio import Combined, SrcGaudio
from foleylib.params.systems import Finetune, LambdaSweep, LatentClap, Sensitivity, System, Targets, Transfer

# Parts of pydantic's locations that no file has: the kinds that a value may be of, and a key as against its value.
KIND = re.compile(r"\[key\]$|(str|int|float|bool)$|constrained-|(literal|list|dict|tuple|function-[a-z]+)\[")


class Params(Section):
    """The whole of params.yaml."""

    seed: Count
    device: Literal["auto", "cpu", "cuda"]
    jobs: Literal[-1] | Positive = -1  # processes on a CPU, of one thread each; -1: as many as cores
    precision: Literal["float32", "bf16", "fp16"]
    corpora: Annotated[dict[Name, Corpus], Field(min_length=1)]
    foundation: Foundation
    judge: Judge
    detector: Detector
    features: Features
    latent_clap: LatentClap
    finetune: Finetune
    systems: dict[Name, System]
    lambda_sweep: LambdaSweep
    sampling: Sampling
    controls: dict[Name, Control]
    runs: dict[Name, Run]
    selection: Selection
    filters: dict[Name, Filter]
    targets: Targets
    transfer: Transfer
    sensitivity: Sensitivity
    retrieval: Retrieval
    re_audioldm: ReAudioLdm
    src_gaudio: SrcGaudio
    combined: Combined
    listening: Listening
    evaluators: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Evaluator]
    evaluate: Evaluate

    def seeds_of(self, system: str) -> list[int]:
        """The training seeds of a system that runs may sample."""
        own = self.entry("systems", system).seeds
        return self.finetune.seeds if own is None else own

    def trained_seeds(self, system: str) -> list[int]:
        """All seeds that a system is trained with: those of `seeds_of`, and the one whose candidates set thresholds."""
        own = self.seeds_of(system)
        sets_thresholds = system in self.selection.calibrate.values()
        return list(dict.fromkeys([*own, *([self.calibrating_seed(system)] if sets_thresholds else [])]))

    def calibrating_seed(self, system: str) -> int:
        """The seed of the model whose candidates set thresholds: `selection.seed`, of which no table has clips. Where the
        thresholds are given, nothing hangs on it, and the first seed of the system serves."""
        return self.selection.seed if self.selection.thresholds == "validation" else self.seeds_of(system)[0]

    def sampling_of(self, run: str) -> Sampling:
        """The sampling settings of a run (a selected run's are those of the run it selects from)."""
        return self.sampling.changed(**self.source_run(run).clips.sampling)

    def source_run(self, run: str) -> Run:
        """The entry of `runs`; for a selected run, that of the run it selects from."""
        if run in self.filters:
            return self.runs[self.filters[run].select.of]
        if run not in self.runs:
            raise ValueError(f"runs in params.yaml has no '{run}'; it has: {', '.join([*self.runs, *self.filters])}")
        return self.runs[run]

    def models_of(self, run: str) -> dict[int, Path]:
        """The model folders behind a run, from the root of the repository, by training seed.

        A run without training has the seed of the settings; of a control it is the model that decodes it, if any does.
        """
        if run in self.controls:
            return {self.seed: Path("models/foundation/ldm")}
        clips = self.source_run(run).clips
        folder, system = Path(clips.made_from), self.system_of(run)
        if system is None:
            return {self.seed: folder}
        return {seed: folder / str(seed) for seed in clips.seeds or self.seeds_of(system)}

    def corpus_of(self, section: str) -> Corpus:
        """The corpus that a section names, with its rate and front end."""
        return self.corpora[getattr(self, section).corpus]

    def entry(self, section: str, name: str) -> Section:
        """An entry of a section that holds several, such as ("systems", "ldm")."""
        entries = getattr(self, section)
        if name not in entries:
            raise ValueError(f"{section} in params.yaml has no '{name}'; it has: {', '.join(entries)}")
        return entries[name]

    def rows(self) -> dict[str, Control | Run | Filter]:
        """The rows of all tables: controls, runs and selected runs."""
        return self.controls | self.runs | self.filters

    def display(self) -> dict[str, Display]:
        """Name and colour of each row; a selected run has the colour of the run it selects from, unless its own."""
        source = {name: self.runs[row.select.of] for name, row in self.filters.items()}
        rows = self.rows().items()
        return {name: Display(row.name, row.colour or source.get(name, row).colour) for name, row in rows}

    def system_of(self, run: str) -> str | None:
        """The system whose models make the clips of a run; None of a run without one."""
        if run in self.controls:
            return None
        folder = Path(self.source_run(run).clips.made_from)
        return folder.name if folder.parent == Path("models/systems") else None

    @model_validator(mode="after")
    def _corpora_fit(self):
        users = {name: getattr(self, name) for name in ("foundation", "judge", "detector", "latent_clap", "sampling")}
        users |= {"src_gaudio": self.src_gaudio, "combined": self.combined}
        users |= {"re_audioldm": self.re_audioldm, "lambda_sweep": self.lambda_sweep, "targets": self.targets}
        users |= {f"systems.{name}": system for name, system in self.systems.items()}
        for where, section in users.items():
            _known(f"{where}.corpus", section.corpus, self.corpora, "corpora")
        for where in ("untuned", "corpora"):
            for name in getattr(self.transfer, where):
                _known(f"an entry of transfer.{where}", name, self.corpora, "corpora")
        # One VAE and one vocoder serve all of them, so they share rate, length and front end.
        base, rates = self.corpus_of("foundation"), self.foundation.vae.others
        if rates is not None:
            _known("foundation.vae.others.corpus", rates.corpus, self.corpora, "corpora")
            own = self.corpora[rates.corpus]
            if (own.seconds, own.padding) != (base.seconds, base.padding) or max(rates.rates, default=0) > own.rate:
                raise ValueError(
                    f"foundation.vae.others: corpora.{rates.corpus} must have seconds and padding of "
                    f"corpora.{self.foundation.corpus}, and a rate from which {rates.rates} can be made"
                )
        aside = {rates.corpus} - {section.corpus for section in users.values()} if rates is not None else set()
        for name, other in self.corpora.items():
            keys = ("seconds", "padding") if other.rates else ("rate", "seconds", "padding")
            differs = any(getattr(other, key) != getattr(base, key) for key in keys)
            if name not in aside and differs:
                raise ValueError(
                    f"corpora.{name}: rate, seconds or padding differs from that of corpora.{self.foundation.corpus}, "
                    "with whose VAE it is encoded"
                )
        for where in ("lambda_sweep", "targets"):
            if users[where].corpus != self.sampling.corpus:
                raise ValueError(
                    f"{where}.corpus must be sampling.corpus, '{self.sampling.corpus}': it is scored there"
                )
        frames = base.samples / (base.rate // HOPS_PER_SECOND)
        if frames % 32:
            raise ValueError(
                f"corpora.{self.foundation.corpus}.seconds {base.seconds} makes {frames:g} mel frames; the VAE and U-Net "
                "halve them five times: give a multiple of 0.32 s"
            )
        if self.foundation.vocoder.segment % (base.rate // HOPS_PER_SECOND):
            raise ValueError(
                f"foundation.vocoder.segment is no multiple of the hop of {base.rate // HOPS_PER_SECOND} samples"
            )
        return self

    @model_validator(mode="after")
    def _retrieval_fits(self):
        for name in self.retrieval.corpora:
            _known("an entry of retrieval.corpora", name, self.corpora, "corpora")
        ours, found = self.re_audioldm, self.retrieval
        _known("re_audioldm.corpus", ours.corpus, self.corpora, "corpora")
        sizes = ("channels", "layers", "head_channels", "groups")
        if ours.pretrained.retrieval.attention == "added" and any(
            getattr(ours.pretrained, size) != getattr(self.foundation.ldm, size) for size in sizes
        ):
            raise ValueError(
                f"re_audioldm.pretrained: with attention 'added' it is the foundation's ldm; give it {', '.join(sizes)} of "
                "foundation.ldm"
            )
        users = {"re_audioldm.pretrained.retrieval": (ours.corpus, ours.pretrained.retrieval)}
        users |= {f"re_audioldm.models.{name}": (ours.corpus, reads) for name, reads in ours.models.items()}
        users |= {f"systems.{name}.retrieval": (own.corpus, own.retrieval) for name, own in self.systems.items()}
        users["combined.reads"] = (self.combined.corpus, self.combined.reads)
        users["src_gaudio"] = (self.src_gaudio.corpus, Read(audio=False))  # the tokens of its captions
        for where, (corpus, reads) in users.items():
            if reads is None:
                continue
            if corpus not in found.corpora:
                raise ValueError(
                    f"{where} reads neighbours or tokens of corpus '{corpus}': name it in retrieval.corpora"
                )
            if reads.k > found.search.top:
                raise ValueError(
                    f"{where}.k {reads.k} is more than retrieval.search.top, {found.search.top}: raise that"
                )
            for kind in ("audio", "text"):
                if getattr(reads, kind) and getattr(found.tokens, kind) is None:
                    raise ValueError(
                        f"{where} reads {kind} tokens, which retrieval.tokens leaves out: name a network there"
                    )
        return self

    @model_validator(mode="after")
    def _rates_fit(self):
        base = self.corpus_of("foundation").rate
        told = {"src_gaudio": self.src_gaudio.corpus, "combined": self.combined.corpus}
        told |= {f"systems.{name}": own.corpus for name, own in self.systems.items() if own.rates}
        for where, name in told.items():
            if base not in (self.corpora[name].rates or []):
                raise ValueError(
                    f"{where} is told the sampling rate: give corpora.{name} its 'rates', {base} of the foundation among them"
                )
        if self.combined.corpus != self.src_gaudio.corpus:
            raise ValueError("combined.corpus must be src_gaudio.corpus: both are scored on the same clips")
        known = self.corpora[self.combined.corpus].rates
        if not set(self.combined.rates) <= set(known):
            raise ValueError(f"combined.rates {self.combined.rates} are not all among those of its corpus, {known}")
        if not set(self.combined.reads.kinds) <= set(self.re_audioldm.pretrained.retrieval.kinds):
            raise ValueError("combined.reads has a kind of tokens that re_audioldm.pretrained.retrieval leaves out")
        served = {own.rate for own in self.src_gaudio.vocoders.values()}
        if absent := sorted(set(self.corpora[self.src_gaudio.corpus].rates) - served):
            raise ValueError(f"src_gaudio.vocoders has none for {', '.join(map(str, absent))} Hz")
        for name, own in self.src_gaudio.vocoders.items():
            if own.source == "foundation" and own.rate != base:
                raise ValueError(
                    f"src_gaudio.vocoders.{name}: the foundation's vocoder is for {base} Hz, not {own.rate}"
                )
        users = {f"systems.{name}": own.corpus for name, own in self.systems.items()}
        users |= {"foundation": self.foundation.corpus, "sampling": self.sampling.corpus, "judge": self.judge.corpus}
        users |= {"detector": self.detector.corpus, "re_audioldm": self.re_audioldm.corpus}
        users |= {f"transfer ({name})": name for name in {*self.transfer.untuned, *self.transfer.corpora}}
        for where, name in users.items():
            if self.corpora[name].rates and where not in told:
                raise ValueError(
                    f"{where}: corpora.{name} has several 'rates', which it is not told; name another corpus there"
                )
        return self

    @model_validator(mode="after")
    def _systems_fit(self):
        for name, system in self.systems.items():
            _known(f"systems.{name}.init", system.init, self.foundation.ldms)
        calibrate = self.selection.calibrate
        if set(calibrate) != {"text", "tuned"}:
            raise ValueError(f"selection.calibrate names {', '.join(calibrate)}: give a system for text and for tuned")
        for target, system in calibrate.items():
            _known(f"selection.calibrate.{target}", system, self.systems)
        for system in calibrate.values():
            if self.selection.seed in self.seeds_of(system):
                raise ValueError(
                    f"selection.seed {self.selection.seed} is a seed of systems.{system}, which tables report: thresholds "
                    "need a seed of their own"
                )
        if not self.systems[calibrate["tuned"]].tuning:
            raise ValueError(f"selection.calibrate.tuned is '{calibrate['tuned']}', which has no tuning layer")
        return self

    def _steps_are_there(self, where: str, steps: int) -> None:
        if steps > (most := self.foundation.ldm.noise.steps):
            raise ValueError(f"{where} {steps}: the noise has {most} (foundation.ldm.noise.steps); give no more")

    @model_validator(mode="after")
    def _tables_were_published(self):
        for name, row in self.rows().items():
            for table in row.tables:
                if table not in (known := _published_rows()):
                    like = [other for other in known if other.split(":")[:2] == table.split(":")[:2]]
                    raise ValueError(
                        f"tables of row {name}: '{table}' is none of those published; there are: "
                        + ", ".join(like or sorted({other.rsplit(":", 1)[0] for other in known}))
                    )
        return self

    @model_validator(mode="after")
    def _controls_fit(self):
        counts, split = self.corpus_of("sampling").clips_per_class, self.evaluate.split
        for name, control in self.controls.items():
            if control.source == split and not control.decoded:
                raise ValueError(
                    f"controls.{name}: source '{split}' needs decoded: true; the clips of evaluate.split as they are, are "
                    "the reference itself"
                )
            source = "train" if control.source in ("one_clip", "medoid") else control.source
            if counts is not None and source in ("train", "val", "test") and not counts.get(source):
                raise ValueError(
                    f"controls.{name}: corpora.{self.sampling.corpus}.clips_per_class gives no clips of its source, the "
                    f"split '{source}'; give some, or take the control out"
                )
        return self

    @model_validator(mode="after")
    def _runs_fit(self):
        self._steps_are_there("sampling.steps", self.sampling.steps)
        models = [f"models/foundation/{name}" for name in self.foundation.ldms]
        models += [f"models/systems/{name}" for name in self.systems]
        for name, run in self.runs.items():
            clips = run.clips
            _known(f"runs.{name}.clips.made_from", clips.made_from, models)
            system = self.system_of(name)
            if system is not None and self.systems[system].corpus != self.sampling.corpus:
                raise ValueError(
                    f"runs.{name}: systems.{system} has another corpus than sampling, '{self.sampling.corpus}'"
                )
            if system is not None and (self.systems[system].retrieval or self.systems[system].rates):
                raise ValueError(
                    f"runs.{name}: systems.{system} reads neighbours or a sampling rate, which the sample stage does not "
                    "give; take the run out"
                )
            if "corpus" in clips.sampling:
                raise ValueError(f"runs.{name}.clips.sampling: all runs are of sampling.corpus; take 'corpus' out")
            trained = [] if system is None else self.seeds_of(system)
            if clips.seeds is not None and not set(clips.seeds) <= set(trained):
                raise ValueError(f"runs.{name}.clips.seeds: {clips.seeds} are not all among those trained, {trained}")
            try:
                self.sampling_of(name)
            except ValidationError as error:
                lines = "; ".join(_sentences(error))
                raise ValueError(f"runs.{name}.clips.sampling: {lines}") from None
            self._steps_are_there(f"runs.{name}.clips.sampling.steps", self.sampling_of(name).steps)
            if name in self.controls:
                raise ValueError(f"runs.{name}: controls has that name too; give it another")
        for name, row in self.filters.items():
            _known(f"filters.{name}.select.of", row.select.of, self.runs, "runs")
            if name in self.runs | self.controls:
                raise ValueError(f"filters.{name}: another row has that name; call it {name}_filter")
        for name in self.listening.runs:
            _known("an entry of listening.runs", name, self.rows())
        _known("evaluate.baseline", self.evaluate.baseline, self.runs, "runs")
        for name in self.evaluate.further:
            _known("an entry of evaluate.embedders", name, self.evaluators, "evaluators")
        for name in set(self.evaluators) & {"judge", "clap", "logits", "text", "id", "labels"}:
            raise ValueError(f"evaluators.{name}: that name is taken; give it another")
        return self


def _known(where: str, name: str, names, what: str = "") -> None:
    if name not in names:
        raise ValueError(f"{where} is '{name}', which is none of{' ' + what if what else ''}: {', '.join(names)}")


@cache
def _published_rows() -> list[str]:
    """The rows of the papers' tables, as `tables` names them: paper:table:row."""
    with open(PUBLISHED, encoding="utf8", newline="") as file:
        return list(dict.fromkeys(":".join((r["paper"], r["table"], r["row"])) for r in csv.DictReader(file)))


def load(path: Path | None = None) -> Params:
    """Read and check params.yaml; a ValueError has one line per problem: the key, what is wrong, what is allowed."""
    path = path or paths.PARAMS
    return parse(read_yaml(path), str(path))


def parse(settings: dict, name: str = "params.yaml") -> Params:
    """Check a nested dict of settings; see `load`."""
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        lines = _sentences(error)
    raise ValueError(f"{name} cannot be used:\n" + "\n".join(f"- {line}" for line in lines))


def _sentences(error: ValidationError) -> list[str]:
    """One for each value that cannot be used; of a value that may be of several kinds, with what each of them asks for."""
    found: dict[str, list[dict]] = {}
    for own in error.errors():
        where = ".".join(str(part) for part in own["loc"] if not KIND.match(str(part))) or "(whole file)"
        found.setdefault(where, []).append(own)
    return [_sentence(where, errors) for where, errors in found.items()]


def _sentence(where: str, errors: list[dict]) -> str:
    error = errors[0]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(_allowed(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where}: missing"
    got = f" (got {error['input']!r:.60})" if error["loc"] else ""  # not the whole file
    said = dict.fromkeys(own["msg"].removeprefix("Value error, ") for own in errors)
    return f"{where}: {', or '.join(said).replace(', or Input should', ', or it should')}{got}"


def _allowed(loc: tuple) -> list[str]:
    """The keys of the section at `loc`, by walking the models' annotations."""
    kind = Params
    for key in loc:
        if getattr(kind, "__origin__", None) is dict:  # the key is a name of the user's: a corpus, a system, a run
            kind = kind.__args__[1]
        elif isinstance(kind, type) and issubclass(kind, Section) and key in kind.model_fields:
            kind = kind.model_fields[key].annotation
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Section) else []
