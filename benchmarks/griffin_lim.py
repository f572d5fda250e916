"""Seconds a clip of Griffin-Lim, in clips at a time, against librosa's and the same algorithm over torch's stft and istft.

OMP_NUM_THREADS=1 ./run python -m benchmarks.griffin_lim
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
import torch

from benchmarks import timing
from foleylib.audio.stft import EPSILON, griffin_lim

LIBROSA, TORCH, OURS = "librosa.griffinlim", "torch.stft and istft", "stft.griffin_lim"
N_FFT, HOP, MOMENTUM = 1024, 160, 0.99


def by_torch(magnitudes: torch.Tensor, iterations: int) -> torch.Tensor:
    """What `stft.griffin_lim` computes, over torch's own transforms."""
    window, options = torch.hann_window(N_FFT), {"length": HOP * (magnitudes.shape[2] - 1)}
    phases = torch.from_numpy(2 * np.pi * np.random.default_rng(0).random(magnitudes.shape[1:])).to(magnitudes)
    angles, previous = torch.polar(torch.ones_like(phases), phases), 0.0
    for _ in range(iterations):
        waves = torch.istft(magnitudes * angles, N_FFT, HOP, window=window, **options)
        rebuilt = torch.stft(waves, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
        angles = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous
        angles, previous = angles / (angles.abs() + EPSILON), rebuilt
    return torch.istft(magnitudes * angles, N_FFT, HOP, window=window, **options)


def by_librosa(magnitudes: torch.Tensor, iterations: int) -> np.ndarray:
    options = {"n_iter": iterations, "hop_length": HOP, "n_fft": N_FFT, "momentum": MOMENTUM}
    return np.stack(
        [librosa.griffinlim(S, random_state=np.random.default_rng(0), **options) for S in magnitudes.numpy()]
    )


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--at-a-time", type=int, nargs="+", default=[4, 32], help="clips; params has batches of 35")
    parser.add_argument("--frames", type=int, default=129, help="of a clip")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    shape = (arguments.clips, N_FFT // 2 + 1, arguments.frames)
    magnitudes = torch.rand(shape, generator=torch.Generator().manual_seed(0)) ** 3

    def case(method, few: int):
        def run(clock: timing.Clock) -> None:
            with clock.part("clips"):
                for part in magnitudes.split(few):
                    method(part, iterations=arguments.iterations)

        return run

    def ours(part: torch.Tensor, iterations: int) -> torch.Tensor:
        return griffin_lim(part, hop=HOP, iterations=iterations, momentum=MOMENTUM)

    cases = {LIBROSA: case(by_librosa, arguments.clips)}
    for few in arguments.at_a_time:
        cases |= {f"{TORCH}, {few} at a time": case(by_torch, few), f"{OURS}, {few} at a time": case(ours, few)}
    seconds = timing.interleaved(cases, arguments.repeats)
    table = timing.rows(seconds, baseline=LIBROSA, items=arguments.clips, unit="clips")
    machine = timing.environment(torch.device("cpu"))
    return timing.report("griffin_lim", table, arguments=arguments, machine=machine)


if __name__ == "__main__":
    main()
