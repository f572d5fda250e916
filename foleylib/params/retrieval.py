"""The sections of params.yaml behind Re-AudioLDM: the tokens of what is retrieved, and the attention that reads them."""

from typing import Literal

from pydantic import model_validator

from foleylib.params.base import Positive, Section


class Tokens(Section):
    """What stands for a retrieved clip and for its caption."""

    audio: Literal["clap", "audiomae"] | None = "clap"  # hidden states of our CLAP's audio tower, or of AudioMAE
    text: Literal["clap", "t5"] | None = "clap"
    pool: tuple[Positive, Positive] = (
        1,
        2,
    )  # cells of time and frequency in a token; AudioMAE: 4, 4 gives 32 of a clip
    length: Positive = 20  # tokens of a caption, cut or filled; 50 as published
    audiomae: str | None = None  # the authors' checkpoint file
    t5: str | None = None  # folder of google/flan-t5-large: its config, tokenizer and weights

    @model_validator(mode="after")
    def _has_its_networks(self):
        if self.audio is None and self.text is None:
            raise ValueError("audio and text are both left out; name a network for one of them")
        for kind, name in (("audio", "audiomae"), ("text", "t5")):
            if getattr(self, kind) == name and not getattr(self, name):
                raise ValueError(f"{kind} '{name}' needs '{name}': the path of its weights")
        return self


class Retrieval(Section):
    """How a U-Net reads the tokens."""

    width: Positive  # to which both kinds of tokens are projected
    attention: Literal["added", "second"] = "added"  # beside both attentions of a block, or in place of the second
    trained: Literal["all", "branch"] = "all"  # branch: what was added; the pre-trained U-Net stays as it is

    @model_validator(mode="after")
    def _has_a_branch(self):
        if self.attention == "second" and self.trained == "branch":
            raise ValueError("trained 'branch' needs attention 'added': 'second' adds nothing that is trained alone")
        return self
