"""The section `corpora` of params.yaml: where clips come from, and the rate and front end that belong to them."""

import string
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from foleylib.params.base import Amount, Count, OnceEach, Positive, Section, Share

HOPS_PER_SECOND = 100  # the hop of every front end is 10 ms


# The lists that a data set is published as; a corpus reads all of them, or those that it names.
LISTS = {"audiocaps": ("train", "val", "test"), "audioset": ("balanced", "unbalanced", "eval")}
Source = Literal["FreeSound", "BBC_Sound_Effects", "SoundBible", "AudioSet_SL"]


class Archive(Section):
    """A corpus, or a part of it, to download where its root is not there.

    Without a checksum it is fetched and refused, with the SHA-256 that it has. `size` in bytes, for a server that does
    not tell; `into` is a folder of the root, for an archive that does not hold the folder of the root's name.
    """

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None
    size: Positive | None = None
    into: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")] | None = None


def _several(value):
    """One archive is a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


class Corpus(Section):
    """One corpus. dvc.yaml reads rate, seconds and padding of each."""

    kind: Literal["synthetic", "esc50", "dcase2023t7", "urbansound8k", "audiocaps", "wavcaps", "audioset", "folder"]
    root: str | None = None
    archive: Annotated[list[Archive] | None, Field(min_length=1), BeforeValidator(_several)] = None
    lists: Annotated[list[str], OnceEach] | None = None  # of audiocaps and audioset, see LISTS; all without
    sources: Annotated[list[Source], OnceEach] | None = None  # of wavcaps; all without
    # Of wavcaps, what to leave out: the first two without, test sets; all_ac is AudioCaps whole.
    blacklists: list[Literal["test_ac", "ub8k_esc50_vggsound", "all_ac"]] | None = None
    absent: Literal["refuse", "skip"] = "refuse"  # listed clips of these three without a file
    classes: Literal["foley", "broad"] | Annotated[list[str], Field(min_length=1), OnceEach] | None = None
    clips_per_class: dict[Literal["train", "val", "test"], Count] | None = None
    scenes: dict[Literal["train", "val", "test"], Count] | None = None  # sounds of several classes in turn, no label
    events: tuple[Positive, Positive] = (2, 3)  # least and most sounds of a scene
    zipf: Amount = (
        0.0  # train and val scenes: frequency of a class is its rank (in the order of `classes`) to minus this
    )
    held_out: Annotated[list[str], OnceEach] = Field(default_factory=list)  # classes of test scenes alone
    captions: dict[Literal["train", "val", "test"], Positive] = Field(
        default_factory=dict
    )  # of a scene; 1 if not given
    folds: dict[Literal["train", "val", "test"], list[Positive]] | None = None
    # Without shares a `folder` is split class by class.
    split_fractions: dict[Literal["train", "val", "test"], Share] | None = None
    rate: Literal[16000, 24000, 32000, 48000]
    rates: list[Literal[16000, 24000, 32000, 48000]] | None = None  # of its features, resampled; its own without
    seconds: Annotated[float, Field(gt=0, le=60)]
    padding: Literal["dataset", "center"]  # of the mel front end, see audio.mel
    fit: Literal["repeat", "pad"] = "repeat"
    crop: Literal["start", "loudest"] = "start"
    peak: Annotated[float, Field(gt=0, le=1)] | None = None  # absolute peak of every clip; AudioLDM's is 0.5
    unusable: Count = 0  # so many source files may be unusable: they are left out and listed; more are refused
    ambience: Share = 1.0
    prompt_template: str | None = None
    prompts: dict[str, Annotated[str, Field(pattern=r"\S")]] = Field(default_factory=dict)
    min_seconds: Amount = 0.1
    seed: Count = 0
    jobs: Literal[-1] | Positive = -1

    @property
    def samples(self) -> int:
        """Length of a clip."""
        return round(self.seconds * self.rate)

    @field_validator("prompt_template")
    @classmethod
    def _holds_the_label(cls, template: str | None) -> str | None:
        try:
            fields = {part[1:] for part in string.Formatter().parse(template or "") if part[1] is not None}
        except ValueError:  # a brace without its other one
            fields = set()
        if template is not None and fields != {("label", "", None)}:
            raise ValueError("it must hold {label}, and no other field")
        return template

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self):
        needs = {"synthetic": "clips_per_class", "esc50": "folds", "urbansound8k": "folds"}
        need = needs.get(self.kind, "split_fractions")
        own_splits = self.kind in ("audiocaps", "folder") or (self.kind == "synthetic" and self.scenes is not None)
        if getattr(self, need) is None and not own_splits:
            raise ValueError(
                f"a corpus of kind '{self.kind}' needs '{need}'" + " or 'scenes'" * (self.kind == "synthetic")
            )
        if self.kind != "synthetic" and self.root is None:
            raise ValueError(f"a corpus of kind '{self.kind}' needs 'root', the folder that holds it")
        return self

    @model_validator(mode="after")
    def _has_nothing_that_its_kind_does_not_read(self):
        made, by_folds = self.kind == "synthetic", self.kind in ("esc50", "urbansound8k")
        unread = {
            "root": (made, "it is made here; to read a folder, give its kind, such as 'folder'"),
            "archive": (made, "it is made here"),
            "scenes": (not made, "they are made of sound models"),
            "clips_per_class": (not made, "all of its clips are taken"),
            "folds": (not by_folds, "only esc50 and urbansound8k have folds"),
            "split_fractions": (made or by_folds, "its splits are those of " + ("folds" if by_folds else "its counts")),
        }
        for name, (without, why) in unread.items():
            if without and getattr(self, name) is not None:
                raise ValueError(f"a corpus of kind '{self.kind}' has no '{name}': {why}; leave '{name}' empty")
        return self

    @model_validator(mode="after")
    def _lists_fit(self):
        known = LISTS.get(self.kind, ())
        if self.lists is not None and not (known and self.lists and set(self.lists) <= set(known)):
            of = (
                f"those of kind '{self.kind}' are {list(known)}"
                if known
                else f"a corpus of kind '{self.kind}' has none"
            )
            raise ValueError(f"lists {self.lists}: {of}")
        if (self.sources is not None or self.blacklists is not None) and self.kind != "wavcaps":
            raise ValueError(f"a corpus of kind '{self.kind}' has no 'sources' or 'blacklists': these are of wavcaps")
        if self.sources == []:
            raise ValueError("sources []: name one, or leave it out for all")
        if self.absent != "refuse" and self.kind not in (*LISTS, "wavcaps"):
            raise ValueError(f"absent {self.absent!r}: every clip of a corpus of kind '{self.kind}' must be there")
        return self

    @model_validator(mode="after")
    def _rates_fit(self):
        given = self.rates
        if given is not None and (sorted(set(given)) != given or given[-1:] != [self.rate] or len(given) < 2):
            raise ValueError(
                f"rates {given}: give two or more in rising order, up to the rate {self.rate} of the clips"
            )
        return self

    @model_validator(mode="after")
    def _scenes_fit(self):
        if self.events[0] > self.events[1]:
            raise ValueError(f"events {list(self.events)}: give the least number of sounds first, then the most")
        if self.scenes is None and (self.events != (2, 3) or self.zipf or self.held_out or self.captions):
            raise ValueError("'events', 'zipf', 'held_out' and 'captions' tell of 'scenes', of which there are none")
        return self
