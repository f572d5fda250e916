"""The sections of params.yaml behind src-gaudio and the combined model: one U-Net for several sampling rates."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from foleylib.params.base import Amount, Count, OnceEach, Positive, Rate, Section, Seeds, Share, Sizes, Train
from foleylib.params.corpora import HOPS_PER_SECOND
from foleylib.params.foundation import Upsampling, Vocoder
from foleylib.params.retrieval import Read, Retrieved
from foleylib.params.systems import Loss, System

SamplingRate = Literal[16000, 24000, 32000, 48000]  # Hz


class RateVocoder(Section):
    """The HiFi-GAN of a rate: what it has otherwise than `foundation.vocoder`."""

    source: Literal["bundled", "scratch", "foundation"]  # foundation: that of its own rate, as it is
    rate: SamplingRate
    upsampling: Upsampling | None = None  # those of `networks.vocoder.UPSAMPLING` without
    steps: Positive | None = None  # of its training, where they are others
    adversarial_from: Count | None = None
    decoded_from: Count | None = None

    @model_validator(mode="after")
    def _fills_a_hop(self):
        if self.upsampling is not None and prod(self.upsampling.rates) != self.rate // HOPS_PER_SECOND:
            raise ValueError(
                f"upsampling.rates {self.upsampling.rates}: their product must be the hop, {self.rate // HOPS_PER_SECOND} samples"
            )
        return self

    def section(self, base: Vocoder, base_rate: int) -> "TrainedVocoder":
        """The settings that it is trained with: those of the foundation's in segments of the same duration."""
        own = {"source": self.source, "rate": self.rate, "segment": base.segment * self.rate // base_rate}
        if self.source != "foundation":
            own |= {"upsampling": self.upsampling and self.upsampling.model_dump()}
        if self.steps is not None:
            own |= {"train": base.train.changed(steps=self.steps).model_dump()}
            own |= {"adversarial_from": self.adversarial_from, "decoded_from": self.decoded_from}
        return TrainedVocoder.model_validate(base.model_dump() | own)

    @model_validator(mode="after")
    def _has_a_schedule(self):
        if (self.steps is None) != (self.adversarial_from is None) or (self.steps is None and self.decoded_from):
            raise ValueError("steps and adversarial_from belong together: give both, or neither and no decoded_from")
        return self


class TrainedVocoder(Vocoder):
    """`foundation.vocoder` at a further rate."""

    source: Literal["bundled", "scratch", "foundation"]
    rate: SamplingRate


class RatePretrained(Section):
    """The U-Nets that are told a sampling rate, from which the models of `src_gaudio` start: one knows the lowest rate
    alone, the other all of them, in as many steps."""

    source: Literal["bundled", "scratch"]
    place: Literal["time", "token"]  # where the rate enters: added to the time embedding, or one more token
    channels: Sizes
    layers: Positive
    head_channels: Positive
    groups: Positive
    condition_dropout: Share
    snr_gamma: Rate | None
    train: Train


class SrcGaudio(Section):
    """The experiments of src-gaudio: one model for all rates or one for each, with and without low-rate pre-training."""

    corpus: str  # at the highest rate, with the others in its `rates`
    vocoders: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], RateVocoder]  # one for each rate
    pretrained: RatePretrained
    seeds: Seeds
    train: Train  # fine-tuning on all rates; a model of one rate has its share of the steps, the warm-up too
    guidance: Amount
    clips: Annotated[int, Field(ge=2)]  # test clips that are sampled, one for each of as many real ones


class Combined(Section):
    """All parts in one U-Net, and each of them left out: tuning layer, latent CLAP loss, retrieval and sampling rate."""

    corpus: str  # that of src_gaudio, with its rates
    lclap: Rate  # weight of the latent CLAP loss
    reads: Read  # what is read of a clip's neighbours
    seeds: Seeds
    steps: Positive
    lr: Rate
    rates: Annotated[
        list[SamplingRate], Field(min_length=1), OnceEach
    ]  # at which it is sampled; it is trained at all of its corpus
    clips: Annotated[int, Field(ge=2)]  # test clips that are sampled at each; the others are the reference

    def system(self, pretrained: Retrieved) -> System:
        """The model with all parts; `pretrained` says how re-audioldm's U-Net, from which it starts, reads neighbours."""
        retrieval = pretrained.changed(**self.reads.model_dump())
        loss = Loss(lclap=self.lclap)
        return System(corpus=self.corpus, init="ldm", tuning=True, loss=loss, retrieval=retrieval, rates=True)
