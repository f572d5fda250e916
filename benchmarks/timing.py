"""Timing in interleaved rounds, and the table, JSON and CSV that every benchmark writes.

Of torch.utils.benchmark only the clock is used, which waits for the GPU: its Timer times a statement as a whole, not
the parts of a step, and runs it at least once more, uncounted, whenever it is called.
"""

import ctypes
import gc
import json
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import joblib
import pandas as pd
import torch
from torch.utils import benchmark

from foleylib import paths
from foleylib.runtime import write_csv, write_json

OUT = paths.RESULTS / "benchmarks"
LIBRARIES = ("torch", "numpy", "librosa", "diffusers", "transformers")


class Clock:
    """Seconds of the named parts of a case in one round, of which 0 is the warm-up."""

    def __init__(self, number: int = 0):
        self.round, self.parts = number, {}

    @contextmanager
    def part(self, name: str):
        start = benchmark.timer()
        yield
        self.parts[name] = benchmark.timer() - start


def interleaved(cases: dict[str, Callable[[Clock], None]], repeats: int) -> pd.DataFrame:
    """Run every case once to warm up, then all of them in `repeats` rounds, every other round in reverse.

    Whatever else the machine does then falls on all cases alike. Returns seconds, a row for each (case, part), a column
    for each round, the warm-up first; a case of several parts also has their "total".
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give at least 1")
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(repeats + 1):
        for case in list(cases)[:: -1 if number % 2 else 1]:
            clock = Clock(number)
            cases[case](clock)
            total = {"total": sum(clock.parts.values())} if len(clock.parts) > 1 else {}
            for part, value in (clock.parts | total).items():
                seconds.setdefault((case, part), []).append(value)
    return pd.DataFrame(seconds).T.rename_axis(index=["case", "part"])


def peak_memory(step: Callable[[], None], device: torch.device) -> int | None:
    """Bytes that `step()` takes at most, over what is held before; None if unknown.

    On CUDA it is memory of the allocator, else resident memory.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else memory that an earlier step has freed counts as held
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = resident("VmRSS")
    except OSError:
        return None
    step()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """A figure of /proc/self/status in bytes: VmRSS, what is resident now, or VmHWM, what was at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def rows(seconds: pd.DataFrame, *, baseline: str, items: float, unit: str) -> pd.DataFrame:
    """Median, least and most seconds of a round for each part of each case, and `items` of `unit` per second.

    The total of a case (or its only part) also has its ratio to that of `baseline` (above 1: faster than the baseline),
    the median over rounds of the ratio within a round, and its least and most. The warm-up is in `seconds_first` alone.
    """
    counted = seconds.iloc[:, 1:]
    table = pd.DataFrame({"repeats": counted.shape[1], "unit": unit, "items": items}, index=seconds.index)
    table["seconds"] = counted.median(axis=1)
    table["seconds_min"], table["seconds_max"] = counted.min(axis=1), counted.max(axis=1)
    table["seconds_first"], table["per_second"] = seconds[0], items / table.seconds
    whole = counted.groupby("case", sort=False).tail(1)
    ratios = whole.rdiv(whole.loc[baseline].iloc[0], axis=1)
    table["baseline"], table["ratio"] = baseline, ratios.median(axis=1)
    table["ratio_min"], table["ratio_max"] = ratios.min(axis=1), ratios.max(axis=1)
    return table.reset_index()


def environment(device: torch.device) -> dict:
    """What timings depend on: device, threads, cores, load before the start, versions, commit."""
    info, describe = Path("/proc/cpuinfo"), ["git", "describe", "--always", "--dirty"]
    lines = info.read_text().splitlines() if info.is_file() else []
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    load, threads = round(os.getloadavg()[0], 2), torch.get_num_threads()
    git = subprocess.run(describe, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    machine = {"device": device.type, "device_name": gpu or processor, "processor": processor}
    machine |= {"cores": joblib.cpu_count(), "threads": threads, "load_1min": load, "python": platform.python_version()}
    return machine | {name: version(name) for name in LIBRARIES} | {"commit": git.stdout.strip() or None}


def report(name: str, table: pd.DataFrame, *, arguments, machine: dict, more: dict | None = None) -> Path:
    """Print the table; write `name`.json and .csv to `arguments.out`, the CSV with device, torch, threads in each row.

    The settings in the JSON are the arguments, their paths relative to the repository, and `more`.
    """
    shown = table[["case", "part", "seconds", "seconds_min", "seconds_max", "per_second", "unit", "ratio"]]
    print(f"{name}: {machine['device_name']}, torch {machine['torch']}, {machine['threads']} threads")
    print(shown.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    settings = {k: v for k, v in vars(arguments).items() if k != "out"} | (more or {})
    settings = {k: os.path.relpath(v, paths.ROOT) if isinstance(v, Path) else v for k, v in settings.items()}
    rows = json.loads(table.to_json(orient="records", double_precision=15))
    labels = {key: machine[key] for key in ("device", "device_name", "torch", "threads")}
    write_csv(table.assign(**labels), arguments.out / f"{name}.csv")
    content = {"benchmark": name, "settings": settings, "environment": machine, "rows": rows}
    return write_json(arguments.out / f"{name}.json", content)
