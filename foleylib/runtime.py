"""What every layer needs: the device, seeded generators, hashes, fingerprints, weights, atomic files, progress bars."""

import atexit
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def pick_device(name: str = "auto"):
    """The torch device of a setting; "auto" is CUDA where there is one, else the CPU."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device is 'cuda', but torch sees no CUDA device: set device to 'auto' or 'cpu' in params.yaml"
        )
    return torch.device("cuda" if name in ("auto", "cuda") and torch.cuda.is_available() else "cpu")


def process() -> tuple[int, int]:
    """The number of this process and how many there are, under torchrun; (0, 1) without."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_folder(folder: Path) -> Path:
    """`folder` in the main process, which alone writes there; in the others of torchrun one that vanishes with them."""
    if process()[0] == 0:
        return folder
    aside = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, aside, ignore_errors=True)
    return aside / folder.name


def wait_for_all() -> None:
    """Wait until every process of torchrun is here, so that what the main one has written can be read."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def step_generator(device, *key: int):
    """A torch generator whose stream depends on `key` alone (seed, step, rank), so that a resumed run draws what it
    would have drawn."""
    import torch

    return torch.Generator(device).manual_seed(_seed_of(key))


def clip_seeds(seed: int, clips: Iterable[tuple[str, int]]) -> list[int]:
    """A seed for each clip (class, number within the class): more clips of a class leave the first ones as they are."""
    return [_seed_of([seed, zlib.crc32(label.encode()), number]) for label, number in clips]


def _seed_of(key) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def weights_sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of a folder: of the relative names and contents of its files, in order of name; but for
    README.md, which tells of them."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "README.md")
    if not files:
        raise ValueError(f"{path}: no weights there; give a file or a folder that holds files")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()} {weights_sha256(file)}\n".encode())
    return digest.hexdigest()


def fingerprint(*parts) -> str:
    """Sixteen hex digits that change with any of `parts` (sections of the settings, dicts, strings, numbers)."""
    plain = [p.model_dump(mode="json") if hasattr(p, "model_dump") else p for p in parts]
    digest = hashlib.sha256()
    for chunk in json.JSONEncoder(sort_keys=True).iterencode(plain):  # millions of captions are not held as one text
        digest.update(chunk.encode())
    return digest.hexdigest()[:16]


def parameters(module) -> int:
    """Number of parameters of a torch module."""
    return sum(p.numel() for p in module.parameters())


def load_strictly(network: type, folder: str | Path, *, stage: str):
    """A transformers or diffusers `network` from a folder that `stage` wrote, in float32 and evaluation mode.

    `from_pretrained` alone gives random values to a weight that is missing or of another shape, with a warning at most;
    here it stops, as do unknown weights and those that are not finite, with the folder and the name.
    """
    import torch
    from safetensors import SafetensorError

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder}: no {network.__name__} there; run the {stage} stage first")
    try:
        model, report = network.from_pretrained(folder, output_loading_info=True, torch_dtype=torch.float32)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: damaged or incomplete ({error}); run the {stage} stage again") from error
    faults = {name: sorted(map(str, keys))[:5] for name, keys in report.items() if keys}
    if faults:
        raise ValueError(
            f"{folder}: its weights are not those of a {network.__name__}: {faults}; make the folder again"
        )
    if hasattr(model, "register_to_config"):
        model.register_to_config(_name_or_path="")  # else it is saved with the folder that it was read from
    return finite(model, folder)


def finite(model, folder: str | Path):
    """The model in evaluation mode, if all its weights and statistics are finite numbers."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{folder}: '{name}' holds NaN or Inf; fetch the weights again, or train them anew")
    return model.eval()


