"""Stage clap: contrastive training of CLAP on the captions of the foundation's corpus."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from foleylib import paths
from foleylib.audio.augment import through_microphone
from foleylib.audio.io import at_rate
from foleylib.datasets import manifest as manifests
from foleylib.networks import clap
from foleylib.params.settings import Params
from foleylib.runtime import pick_device
from foleylib.stages import foundation
from foleylib.train import Job, Terms, Trainable, fit, gathered


def make(cfg: Params) -> pd.DataFrame:
    """Make models/foundation/clap from its source; returns the training history.

    A CLAP that takes the prompt of a class for that of another is refused, unless `foundation.clap.confused` allows it:
    it would condition, select and score by the wrong sound.
    """
    history = foundation.make("clap", cfg, train)
    held, waves = foundation.held_out(cfg)
    if waves is not None and manifests.has_classes(held) and not cfg.foundation.clap.confused:
        check_prompts(clap.load(paths.FOUNDATION / "clap", pick_device(cfg.device)), held, waves, cfg)
    return history


def check_prompts(model: clap.Clap, held: pd.DataFrame, waves: torch.Tensor, cfg: Params) -> None:
    """Refuse a CLAP by which the prompt of a class is nearer to the clips of another."""
    labelled = (held.target >= 0).to_numpy(copy=True)
    held, waves = held[labelled], waves[labelled]
    classes = manifests.classes(held)
    audio, text = model.embed_audio(waves, cfg.corpus_of("foundation").rate), model.embed_text(list(classes.prompt))
    targets = torch.tensor(held.target.rank(method="dense").astype(int).to_list()) - 1
    nearest = prompts_near_their_own(audio.cpu(), text.cpu(), targets).tolist()
    wrong = [
        f"'{prompt}' is nearer to {classes.label.iloc[near]} than to {label}"
        for own, (near, label, prompt) in enumerate(zip(nearest, classes.label, classes.prompt))
        if near != own
    ]
    if wrong:
        raise ValueError(f"models/foundation/clap: {'; '.join(wrong)}; train it for longer, or change these prompts")


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Train on the corpus' captions and class prompts; scores on its validation clips are logged.

    A corpus without classes has no zero-shot accuracy; "own_first" is then among all of its validation clips.
    """
    manifest, waves = foundation.clips(cfg, "train")
    held, held_waves = foundation.held_out(cfg)
    prompts = list(manifests.classes(manifest).prompt)
    targets, rate = torch.tensor(held.target.to_list()), cfg.corpus_of("foundation").rate

    def validate(model: clap.Clap) -> dict:
        audio, text = model.embed_audio(held_waves, rate).cpu(), model.embed_text(list(held.caption)).cpu()
        own = {f"own_{name}": value for name, value in retrieval_within(audio, text, targets).items()}
        labelled = targets >= 0
        if labelled.any():
            prompted = model.embed_text(prompts).cpu()
            own["zero_shot"] = retrieval_accuracy(audio[labelled], prompted, targets[labelled])
        return own | {"cosine": (audio * text).sum(1).mean()}

    job, check = foundation.job(cfg, "clap"), None if held_waves is None else validate
    said = manifests.captions(paths.CLIPS / cfg.foundation.corpus, manifest)
    texts = manifest[["prompt", "target"]].assign(captions=said)
    start = foundation.initial("clap", cfg, clap.load)
    model, history = fit_clap(cfg.foundation.clap, waves, texts, job, rate=rate, start=start, validate=check)
    model.save(out)
    job.forget()
    return history


