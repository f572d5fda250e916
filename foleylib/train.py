"""The one training loop: warm-up, clipping, EMA, history, atomic checkpoints and exact resume for every stage."""

import math
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from foleylib.runtime import pick_device, process, progress, save_atomically, step_generator

Terms = dict[str, torch.Tensor]
Loss = Callable[[nn.Module, dict, torch.Generator], Terms]


@dataclass
class Trainable:
    """A module with its loss and an optimiser of its own: a plain model is one of them, a GAN two.

    `loss(module, batch, generator)` returns named scalars, of which `weights` has the factor of each in the sum. Every
    draw comes from `generator`; the batch also holds the number of the step under "step", and all trainables of a step
    get the same batch. The first step at which the module is trained is `start` (a discriminator may wait).
    """

    module: nn.Module
    loss: Loss
    weights: dict[str, float]
    start: int = 0


@dataclass(frozen=True)
class Job:
    """How a training is run: its seed, the folder of its resumable state, the device and the precision.

    The name of `scratch` must change with whatever changes the training (`runtime.fingerprint`). `precision` is
    "float32", or "bf16" or "fp16" (automatic mixed precision).
    """

    seed: int
    scratch: Path
    device: str = "auto"
    precision: str = "float32"

    @property
    def state_file(self) -> Path:
        """Where a killed run finds its resumable state."""
        return self.scratch / "state.pt"

    def forget(self) -> None:
        """Drop the resumable state, once the final weights are saved; of several processes the main one does."""
        if process()[0] == 0:
            shutil.rmtree(self.scratch, ignore_errors=True)


def fit(
    trainables: dict[str, Trainable],
    load: Callable[[np.ndarray], dict],
    n: int,
    settings,
    job: Job,
    *,
    validate: Callable[[], dict] | None = None,
    best: str | None = None,
) -> pd.DataFrame:
    """Train modules in turn on the same batches; goes on from the state that a killed run left in `job.scratch`.

    Parameters
    ----------
    load : maps clip indices [shape=(B,)] to a batch, a dict of tensors (moved to the device here) and other values.
    n : number of training clips the indices run over.
    settings : `params.base.Train` (steps, batch_size, accumulate, lr, betas, warmup, schedule, clip_norm, ema_decay,
        validate_every, checkpoint_every).
    job : seed, scratch, device and precision; batches, losses and dropout of a step depend on (seed, step) alone.
    validate : returns scalars for the history, called with the averaged weights in place.
    best : the scalar of `validate` by whose least value the weights are chosen; without, they are the last.

    Under torchrun every process trains the same module on its share of each step's clips and ends with the same weights
    and statistics; the main one alone writes checkpoints, and its validation is that of all. Losses over pairs of clips
    see those of all processes by `gathered`.

    Returns
    -------
    One row a step: step, every loss term, the norm of the gradient, validation; no clock, so that reruns are exact.
    The modules end with their averaged (EMA) weights, of the last step or of the best, in eval mode.
    """
    if n < 1:
        raise ValueError("there is no training clip: check the corpus' train split")
    accelerator = _accelerator(job, settings)
    sides = {name: _Side(trainable, settings, accelerator) for name, trainable in trainables.items()}
    first, history, kept = _resume(sides, job.state_file, accelerator)

    with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
        bar = {"desc": job.scratch.parent.name, "initial": first, "total": settings.steps}
        for step in progress(range(first, settings.steps), **bar, disable=not accelerator.is_main_process):
            # Every draw of the step comes from (seed, step, rank): a resumed run draws what the unbroken one did.
            generator = step_generator(accelerator.device, job.seed, step, accelerator.process_index)
            torch.manual_seed(generator.initial_seed())  # dropout and the like draw from the global stream
            batches = _batches(load, n, step, settings, job.seed, accelerator)

            # One optimiser step of each module whose time has come.
            row = {"step": step + 1} | _updated(sides, batches, step, generator)
            history.append(row)

            # Validation with the averaged weights, and a checkpoint.
            done = step + 1
            if validate is not None and (done % settings.validate_every == 0 or done == settings.steps):
                row |= _of_main(_with_averages(sides, validate), accelerator)
                if best is not None and row[f"val_{best}"] <= min(r.get(f"val_{best}", math.inf) for r in history):
                    kept = {name: side.averaged() for name, side in sides.items()}
            if done % settings.checkpoint_every == 0 and done < settings.steps and accelerator.is_main_process:
                _save(sides, job.state_file, done, history, kept)

    for name, side in sides.items():
        side.finish(kept.get(name))
    return pd.DataFrame(history)


