"""Re-AudioLDM (Yuan et al. 2024): AudioLDM's U-Net with attention to the tokens of retrieved clips and captions.

Two constructions share all but the place of the attention. `build` makes the paper's: the second attention of every block
reads the tokens. `add_to` gives a pre-trained AudioLDM a third one beside both it has, whose output starts at zero: the
model starts as the pre-trained one, and without retrieved clips it stays it unless its own weights are trained.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from foleylib.diffusion.condition import Condition
from foleylib.networks import unet as unets
from foleylib.networks.folder import FolderMixin

# Widths as published (its 196 channels cannot be parted into 32 groups). AudioMAE and FLAN-T5-large read the retrieved.
PUBLISHED = {
    "re-audioldm-s": {"channels": [128, 256, 384, 640], "head_channels": 32, "audio": 768, "text": 1024, "width": 768},
    "re-audioldm-l": {"channels": [192, 384, 576, 960], "head_channels": 32, "audio": 768, "text": 1024, "width": 768},
}


@dataclass(frozen=True)
class RetrievalConfig:
    """Sizes of what reads the tokens."""

    audio: int | None  # channels of an audio token; None: there are none
    text: int | None  # channels of a text token
    width: int  # to which both are projected
    blocks: tuple[tuple[int, int], ...] = ()  # (channels, heads) of each attention that is added, in the U-Net's order

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(map(tuple, self.blocks)))  # config.json has lists
        if self.audio is None and self.text is None:
            raise ValueError("audio and text are both None: give the channels of the tokens of one of them")


class Retrieval(nn.Module, FolderMixin):
    """The weights beside a U-Net's: a projection of each kind of tokens, and the attentions that are added."""

    def __init__(self, config: RetrievalConfig) -> None:
        from diffusers.models.attention_processor import Attention

        super().__init__()
        self.config = config
        sizes = {"audio": config.audio, "text": config.text}
        self.projections = nn.ModuleDict({k: nn.Linear(size, config.width) for k, size in sizes.items() if size})
        # No bias, here as in the U-Net's own: to attend to a token of zeros is to read nothing.
        self.added = nn.ModuleList(
            Attention(c, cross_attention_dim=config.width, heads=heads, dim_head=c // heads, out_bias=False)
            for c, heads in config.blocks
        )
        for attention in self.added:
            nn.init.zeros_(attention.to_out[0].weight)

    def sequence(self, given: dict[str, tuple], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The projected tokens of all kinds one after the other [shape=(B, 1 + S, width)] and their mask.

        The first is a token of zeros that always counts: what a clip without neighbours attends to, and one with
        neighbours that do not help.

        Parameters
        ----------
        given : "audio", "text" -> tokens [shape=(B, S, C)] and their mask [shape=(B, S), bool], or None where all count.
        like : of the batch's size and device.
        """
        unknown = given.keys() - self.projections.keys()
        if unknown:
            raise ValueError(f"{', '.join(unknown)} tokens are given, but the model was made without; leave them out")
        parts = [like.new_zeros(len(like), 1, self.config.width)]
        counts = [torch.ones(len(like), 1, dtype=torch.bool, device=like.device)]
        for kind, (tokens, mask) in given.items():
            parts.append(self.projections[kind](tokens))
            counts.append(tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask)
        return torch.cat(parts, dim=1), torch.cat(counts, dim=1)

    def nothing(self) -> Condition:
        """The condition of a clip for which nothing was retrieved, one row."""
        config, one = self.config, torch.zeros(1, 1, dtype=torch.bool)
        audio = {} if config.audio is None else {"tokens": torch.zeros(1, 1, config.audio), "mask": one}
        text = {} if config.text is None else {"text_tokens": torch.zeros(1, 1, config.text), "text_mask": one}
        return Condition(**audio, **text)


class _Beside:
    """An attention processor that adds what another attention reads in the tokens to the self-attention."""

    def __init__(self, own, added: nn.Module) -> None:
        self.own, self.added = own, added

    def __call__(self, attention, hidden_states, encoder_hidden_states=None, attention_mask=None):
        own = self.own(attention, hidden_states)
        return own + self.added(hidden_states, encoder_hidden_states, attention_mask)


class RetrievalUnet(nn.Module):
    """A U-Net and what reads retrieved tokens beside or in it; called as the U-Net is, trained as one module.

    With `config.blocks` the U-Net is an AudioLDM, whose own weights and folder stay as diffusers knows them; without,
    its second attentions have the width of the tokens (`unet.build`).
    """

    def __init__(self, unet: nn.Module, retrieval: Retrieval) -> None:
        super().__init__()
        self.unet, self.retrieval = unet, retrieval
        config, blocks = retrieval.config, _second_attentions(unet)
        reads = [block.query_dim if config.blocks else config.width for block in blocks]
        if [block.cross_attention_dim for block in blocks] != reads:
            kind = "attend to their own level" if config.blocks else f"read tokens of width {config.width}"
            raise ValueError(f"the U-Net's second attentions do not {kind}; give the U-Net that this belongs to")
        if config.blocks and config.blocks != _sizes(blocks):
            raise ValueError(f"what was added fits blocks of {config.blocks}, the U-Net has {_sizes(blocks)}")
        for block, added in zip(blocks, retrieval.added):
            block.set_processor(_Beside(block.processor, added))

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def class_embedding(self) -> nn.Module:
        """The projection of the CLAP embedding, which `unet.fold` changes."""
        return self.unet.class_embedding

    def forward(
        self,
        z_n,
        n,
        encoder_hidden_states=None,
        class_labels=None,
        *,
        encoder_attention_mask=None,
        text_tokens=None,
        text_mask=None,
        **more,
    ):
        kinds = {"audio": (encoder_hidden_states, encoder_attention_mask), "text": (text_tokens, text_mask)}
        given = {kind: pair for kind, pair in kinds.items() if pair[0] is not None}
        sequence, mask = self.retrieval.sequence(given, z_n)
        return self.unet(z_n, n, sequence, class_labels=class_labels, encoder_attention_mask=mask, **more)

    def train_only_what_was_added(self) -> "RetrievalUnet":
        """Leave the pre-trained U-Net as it is: it gets no gradients."""
        if not self.retrieval.config.blocks:
            raise ValueError("nothing was added to this U-Net, its own attentions read the tokens: train all of it")
        self.unet.requires_grad_(False)
        return self


def _second_attentions(unet: nn.Module) -> list[nn.Module]:
    return [module for name, module in unet.named_modules() if name.endswith(".attn2")]


def _sizes(blocks: list[nn.Module]) -> tuple[tuple[int, int], ...]:
    return tuple((block.query_dim, block.heads) for block in blocks)


def build(
    channels: list[int], head_channels: int, *, audio: int | None, text: int | None, width: int, seed: int = 0, **sizes
) -> RetrievalUnet:
    """Re-AudioLDM from scratch: the second attention of each block reads the tokens.

    Parameters
    ----------
    audio, text : channels of the tokens of clips and captions (`tokens.AudioTokens.dim`); None leaves that kind out.
    width : to which both are projected.
    sizes : further arguments of `unet.build`.
    """
    unet = unets.build(channels, head_channels, tokens=width, seed=seed, **sizes)
    return RetrievalUnet(unet, _drawn(RetrievalConfig(audio, text, width), seed))


def add_to(unet: nn.Module, *, audio: int | None, text: int | None, width: int, seed: int = 0) -> RetrievalUnet:
    """A pre-trained AudioLDM with attention to tokens that does nothing yet: bit for bit the U-Net that was given.

    The U-Net is changed in place: it is called through the result from now on. For audio, text and width see `build`.
    """
    config = RetrievalConfig(audio, text, width, _sizes(_second_attentions(unet)))
    return RetrievalUnet(unet, _drawn(config, seed))


def of_settings(settings, unet: nn.Module, *, audio: int | None, text: int | None, seed: int) -> RetrievalUnet:
    """What a section `params.retrieval.Retrieved` makes of an AudioLDM's U-Net; for audio and text see `build`.

    "added" keeps its weights (see `add_to`); "second" takes its sizes alone and draws new weights from `seed`.
    """
    sizes = {"audio": audio, "text": text, "width": settings.width, "seed": seed}
    if settings.attention == "added":
        model = add_to(unet, **sizes)
        return model.train_only_what_was_added() if settings.trained == "branch" else model
    config, heads = unet.config, _second_attentions(unet)[0]
    return build(
        list(config.block_out_channels),
        heads.query_dim // heads.heads,
        layers=config.layers_per_block,
        groups=config.norm_num_groups,
        dim=config.projection_class_embeddings_input_dim,
        latent_channels=config.in_channels,
        **sizes,
    )


def _drawn(config: RetrievalConfig, seed: int) -> Retrieval:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Retrieval(config)


def unconditional(clap, model: nn.Module) -> Condition:
    """The unconditional input in training and sampling, one row: the empty text and, where there is a `RetrievalUnet` in the
    model, nothing retrieved.

    Guidance with its `retrieved()` fields leads away from what the text alone says.
    """
    reads = [module for module in model.modules() if isinstance(module, RetrievalUnet)]
    nothing = reads[0].retrieval.nothing().given() if reads else {}
    return Condition(**unets.unconditional(clap).given(), **nothing)


def save(model: RetrievalUnet, folder: Path) -> None:
    """Write `folder`/retrieval, beside `folder`/unet of the pipeline that `pipeline.save` makes of `model.unet`."""
    model.retrieval.save_pretrained(folder / "retrieval")


def load(folder: Path, *, needed: bool = False) -> nn.Module:
    """The U-Net of a pipeline folder, with what reads retrieved tokens where it was saved beside it, in eval mode; where that
    is `needed`, a folder without it is refused."""
    unet = unets.load(folder)
    if not (folder / "retrieval").is_dir():
        if needed:
            raise ValueError(
                f"{folder / 'retrieval'} is missing; copy the whole folder again, or run the retrieval stage"
            )
        return unet
    return RetrievalUnet(unet, Retrieval.from_folder(folder / "retrieval", stage="retrieval")).eval()