def fit_clap(settings, waves, texts: pd.DataFrame, job: Job, *, rate: int, start=None, validate=None):
    """Train a CLAP; returns (clap, history).

    Parameters
    ----------
    settings : section `foundation.clap`.
    waves : clips at `rate` Hz, `waves[indices]` -> [shape=(B, T)]; resampled to the rate that the CLAP hears (48 kHz in
        published sizes), after the augmentation. Above half of `rate` it then hears nothing.
    texts : [captions (list), prompt, target], a row a clip. Each step draws one of a clip's captions. Clips of one
        prompt are a class; one without a class (target -1) never comes with its prompt in place of a caption, and where
        no clip has a class, none are drawn in groups of one.
    start : a CLAP that is trained further, with its own vocabulary; without it, one is drawn anew.
    validate : `validate(clap)` returns scalars for the history.
    """
    captions = texts.captions.explode()
    model = start or clap.build(settings, [*captions, *texts.prompt.unique()], seed=job.seed)
    ids = {"caption_ids": numbered(texts.captions), "prompt_ids": torch.from_numpy(texts.prompt.factorize()[0])}
    ids["has_class"] = torch.tensor((texts.target >= 0).to_list())
    members, classmates = texts.groupby("prompt").indices, settings.classmates if ids["has_class"].any() else 1

    def load(indices) -> dict:
        indices = with_classmates(indices, texts.prompt.to_numpy(), members, size=classmates)
        rows = texts.iloc[indices]
        batch = {"waves": waves[indices], "captions": list(rows.captions), "prompts": list(rows.prompt)}
        return batch | {name: values[indices] for name, values in ids.items()}

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        draws, count = _cpu(generator), len(batch["waves"])
        gain = 10 ** (torch.empty(count, 1).uniform_(-0.5, 0.2, generator=draws))
        waves = batch["waves"] * gain.to(batch["waves"])
        recorded = through_microphone(waves, generator=draws, rate=rate)
        elsewhere = torch.rand(count, 1, generator=draws) < settings.microphone_share
        waves = torch.where(elsewhere.to(waves.device), recorded, waves)
        waves = at_rate(waves, rate, model.rate).to(waves.device)  # as `embed_audio` hears them
        plain = torch.rand(count, generator=draws).to(waves.device) < settings.prompt_share
        plain &= batch["has_class"]
        chosen = drawn_captions(batch["caption_ids"], draws)
        said = [
            prompt if is_plain else own[number]
            for prompt, own, number, is_plain in zip(
                batch["prompts"], batch["captions"], chosen.tolist(), plain.tolist()
            )
        ]
        same = described(*map(gathered, (batch["caption_ids"], chosen, batch["prompt_ids"], plain)))
        return contrastive_terms(module, waves, said, same)

    check = None if validate is None else lambda: validate(model)
    trainable = Trainable(model, loss, {"contrastive": 1.0, "uniformity": settings.uniformity})
    history = fit({"clap": trainable}, load, len(waves), settings.train, job, validate=check)
    return model.cpu().eval(), history


def with_classmates(indices: np.ndarray, classes: np.ndarray, members: dict, *, size: int) -> np.ndarray:
    """The clips of a step [shape=(B,)] with half of them in groups of one class: what tells apart clips of a class is
    learned from them.

    The first half stays as drawn. Of the rest, every `size`-th clip stays and the others are drawn from its class (with
    repetition where the class is smaller), by a generator that the stayers seed.

    Parameters
    ----------
    indices : as drawn at random [shape=(B,)].
    classes : the class of every clip, anything hashable [shape=(N,)]; members : the clips of each class.
    size : 1 leaves all as drawn.
    """
    if size == 1:
        return indices
    half = len(indices) // 2
    kept, grouped = indices[:half], indices[half:].copy()
    rng = np.random.default_rng(grouped)
    for start in range(0, len(grouped), size):
        own, count = members[classes[grouped[start]]], len(grouped[start + 1 : start + size])
        others = own[own != grouped[start]] if len(own) > 1 else own
        grouped[start + 1 : start + size] = rng.choice(others, count, replace=count > len(others))
    return np.concatenate([kept, grouped])


def numbered(captions: pd.Series) -> torch.Tensor:
    """Numbers of the captions of each clip [shape=(N, K)], equal for equal texts; -1 where a clip has fewer than K."""
    counts = captions.map(len).to_numpy()
    ids = np.full((len(captions), counts.max()), -1)
    ids[np.arange(counts.max()) < counts[:, None]] = captions.explode().factorize()[0]
    return torch.from_numpy(ids)


