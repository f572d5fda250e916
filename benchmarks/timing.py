"""Timing in interleaved rounds, and the table, JSON and CSV that every benchmark writes."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import joblib
import torch

from foleylib import paths

OUT = paths.RESULTS / "benchmarks"
LIBRARIES = ("torch", "numpy", "librosa", "diffusers", "transformers")
Rounds = dict[str, list[dict[str, float]]]  # case -> a round each -> part -> seconds


class Clock:
    """Seconds of the named parts of one round; waits for the GPU at both ends of a part."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device, self.parts = torch.device(device), {}

    @contextmanager
    def part(self, name: str):
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def interleaved(cases: dict[str, Callable[[Clock], None]], repeats: int, device: torch.device | str = "cpu") -> Rounds:
    """Run every case once to warm up, then all of them in `repeats` rounds, every other round in reverse.

    Whatever else the machine does then falls on all cases alike. The first entry of a case is its warm-up.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give at least 1")
    rounds: Rounds = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            clock = Clock(device)
            cases[name](clock)
            rounds[name].append({**clock.parts, "total": sum(clock.parts.values())})
    return rounds


def rows(rounds: Rounds, *, baseline: str, items: float, unit: str) -> list[dict]:
    """A row for each part of each case: median, least and most seconds of a round, and items of `unit` per second.

    The total of a case also has its ratio to that of `baseline` (above 1: faster than the baseline), the median over
    rounds of the ratio within a round, and its least and most. A round handles `items` units; the warm-up is in
    `seconds_first` alone.
    """
    made = []
    for case, (first, *later) in rounds.items():
        for part in first:
            seconds = [r[part] for r in later]
            row = {"case": case, "part": part, "repeats": len(later), "unit": unit, "items": items}
            row |= {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds),
                    "seconds_first": first[part], "per_second": items / statistics.median(seconds)}  # fmt: skip
            made.append(row | _ratio(rounds[baseline][1:], later, part, baseline))
    return made


def _ratio(base: list[dict], own: list[dict], part: str, baseline: str) -> dict:
    if part != "total":
        return {"baseline": baseline, "ratio": None, "ratio_min": None, "ratio_max": None}
    ratios = [b["total"] / o["total"] for b, o in zip(base, own)]
    return {
        "baseline": baseline,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def environment(device: torch.device | str) -> dict:
    """What timings depend on: device, threads, cores, load before the start, versions, commit."""
    device = torch.device(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    return {"device": device.type, "device_name": name, "processor": _processor(), "cores": joblib.cpu_count(),
            "threads": torch.get_num_threads(), "load_1min": round(os.getloadavg()[0], 2), "python": platform.python_version(),
            **{library: version(library) for library in LIBRARIES}, "commit": git.stdout.strip() or None}  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(name: str, rows: list[dict], *, settings: dict, machine: dict, out: Path) -> Path:
    """Print the table; write `out`/`name`.json and .csv, the CSV with device, torch and threads in every row."""
    import pandas as pd

    table = pd.DataFrame(rows)
    table["ratio"] = table.ratio.astype(float)
    shown = table[["case", "part", "seconds", "seconds_min", "seconds_max", "per_second", "unit", "ratio"]]
    print(f"{name}: {machine['device_name']}, torch {machine['torch']}, {machine['threads']} threads")
    print(shown.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4g}"))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps({"benchmark": name, "settings": settings, "environment": machine, "rows": rows}, indent=1) + "\n")  # fmt: skip
    keys = ("device", "device_name", "torch", "threads")
    table.assign(**{k: machine[k] for k in keys}).to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g")
    return path


def plain(arguments) -> dict:
    """The arguments of a script as JSON can hold them, paths relative to the repository, without the results' folder."""
    given = {k: v for k, v in vars(arguments).items() if k != "out"}
    return {k: os.path.relpath(v, paths.ROOT) if isinstance(v, Path) else v for k, v in given.items()}