def _accelerator(job: Job, settings):
    """Of as many processes as torchrun started, which must share a step evenly: else its clips would have unequal weights."""
    from accelerate import Accelerator

    mixed = "no" if job.precision == "float32" else job.precision
    accelerator = Accelerator(cpu=pick_device(job.device).type == "cpu", mixed_precision=mixed)
    count = accelerator.num_processes
    if settings.batch_size % count:
        raise ValueError(f"batch_size {settings.batch_size}: no multiple of the {count} processes; give one that is")
    return accelerator


def _of_main(value, accelerator):
    """What the main process has of a value, in all processes."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


def gathered(values: torch.Tensor | list):
    """What all processes of torchrun have in place of `values`, one process after the other; `values` itself without.

    Tensors are joined along their first axis, of which each process has as much; gradients go back to where each part
    came from. Lists are joined.
    """
    count = process()[1]
    if count == 1 or not torch.distributed.is_initialized():
        return values
    if torch.is_tensor(values) and values.is_floating_point():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(values))
    parts = [None] * count
    torch.distributed.all_gather_object(parts, values.cpu() if torch.is_tensor(values) else values)
    return torch.cat(parts).to(values.device) if torch.is_tensor(values) else [own for part in parts for own in part]


def batch_indices(seed: int, step: int, n: int, batch: int) -> np.ndarray:
    """The clips of a step [shape=(batch,)]: consecutive runs through a new permutation of n items each epoch."""
    epochs, positions = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
    return np.array([_permutation(seed, epoch, n)[i] for epoch, i in zip(epochs.tolist(), positions.tolist())])


@lru_cache(maxsize=2)  # a step reads one epoch, or two where they meet; at 2 M clips a permutation takes 80 ms
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def learning_rate(step: int, settings) -> float:
    """Linear warm-up, then constant, or a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.schedule == "constant":
        return settings.lr * warm
    return settings.lr * warm * (0.55 + 0.45 * math.cos(math.pi * step / max(1, settings.steps)))


def _batches(load, n: int, step: int, settings, seed: int, accelerator) -> list[dict]:
    """This process's share of the clips of a step, parted for gradient accumulation."""
    indices = batch_indices(seed, step, n, settings.batch_size * settings.accumulate)
    parts = np.array_split(indices[accelerator.process_index :: accelerator.num_processes], settings.accumulate)
    return [_to(load(part), accelerator.device) | {"step": step} for part in parts]


class _Forward(nn.Module):
    """A module whose forward pass is its loss: what Accelerate wraps, so that several processes share gradients."""

    def __init__(self, trainable: Trainable):
        super().__init__()
        self.module, self.loss = trainable.module, trainable.loss

    def forward(self, batch: dict, generator: torch.Generator) -> Terms:
        return self.loss(self.module, batch, generator)