def save_atomically(state: dict, path: Path) -> None:
    """`torch.save` beside `path`, then rename: a kill leaves the old file or the new one, never half of one."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def write_json(path: Path, content) -> Path:
    """Write JSON with a line for each entry; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def write_csv(frame, path: str | Path) -> Path:
    """Write a table atomically: UTF-8, "\\n" line ends, floats of 6 digits, two-level heads as "class ours"."""
    import pandas as pd

    path, frame = Path(path), frame.copy()
    if isinstance(frame.columns, pd.MultiIndex):
        frame.columns = [" ".join(map(str, head)) for head in frame.columns]
    text = frame.to_csv(index=not isinstance(frame.index, pd.RangeIndex), float_format="%.6g", lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_bytes(text.encode())
    os.replace(path.with_suffix(".tmp"), path)
    return path


def progress(iterable=None, **options):
    """A tqdm bar over `iterable` (or by hand, with `total`), in the terminal under DVC: a bar has no place in an
    executed notebook. `options` are tqdm's `total`, `desc`, `initial`, `unit`, `disable`."""
    from tqdm import tqdm

    if _WORKER:  # the process that asked for the work shows how far it is
        options["disable"] = True
    stream = getattr(sys.stderr, "_original_stdstream_copy", None) if "DVC_ROOT" in os.environ else None
    file = os.fdopen(os.dup(stream), "w") if stream is not None else sys.stderr
    return tqdm(iterable, file=file, mininterval=2 if file.isatty() else 30, **options)


def in_parallel(
    function: Callable, calls: Sequence[tuple], setup: Callable, *, device: str, jobs: int, desc: str, context=None
) -> list:
    """The results of `function(context, *call)` in the order of `calls`, with a bar over them.

    On the CPU several calls run side by side in `jobs` processes (-1: as many as there are cores), each on one thread: small
    networks gain little from a second one (benchmarks/README.md), and the numbers are the same for any number of
    processes and cores. With -1, calls that would leave cores idle in a second round run all at once: three on two
    cores take the time of one and a half. On a GPU they run one after another, as does a single call, on all threads;
    so they do under torchrun, whose processes share the work of each.

    On Linux the processes are forks, which have libraries and context already. Elsewhere forks are not safe, and where
    torch has device threads, autograd does not work in the forks of a process that has used it: there they start anew, and
    each makes its own context.

    Parameters
    ----------
    function : of a module, so that another process finds it.
    setup : makes the context, what all calls read; `functools.partial` gives it arguments.
    device : as in `pick_device`.
    context : what `setup` makes, where this process has it already.
    """

    def in_turn() -> list:
        known = setup() if context is None else context
        return [function(known, *call) for call in progress(calls, desc=desc, disable=len(calls) < 2)]

    if pick_device(device).type != "cpu" or len(calls) < 2 or process()[1] > 1:
        return in_turn()
    import joblib

    count = _processes(joblib.effective_n_jobs(jobs), len(calls), exactly=jobs != -1)
    if count == 1:
        with _one_thread():
            return in_turn()
    return _side_by_side(function, calls, setup, context, count, desc)


def _processes(cores: int, calls: int, exactly: bool) -> int:
    """How many processes share so many calls."""
    return calls if calls < 2 * cores and not exactly else min(cores, calls)


def _side_by_side(function: Callable, calls: Sequence[tuple], setup: Callable, context, count: int, desc: str) -> list:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    forks = sys.platform == "linux" and _autograd_works_in_forks()
    if forks and context is None:
        with _one_thread():
            context = setup()
    begin = (os.getpid(), None, context) if forks else (os.getpid(), setup, None)
    method = multiprocessing.get_context("fork" if forks else "spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, method, initializer=_begin_work, initargs=begin) as pool:
        done = [pool.submit(_work, function, call) for call in calls]
        try:
            return [future.result() for future in progress(done, desc=desc)]
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"{desc}: a process was killed before its work was done, for want of memory perhaps; set jobs to fewer"
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


def _autograd_works_in_forks() -> bool:
    import torch

    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.ones(1, requires_grad=True).sum().backward()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@contextmanager
def _one_thread():
    """One thread for torch and for the linear algebra of numpy and scipy."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


_WORKER: dict = {}  # "context", in a process that works for another; empty in the one that asks


def _begin_work(parent: int, setup: Callable | None, context) -> None:
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    with _one_thread():
        _WORKER["context"] = context if setup is None else setup()


def _work(function: Callable, call: tuple):
    with _one_thread():
        return function(_WORKER["context"], *call)


def _end_with_parent(parent: int) -> None:
    """End this process once the one that asked for its work is gone: a rerun must not meet it at the same files."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
