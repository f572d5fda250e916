"""The sections of params.yaml behind re-audioldm: the neighbours of clips, their tokens, and the models that read them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params.base import Count, Name, Names, Positive, Rate, Section, Seeds, Share, Sizes, Third, Train


class Ivf(Section):
    """Lists around the centres of k-means: `datasets.search.ivf`."""

    lists: Positive = 1024  # 39 clips a list at least, so that a small corpus has fewer
    probes: Positive = 32


class Hnsw(Section):
    """A graph of neighbours: `datasets.search.hnsw`."""

    links: Positive = 32
    construction: Positive = 64
    search: Positive = 128


class Search(Section):
    """How the neighbours of each clip of a corpus are found."""

    score: Literal["text_to_audio", "text_to_text", "audio_to_audio"] = "text_to_audio"  # what is compared by CLAP
    top: Positive = 50
    duplicate: Share = 0.99  # similarity of sounds from which two clips are near-duplicates
    index: Literal["exact", "ivf", "hnsw"] = "exact"
    ivf: Ivf = Ivf()
    hnsw: Hnsw = Hnsw()


class Tokens(Section):
    """What stands for a retrieved clip and for its caption."""

    audio: Literal["clap", "audiomae"] | None = "clap"  # hidden states of our CLAP's audio tower, or of AudioMAE
    text: Literal["clap", "t5"] | None = "clap"
    pool: tuple[Positive, Positive] = (1, 2)  # cells of time and frequency in a token; of AudioMAE 4, 4 gives 32
    length: Positive = 20  # tokens of a caption, cut or filled; 50 as published
    audiomae: str | None = (
        None  # the authors' checkpoint file, or with its commit an id of the Hub (owner/name/file.pth)
    )
    audiomae_revision: str | None = None
    t5: str | None = (
        None  # folder of google/flan-t5-large: its config, tokenizer and weights; or with its commit that id
    )
    t5_revision: str | None = None

    @model_validator(mode="after")
    def _has_its_networks(self):
        if self.audio is None and self.text is None:
            raise ValueError("audio and text are both left out; name a network for one of them")
        for kind, name in (("audio", "audiomae"), ("text", "t5")):
            if getattr(self, kind) == name and not getattr(self, name):
                raise ValueError(f"{kind} '{name}' needs '{name}': the path of its weights")
        return self


class Retrieval(Section):
    """The neighbours of clips and their tokens, once for all systems."""

    corpora: Names  # whose clips have neighbours
    protocol: Literal["train", "full", "published"]  # that of training and sampling; the index has all three
    search: Search
    tokens: Tokens


class Read(Section):
    """What is read of a clip's neighbours."""

    audio: bool = True  # the tokens of their sound
    text: bool = True  # those of their captions
    k: Positive = 3  # neighbours

    @property
    def kinds(self) -> list[str]:
        """The kinds of tokens that are read."""
        return [kind for kind in ("audio", "text") if getattr(self, kind)]

    @model_validator(mode="after")
    def _reads_something(self):
        if not self.kinds:
            raise ValueError("audio and text are both false; leave retrieval out of a system that reads nothing")
        return self


class Retrieved(Read):
    """What a system reads of its clips' neighbours, and how its U-Net does."""

    width: Positive = 64  # to which both kinds of tokens are projected
    attention: Literal["added", "second"] = "added"  # beside both attentions of a block, or in place of the second
    trained: Literal["all", "branch"] = "all"  # branch: what was added; the pre-trained U-Net stays as it is

    @model_validator(mode="after")
    def _fits(self):
        if self.attention == "second" and self.trained == "branch":
            raise ValueError("trained 'branch' needs attention 'added': 'second' adds nothing that is trained alone")
        return self


class Pretrained(Section):
    """The U-Net that reads every kind of retrieval, from which the models of `re_audioldm` start."""

    source: Literal["bundled", "scratch"]
    channels: Sizes
    layers: Positive
    head_channels: Positive
    groups: Positive
    retrieval: Retrieved
    condition_dropout: Share
    retrieval_dropout: Third
    snr_gamma: Rate | None
    train: Train


class ReAudioLdm(Section):
    """The experiments of re-audioldm: what is retrieved, how much of it, and for which captions it helps."""

    corpus: str
    pretrained: Pretrained
    seeds: Seeds
    steps: Positive  # of fine-tuning each model
    lr: Rate
    models: dict[Name, Read | None]  # name -> what the model reads; nothing: None
    baseline: str  # of `models`: what the others are compared with
    probed: str  # of `models`: the one whose neighbours are taken away, swapped and drawn by other protocols
    clips: Annotated[int, Field(ge=2)]  # test clips that are sampled, one for each of as many real ones
    captions: Positive  # caption groups (Fig. 3): so many of each test clip's captions are sampled
    buckets: Annotated[list[Count], Field(min_length=2)]  # least number of training sounds of a class, in rising order

    @model_validator(mode="after")
    def _fits(self):
        if taken := sorted({"real", "codec"} & set(self.models)):
            raise ValueError(f"models.{taken[0]}: that is the name of a row that no model makes; give it another")
        for where in ("baseline", "probed"):
            if getattr(self, where) not in self.models:
                raise ValueError(
                    f"{where} is '{getattr(self, where)}', which is none of models: {', '.join(self.models)}"
                )
        if self.models[self.probed] is None:
            raise ValueError(f"probed is '{self.probed}', which retrieves nothing; name a model that does")
        for name, read in self.models.items():
            if read is not None and not set(read.kinds) <= set(self.pretrained.retrieval.kinds):
                raise ValueError(f"models.{name} reads a kind of tokens that pretrained.retrieval leaves out")
        if self.buckets[0] != 0 or sorted(set(self.buckets)) != self.buckets:
            raise ValueError(
                f"buckets {self.buckets}: give them in rising order, from 0 (classes never heard in training)"
            )
        return self