class _Side:
    """A trainable with its optimiser and the moving average of its weights."""

    def __init__(self, trainable: Trainable, settings, accelerator):
        on_cuda = accelerator.device.type == "cuda"
        self.trainable, self.settings, self.accelerator = trainable, settings, accelerator
        self.weights = [p for p in trainable.module.parameters() if p.requires_grad]
        options = {"betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
        optimizer = torch.optim.AdamW(self.weights, settings.lr, fused=True, **options)
        self.forward, self.optimizer = accelerator.prepare(_Forward(trainable), optimizer)
        self.ema = None
        if settings.ema_decay:
            from diffusers.training_utils import EMAModel

            # update_after_step=-1: decay min(d, (1 + n) / (10 + n)) from the first update on, as LitEma counts; foreach
            # rounds otherwise on the CPU
            self.ema = EMAModel(self.weights, decay=settings.ema_decay, update_after_step=-1, foreach=on_cuda)

    def update(self, batches: list[dict], step: int, generator: torch.Generator) -> dict[str, float]:
        """One optimiser step over the micro-batches; returns the mean of each loss term."""
        self.forward.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.settings)
        self.optimizer.zero_grad(set_to_none=True)

        # Evaluate the loss, accumulate gradients.
        logged: dict[str, float] = {}
        for batch in batches:
            with self.accelerator.autocast():
                terms = self.forward(batch, generator)
                total = sum(self._weight(name) * term for name, term in terms.items()) / len(batches)
            self.accelerator.backward(total)
            for name, term in terms.items():
                logged[name] = logged.get(name, 0.0) + float(term.detach()) / len(batches)

        # Clip, and stop before a gradient that is not finite reaches the weights.
        logged["grad_norm"] = float(self.accelerator.clip_grad_norm_(self.weights, self.settings.clip_norm))
        scaled = self.accelerator.mixed_precision == "fp16"  # there the scaler skips a step whose gradient overflows
        if not all(np.isfinite(v) for k, v in logged.items() if not (scaled and k == "grad_norm")):
            raise FloatingPointError(
                f"loss or gradient is not finite at step {step}: {logged}; lower the learning rate"
            )

        # Update the weights and their average, and what batch norms have seen: each process saw clips of its own.
        self.optimizer.step()
        if self.accelerator.num_processes > 1:
            self._share_statistics()
        if self.ema is not None:
            self.ema.step(self.weights)
        return logged

    def _share_statistics(self) -> None:
        """Give the running statistics of batch norms their mean over the processes."""
        for layer in self.trainable.module.modules():
            for buffer in (getattr(layer, name, None) for name in ("running_mean", "running_var")):
                if buffer is not None:
                    torch.distributed.all_reduce(buffer)
                    buffer /= self.accelerator.num_processes

    def _weight(self, name: str) -> float:
        weights = self.trainable.weights
        if name not in weights:
            raise ValueError(f"loss term '{name}' has no weight; weights are given for {', '.join(weights)}")
        return weights[name]

    def state(self) -> dict:
        """What a checkpoint holds of it."""
        ema = self.ema.state_dict() if self.ema is not None else None
        return {"module": self.trainable.module.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": ema}

    def restore(self, state: dict) -> None:
        """Take up the state of a checkpoint."""
        self.trainable.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)

    def averaged(self) -> list[torch.Tensor]:
        """A copy of the averaged weights."""
        weights = self.weights if self.ema is None else self.ema.shadow_params
        return [weight.detach().clone().cpu() for weight in weights]

    @torch.no_grad()
    def finish(self, kept: list[torch.Tensor] | None) -> None:
        """Leave the averaged weights, or those that were `kept`, in the module, in eval mode."""
        for weight, value in zip(self.weights, self.averaged() if kept is None else kept):
            weight.copy_(value)
        self.trainable.module.eval()


def _updated(sides: dict[str, _Side], batches: list[dict], step: int, generator: torch.Generator) -> dict:
    """An optimiser step of each module whose time has come; returns their loss terms."""
    row = {}
    for side in sides.values():
        if step >= side.trainable.start:
            row |= side.update(batches, step, generator)
    return row


def _save(sides: dict[str, _Side], state_file: Path, step: int, history: list[dict], best: dict) -> None:
    """Write a checkpoint that replaces the last one at once."""
    states = {name: side.state() for name, side in sides.items()}
    save_atomically({"step": step, "history": history, "trainables": states, "best": best}, state_file)


def _resume(sides: dict[str, _Side], state_file: Path, accelerator) -> tuple[int, list[dict], dict]:
    """First step, history and best weights of a run: those of its last checkpoint, where a killed run left one."""
    first, history, kept = _restored(sides, state_file) if state_file.exists() else (0, [], {})
    if _of_main(first, accelerator) != first:
        raise ValueError(
            f"{state_file}: not every process sees the same; put scratch/ on a disk that all of them share"
        )
    return first, history, kept


def _restored(sides: dict[str, _Side], state_file: Path) -> tuple[int, list[dict], dict]:
    # To the CPU: Adam counts steps there, and a counter on a GPU would be waited for at every step.
    try:
        saved = torch.load(state_file, map_location="cpu", weights_only=True)
        for name, side in sides.items():
            side.restore(saved["trainables"][name])
        first, history = saved["step"], saved["history"]
        if type(first) is not int or len(history) != first:
            raise ValueError(f"{len(history)} rows of history at step {first}")
        return first, history, saved.get("best", {})
    except Exception as error:  # a damaged file fails in many ways, according to where it breaks off
        said = textwrap.shorten(" ".join(str(error).split()), 200)
        raise ValueError(
            f"{state_file}: no state of this training, or damaged ({said}); delete it, and the training begins anew"
        ) from error


def _to(batch: dict, device: torch.device) -> dict:
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def _with_averages(sides: dict[str, _Side], validate: Callable[[], dict]) -> dict:
    """`validate()` with the averaged weights in place, in eval mode, and without a trace in the random stream."""
    for side in sides.values():
        side.trainable.module.eval()
        if side.ema is not None:
            side.ema.store(side.weights)
            side.ema.copy_to(side.weights)
    with torch.no_grad():
        scores = {f"val_{k}": float(v) for k, v in validate().items()}
    for side in sides.values():
        if side.ema is not None:
            side.ema.restore(side.weights)
    return scores
