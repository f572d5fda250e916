"""Clips per second of `corpora.prepare` against a plain librosa loop, and log-mel throughput against librosa.

./run python -m benchmarks.corpus_preparation
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks import timing
from foleylib import corpora, mel, synth
from foleylib.params_schema import Corpus

SOURCE_RATE, SOURCE_SECONDS = 44100, 5.0
RATE = 16000
SPLITS = {"train": 1.0, "val": 0.0, "test": 0.0}


def make_folder(root: Path, clips: int) -> None:
    """A corpus of kind `folder`: `clips` 16-bit WAVs of 5 s at 44.1 kHz in the seven Foley classes.

    Two sounds of a class are rendered; the others are these turned round in time, so that no two files are equal.
    """
    voices = 2 * len(synth.FOLEY)
    for i in range(clips):
        label = synth.FOLEY[i % len(synth.FOLEY)]
        if i < voices:
            wave, _ = synth.render(label, seed=0, index=i, rate=SOURCE_RATE, seconds=SOURCE_SECONDS)
            soundfile.write(_new(root, label, i), wave, SOURCE_RATE, subtype="PCM_16")
        else:
            wave, _ = soundfile.read(root / label / f"{i % voices:05}.wav", dtype="float32")
            soundfile.write(_new(root, label, i), np.roll(wave, 997 * i), SOURCE_RATE, subtype="PCM_16")


def _new(root: Path, label: str, i: int) -> Path:
    (root / label).mkdir(parents=True, exist_ok=True)
    return root / label / f"{i:05}.wav"


def settings_of(root: Path, seconds: float, jobs: int) -> Corpus:
    return Corpus(
        kind="folder", root=str(root), split_fractions=SPLITS, rate=RATE, seconds=seconds, fit="pad", jobs=jobs
    )


def librosa_loop(root: Path, out: Path, seconds: float) -> None:
    """What a first script does: load at 16 kHz (librosa resamples with soxr HQ too), pad or crop, write; no checks."""
    import librosa

    for path in sorted(root.rglob("*.wav")):
        wave, _ = librosa.load(path, sr=RATE)
        wave = librosa.util.fix_length(wave, size=round(seconds * RATE))
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, wave, RATE, subtype="PCM_16")


def time_preparation(arguments: argparse.Namespace, scratch: Path) -> list[dict]:
    """Rows of `prepare` for each number of jobs, beside the loop; every round writes into a new folder."""
    root, seconds = scratch / "source", arguments.seconds
    make_folder(root, arguments.clips)

    def plain(clock: timing.Clock) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as out, clock.part("clips"):
            librosa_loop(root, Path(out), seconds)

    def prepare(jobs: int):
        def run(clock: timing.Clock) -> None:
            with tempfile.TemporaryDirectory(dir=scratch) as out, clock.part("clips"):
                corpora.prepare("benchmark", settings_of(root, seconds, jobs), Path(out) / "corpus")

        return run

    cases = {"librosa loop": plain} | {f"prepare, jobs={jobs}": prepare(jobs) for jobs in arguments.jobs}
    rounds = timing.interleaved(cases, arguments.repeats)
    return _totals(timing.rows(rounds, baseline="librosa loop", items=arguments.clips, unit="clip"))


def librosa_log_mels(waves: np.ndarray, config: mel.MelConfig) -> np.ndarray:
    """The same log-mels clip by clip with librosa [shape=(B, 1, frames, n_mels)]."""
    import librosa

    padded = np.pad(waves, ((0, 0), (config.pad, config.pad)), mode="reflect")
    mels = [
        librosa.feature.melspectrogram(y=wave, sr=config.rate, n_fft=config.n_fft, hop_length=config.hop, power=1.0,
                                       center=False, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax)
        for wave in padded
    ]  # fmt: skip
    return np.log(np.maximum(mel.FLOOR, np.stack(mels))).transpose(0, 2, 1)[:, None]


def time_log_mel(arguments: argparse.Namespace) -> list[dict]:
    """Rows of the 16 kHz front end on a batch of clips, by number of threads, beside librosa (one thread)."""
    config, samples = mel.FRONT_ENDS[RATE], round(arguments.seconds * RATE)
    front = mel.LogMel(config)
    voices = [synth.render(label, seed=1, index=0, rate=RATE, seconds=arguments.seconds)[0] for label in synth.FOLEY]
    waves = np.stack([voices[i % len(voices)][:samples] for i in range(arguments.batch_size)])

    def ours(threads: int):
        def run(clock: timing.Clock) -> None:
            torch.set_num_threads(threads)
            with torch.no_grad(), clock.part("log-mel"):
                front(torch.from_numpy(waves))

        return run

    def theirs(clock: timing.Clock) -> None:
        with clock.part("log-mel"):
            librosa_log_mels(waves, config)

    cases = {"librosa.feature.melspectrogram": theirs}
    cases |= {f"mel.LogMel, {n} threads": ours(n) for n in sorted({1, arguments.threads})}
    rounds = timing.interleaved(cases, arguments.repeats)
    return _totals(
        timing.rows(rounds, baseline=next(iter(cases)), items=len(waves) * arguments.seconds, unit="audio s")
    )


def _totals(rows: list[dict]) -> list[dict]:
    """Of cases with one part, the total alone, under the part's name."""
    names = {row["case"]: row["part"] for row in rows if row["part"] != "total"}
    return [row | {"part": names[row["case"]]} for row in rows if row["part"] == "total"]


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
    arguments, before = parser.parse_args(argv), torch.get_num_threads()
    machine = timing.environment("cpu") | {"threads": arguments.threads}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            rows = time_preparation(arguments, Path(scratch)) + time_log_mel(arguments)
    finally:
        torch.set_num_threads(before)
    return timing.report(
        "corpus_preparation", rows, settings=timing.plain(arguments), machine=machine, out=arguments.out
    )


if __name__ == "__main__":
    main()
