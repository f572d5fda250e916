"""What a U-Net is told about each clip, and the one function that calls it."""

from dataclasses import dataclass, fields

import torch

RETRIEVED = ("tokens", "mask", "text_tokens", "text_mask")


@dataclass(frozen=True)
class Condition:
    """The conditions of a batch of clips; what is None is not given to the network.

    A new kind of condition is a field here, the array of that name in the cached data (`datasets.features.Latents`) and
    the argument of the U-Net that takes it (`denoise`).
    """

    embedding: torch.Tensor | None = None  # CLAP embedding of unit norm [shape=(B, D)], beside the time embedding
    tokens: torch.Tensor | None = None  # sequence for cross-attention [shape=(B, S, C)]: the sound of retrieved clips
    mask: torch.Tensor | None = None  # which tokens count [shape=(B, S)], bool
    text_tokens: torch.Tensor | None = None  # a second sequence, of the retrieved clips' captions [shape=(B, S', C')]
    text_mask: torch.Tensor | None = None  # which of those count [shape=(B, S')], bool
    rate: torch.Tensor | None = None  # sampling rate in Hz [shape=(B,)]

    @classmethod
    def of(cls, batch: dict[str, torch.Tensor]) -> "Condition":
        """The conditions among the arrays of a batch."""
        return cls(**{f.name: batch.get(f.name) for f in fields(cls)})

    def given(self) -> dict[str, torch.Tensor]:
        """The fields that are not None."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def retrieved(self) -> "Condition":
        """The fields of the tokens alone. As the `unconditional` of `drop` and `denoise` it drops what was retrieved and
        keeps the text."""
        return self.only(*RETRIEVED)

    def only(self, *names: str) -> "Condition":
        """Those of the fields that are given."""
        return Condition(**{name: value for name, value in self.given().items() if name in names})

    def __len__(self) -> int:
        return len(next(iter(self.given().values())))

    def __getitem__(self, rows) -> "Condition":
        return Condition(**{name: value[rows] for name, value in self.given().items()})

    def to(self, device: torch.device | str, **options) -> "Condition":
        return Condition(**{name: value.to(device, **options) for name, value in self.given().items()})

    def drop(self, unconditional: "Condition", rows: torch.Tensor | None = None) -> "Condition":
        """The rows of a mask [shape=(B,), bool], or all, replaced by the single row of `unconditional`.

        A field that `unconditional` leaves out is kept: a sampling rate, say, is known without guidance too.
        """
        values, nothing = self.given(), unconditional.given()
        for name in values.keys() & nothing.keys():
            value, empty = values[name], nothing[name].to(values[name])
            if rows is None:
                values[name] = empty.expand_as(value)
            else:
                values[name] = torch.where(rows.view(-1, *[1] * (value.ndim - 1)), empty, value)
        return Condition(**values)


def denoise(
    unet,
    z_n: torch.Tensor,
    n: torch.Tensor,
    condition: Condition,
    *,
    guidance: float = 1.0,
    unconditional: Condition | None = None,
) -> torch.Tensor:
    """The noise estimate eps_theta(z_n, n, c) [shape=(B, C, T, F)]: all calls of the U-Net are made here.

    Parameters
    ----------
    unet : `diffusers.UNet2DConditionModel`, or a module that is called as one.
    z_n : noisy latents [shape=(B, C, T, F)]; n : their steps [shape=(B,)], or one step for all.
    condition : of each clip.
    guidance : w of classifier-free guidance, u + w (c - u), both from one pass of 2 B clips; 1 is the estimate c itself.
    unconditional : one row, for guidance other than 1.
    """
    if guidance != 1:
        if unconditional is None:
            raise ValueError(f"guidance={guidance}: give the unconditional condition too, or guidance 1")
        dropped, own = condition.drop(unconditional).given(), condition.given()
        both = Condition(**{name: torch.cat([dropped[name], own[name]]) for name in own})  # (2B, ...)
        steps = torch.cat([n, n]) if n.ndim else n
        u, c = denoise(unet, torch.cat([z_n, z_n]), steps, both).chunk(2)
        return u + guidance * (c - u)
    # Only networks that know them get them.
    more = {"encoder_attention_mask": condition.mask, "rate": condition.rate}
    more |= {"text_tokens": condition.text_tokens, "text_mask": condition.text_mask}
    more = {name: value for name, value in more.items() if value is not None}
    return unet(z_n, n, condition.tokens, class_labels=condition.embedding, **more).sample
