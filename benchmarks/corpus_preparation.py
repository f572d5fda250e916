"""Clips per second of `corpora.prepare` against a plain librosa loop, and log-mel throughput against librosa.

./run python -m benchmarks.corpus_preparation
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch.utils.benchmark import set_torch_threads

from benchmarks import timing
from foleylib.audio import mel
from foleylib.corpora.prepare import prepare
from foleylib.corpora.synth import render as synth
from foleylib.params.corpora import Corpus

SOURCE_RATE, SOURCE_SECONDS = 44100, 5.0
RATE = 16000
SPLITS = {"train": 1.0, "val": 0.0, "test": 0.0}
LOOP, LIBROSA = "librosa loop", "librosa.feature.melspectrogram"


def make_folder(root: Path, clips: int) -> None:
    """A corpus of kind `folder`: `clips` 16-bit WAVs of 5 s at 44.1 kHz in the seven Foley classes.

    Two sounds of a class are rendered; the others are these turned round in time, so that no two files are equal.
    """
    rendered = 2 * len(synth.FOLEY)
    for i in range(clips):
        label = synth.FOLEY[i % len(synth.FOLEY)]
        (root / label).mkdir(parents=True, exist_ok=True)
        if i < rendered:
            wave, _ = synth.render(label, seed=0, index=i, rate=SOURCE_RATE, seconds=SOURCE_SECONDS)
        else:
            wave, _ = soundfile.read(root / label / f"{i % rendered:05}.wav", dtype="float32")
            wave = np.roll(wave, 997 * i)
        soundfile.write(root / label / f"{i:05}.wav", wave, SOURCE_RATE, subtype="PCM_16")


def corpus(root: Path, seconds: float, jobs: int) -> Corpus:
    """Its settings, at 16 kHz."""
    lengths = {"rate": RATE, "seconds": seconds, "padding": "dataset", "fit": "pad"}
    return Corpus(kind="folder", root=str(root), split_fractions=SPLITS, jobs=jobs, **lengths)


def librosa_loop(root: Path, out: Path, seconds: float) -> None:
    """What a first script does: load at 16 kHz (librosa resamples with soxr HQ too), pad or crop, write; no checks."""
    import librosa

    for path in sorted(root.rglob("*.wav")):
        wave, _ = librosa.load(path, sr=RATE)
        wave = librosa.util.fix_length(wave, size=round(seconds * RATE))
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, wave, RATE, subtype="PCM_16")


def time_preparation(arguments: argparse.Namespace, scratch: Path) -> pd.DataFrame:
    """Rows of `prepare` for each number of jobs, beside the loop; every round writes into a new folder."""
    root, seconds = scratch / "source", arguments.seconds
    make_folder(root, arguments.clips)

    def timed(write):
        def run(clock: timing.Clock) -> None:
            with tempfile.TemporaryDirectory(dir=scratch) as out, clock.part("clips"):
                write(Path(out))

        return run

    cases = {LOOP: timed(lambda out: librosa_loop(root, out, seconds))}
    for jobs in arguments.jobs:
        settings = corpus(root, seconds, jobs)
        cases[f"prepare, jobs={jobs}"] = timed(lambda out, s=settings: prepare("benchmark", s, out / "corpus"))
    rounds = timing.interleaved(cases, arguments.repeats)
    return timing.rows(rounds, baseline=LOOP, items=arguments.clips, unit="clip")


def librosa_log_mels(waves: np.ndarray, config: mel.MelConfig) -> np.ndarray:
    """The same log-mels clip by clip with librosa [shape=(B, 1, frames, n_mels)]."""
    import librosa

    options = {"sr": config.rate, "n_fft": config.n_fft, "hop_length": config.hop, "center": False, "power": 1.0}
    options |= {"n_mels": config.n_mels, "fmin": config.fmin, "fmax": config.fmax}
    padded = np.pad(waves, ((0, 0), (config.pad, config.pad)), mode="reflect")
    mels = np.stack([librosa.feature.melspectrogram(y=wave, **options) for wave in padded])
    return np.log(np.maximum(mel.FLOOR, mels)).transpose(0, 2, 1)[:, None]


def time_log_mel(arguments: argparse.Namespace) -> pd.DataFrame:
    """Rows of the 16 kHz front end on a batch of clips, by number of threads, beside librosa (one thread)."""
    config, samples = mel.FRONT_ENDS[RATE], round(arguments.seconds * RATE)
    front = mel.LogMel(config)
    rendered = [synth.render(label, seed=1, index=0, rate=RATE, seconds=arguments.seconds)[0] for label in synth.FOLEY]
    waves = np.stack([rendered[i % len(rendered)][:samples] for i in range(arguments.batch_size)])

    def ours(threads: int):
        def run(clock: timing.Clock) -> None:
            with set_torch_threads(threads), torch.no_grad(), clock.part("log-mel"):
                front(torch.from_numpy(waves))

        return run

    def theirs(clock: timing.Clock) -> None:
        with clock.part("log-mel"):
            librosa_log_mels(waves, config)

    cases = {LIBROSA: theirs} | {f"mel.LogMel, {n} threads": ours(n) for n in sorted({1, arguments.threads})}
    rounds = timing.interleaved(cases, arguments.repeats)
    return timing.rows(rounds, baseline=LIBROSA, items=len(waves) * arguments.seconds, unit="audio s")


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clips", type=int, default=224, help="source files of 5 s at 44.1 kHz")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="length of a prepared clip, and of those for log-mel"
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=32, help="clips in a batch of log-mels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, for log-mels")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    machine = timing.environment(torch.device("cpu")) | {"threads": arguments.threads}
    with tempfile.TemporaryDirectory() as scratch:
        table = pd.concat([time_preparation(arguments, Path(scratch)), time_log_mel(arguments)], ignore_index=True)
    return timing.report("corpus_preparation", table, arguments=arguments, machine=machine)


if __name__ == "__main__":
    main()
