"""What the sections of params.yaml are made of: scalar types, the strict section, the settings of a training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Third = Annotated[float, Field(ge=0, le=1 / 3)]
Seeds = Annotated[list[Count], Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml in which an unknown key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    def changed(self, **values):
        """The section with other values, validated."""
        return type(self).model_validate(self.model_dump() | values)


class Train(Section):
    """One training: `train.fit` reads this."""

    steps: Positive
    batch_size: Positive
    accumulate: Positive = 1
    lr: Rate
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Amount = 0.01
    warmup: Count = 100
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: Rate = 1.0
    ema_decay: Share = 0.999
    validate_every: Positive = 500
    checkpoint_every: Positive = 200
