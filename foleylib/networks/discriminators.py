"""HiFi-GAN's discriminators (Kong et al. 2020, Section 2.3), any width of network."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

PERIODS = (2, 3, 5, 7, 11)
SCALES = 3
SLOPE = 0.1  # of the leaky ReLUs

# Of one discriminator: its score map (B, N), 1 for real and 0 for generated, and the feature maps of all layers.
Output = tuple[torch.Tensor, list[torch.Tensor]]


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """The wave's one channel and published channel counts times `width`, at least 1."""
    return [1] + [max(1, round(c * width)) for c in channels]


def score_and_features(layers: nn.ModuleList, last: nn.Module, x: torch.Tensor) -> Output:
    """Run a stack; the output of the last layer is both the score map and the last feature map."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = last(x)
    return x.flatten(1), [*features, x]


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample: 2-d convolutions over the wave folded to (T / period, period)."""

    def __init__(self, period: int, *, width: float = 1.0) -> None:
        super().__init__()
        self.period = period
        channels = scaled((32, 128, 512, 1024, 1024), width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)))
            for a, b, stride in zip(channels[:-1], channels[1:], (3, 3, 3, 3, 1))
        )
        self.last = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waves: torch.Tensor) -> Output:
        waves = F.pad(waves[:, None], (0, -waves.shape[1] % self.period), mode="reflect")
        folded = waves.reshape(len(waves), 1, -1, self.period)  # (B, 1, T / period, period)
        return score_and_features(self.layers, self.last, folded)


class ScaleDiscriminator(nn.Module):
    """Looks at the whole wave: strided and grouped 1-d convolutions."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], *, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled((128, 128, 256, 512, 1024, 1024, 1024), width)
        kernels, strides, groups = (15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1), (1, 4, 16, 16, 16, 16, 1)
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, padding=kernel // 2, groups=math.gcd(group, a, b)))
            for a, b, kernel, stride, group in zip(channels[:-1], channels[1:], kernels, strides, groups)
        )
        self.last = norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, waves: torch.Tensor) -> Output:
        return score_and_features(self.layers, self.last, waves[:, None])


class MultiPeriodDiscriminator(nn.Module):
    """A discriminator for each period in samples: 41.1 M parameters for 2, 3, 5, 7, 11 at width 1."""

    def __init__(self, *, width: float = 1.0, periods: Sequence[int] = PERIODS) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, width=width) for period in periods)

    def forward(self, waves: torch.Tensor) -> list[Output]:
        return [part(waves) for part in self.parts]


class MultiScaleDiscriminator(nn.Module):
    """Discriminators of the wave and of its 2 and 4 times mean-pooled versions: 29.6 M parameters at width 1.

    Spectral norm in the first, weight norm in the others.
    """

    def __init__(self, *, width: float = 1.0, scales: int = SCALES) -> None:
        super().__init__()
        norms = [spectral_norm] + [weight_norm] * (scales - 1)
        self.parts = nn.ModuleList(ScaleDiscriminator(norm, width=width) for norm in norms)

    def forward(self, waves: torch.Tensor) -> list[Output]:
        outputs = [self.parts[0](waves)]
        for part in self.parts[1:]:
            waves = F.avg_pool1d(waves[:, None], 4, 2, padding=2)[:, 0]
            outputs.append(part(waves))
        return outputs


class Discriminators(nn.Module):
    """Both of HiFi-GAN's discriminators; `width` is a factor on the published channel counts."""

    def __init__(
        self,
        *,
        width: float = 1.0,
        periods: Sequence[int] = PERIODS,
        scales: int = SCALES,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not width > 0 or scales < 1:
            raise ValueError(f"width={width}, scales={scales}: give width > 0 and scales >= 1")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mpd = MultiPeriodDiscriminator(width=width, periods=periods)
            self.msd = MultiScaleDiscriminator(width=width, scales=scales)

    def forward(self, waves: torch.Tensor) -> list[Output]:
        """Score maps and feature maps of waves [shape=(B, T)], one of each discriminator."""
        return self.mpd(waves) + self.msd(waves)