def drawn_captions(captions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Which caption each clip comes with [shape=(B,)], drawn evenly from its own; nothing is drawn where all have one.

    `captions` are their numbers [shape=(B, K)], of `numbered`; `generator` is on the CPU.
    """
    counts = (captions >= 0).sum(1)
    if captions.shape[1] == 1:
        return torch.zeros_like(counts)
    return (torch.rand(len(captions), generator=generator).to(captions.device) * counts).long()


def described(captions: torch.Tensor, chosen: torch.Tensor, prompts: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Which texts of a batch are true of which clips [shape=(B clips, B texts), bool].

    A caption is true of the clips that have it among theirs, a class prompt of all clips that share the prompt.

    Parameters
    ----------
    captions : numbers of all captions of each clip [shape=(B, K)], of `numbered`; chosen : which of them comes with the
        clip [shape=(B,)].
    prompts : numbers of the class prompts [shape=(B,)], equal for equal texts.
    plain : which clips come with their prompt in place of their caption [shape=(B,), bool].
    """
    drawn = captions.gather(1, chosen[:, None])[:, 0]
    same_caption = (captions[:, :, None] == drawn).any(1)
    return torch.where(plain[None, :], prompts[:, None] == prompts[None, :], same_caption)


def contrastive_terms(model: clap.Clap, waves: torch.Tensor, texts: list[str], same: torch.Tensor) -> Terms:
    """The symmetric contrastive loss of CLAP, with every true pair a positive.

    Under torchrun the pairs are those of all processes' clips, so that a step is that of one process with the whole batch;
    batch norms alone see each process's own. With the diagonal alone true this is the published loss. Where a text is true of several clips of the batch, the
    target is uniform over them (Yang et al. 2022, UniCL). The second term, uniformity, keeps embeddings apart that the
    first would leave together as soon as their classes differ from the rest: those of all clips, and of all texts.

    Parameters
    ----------
    waves : [shape=(B, T)], texts : B of them, same : which text is true of which clip, of all processes
        [shape=(B clips, B texts), bool].
    """
    audio, text, texts = gathered(model.audio(waves)), gathered(model.text(texts)), gathered(texts)
    to_text = model.model.logit_scale_a.exp() * audio @ text.T
    to_audio = model.model.logit_scale_t.exp() * text @ audio.T
    targets = (true / true.sum(1, keepdim=True) for true in (same.float(), same.T.float()))
    contrastive = sum(map(F.cross_entropy, (to_text, to_audio), targets)) / 2
    apart = torch.tensor([[one != other for other in texts] for one in texts], device=audio.device)
    return {"contrastive": contrastive, "uniformity": (uniformity(audio) + uniformity(text, apart)) / 2}


def uniformity(x: torch.Tensor, apart: torch.Tensor | None = None) -> torch.Tensor:
    """log E[exp(-2 |x_i - x_j|^2)] over pairs of unit embeddings [shape=(B, D)] (Wang and Isola 2020, with t = 2).

    0 where all are one; the less, the more evenly they lie on the sphere. `apart` names the pairs that count
    [shape=(B, B), bool]; without it, all but each with itself. 0 without any.
    """
    counted = ~torch.eye(len(x), dtype=torch.bool, device=x.device) if apart is None else apart
    if not counted.any():
        return x.new_zeros(())
    squared = 2 - 2 * x @ x.T  # of unit vectors
    return torch.logsumexp((-2 * squared)[counted], 0) - counted.sum().log()


def retrieval_accuracy(audio: torch.Tensor, text: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of clips whose nearest class prompt is that of their own class (zero-shot classification).

    Parameters
    ----------
    audio : clip embeddings [shape=(N, D)], text : one embedding a class [shape=(C, D)], targets : classes [shape=(N,)].
    """
    return float(((audio @ text.T).argmax(1) == targets).double().mean())


def retrieval_within(audio: torch.Tensor, text: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Whether a caption finds its own clip among those of its class: what CLAP knows of a clip beyond the class.

    Parameters
    ----------
    audio, text : embeddings of clips and of their captions [shape=(N, D)], targets : classes [shape=(N,)].

    Returns
    -------
    "first", share of captions whose nearest clip of the class is their own, and "chance", that of a guess
    """
    first, chance = [], []
    for label in targets.unique():
        rows = torch.nonzero(targets == label)[:, 0]
        first.append((text[rows] @ audio[rows].T).argmax(1) == torch.arange(len(rows), device=audio.device))
        chance.append(torch.full((len(rows),), 1 / len(rows)))
    return {"first": float(torch.cat(first).double().mean()), "chance": float(torch.cat(chance).mean())}


def prompts_near_their_own(audio: torch.Tensor, text: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """For each class prompt the class whose clips are nearest to it on average [shape=(C,)]; 0, 1, ... is right.

    Parameters
    ----------
    audio : clip embeddings [shape=(N, D)], text : one embedding a class [shape=(C, D)], targets : classes [shape=(N,)].
    """
    means = torch.stack([audio[targets == label].mean(0) for label in range(len(text))])
    return (text @ means.T).argmax(1)


def _cpu(generator: torch.Generator) -> torch.Generator:
    return generator if generator.device.type == "cpu" else torch.Generator().manual_seed(generator.initial_seed())
