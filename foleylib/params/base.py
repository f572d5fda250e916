"""What the sections of params.yaml are made of: scalar types, the strict section, the settings of a training."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator


def _once_each(values: list) -> list:
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice; name each once")
    return values


# Names that pandas reads from a CSV as "no value".
MISSING = ("NA", "NULL", "NaN", "None", "nan", "null")


def _plain(name: str) -> str:
    if name in MISSING:
        raise ValueError(f"{name!r} stands for no value in tables; give another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} is no plain name: give letters, digits, _ and -, as it names files and folders")
    return name


Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Third = Annotated[float, Field(ge=0, le=1 / 3)]  # one of three shares of equal size
OnceEach = AfterValidator(_once_each)  # of a list in which an entry twice would count twice
Seeds = Annotated[list[Count], Field(min_length=1), OnceEach]
Sizes = Annotated[list[Positive], Field(min_length=1)]  # of layers
Name = Annotated[str, AfterValidator(_plain)]  # of an entry whose name becomes that of a folder
Names = Annotated[list[Name], Field(min_length=1), OnceEach]


class Section(BaseModel):
    """A part of params.yaml in which an unknown key or a wrong type is an error, and so is no number (NaN, infinity)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value, info: ValidationInfo):
        if _holds_bool(value) and not _allows_bool(cls.model_fields[info.field_name].annotation):
            raise ValueError("true and false are no numbers here; give a number")
        return value

    def changed(self, **values):
        """The section with other values, validated."""
        return type(self).model_validate(self.model_dump() | values)


def _holds_bool(value) -> bool:
    """Whether a value of YAML is true or false, or a list or mapping that holds one (sections check their own)."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return any(isinstance(entry, bool) for entry in entries)


def _allows_bool(annotation) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, bool | BaseModel):
        return True
    return any(_allows_bool(part) for part in get_args(annotation))


class Train(Section):
    """One training: `train.fit` reads this."""

    steps: Positive
    batch_size: Positive
    accumulate: Positive = 1
    lr: Rate
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    weight_decay: Amount = 0.01
    warmup: Count = 100
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: Rate = 1.0
    ema_decay: Share = 0.999
    validate_every: Positive = 500
    checkpoint_every: Positive = 200
