"""Stage clap: contrastive training of CLAP on the captions of the foundation's corpus."""

from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F

from foleylib.networks import clap
from foleylib.params.settings import Params
from foleylib.stages import foundation
from foleylib.train import Job, Terms, Trainable, fit


def make(cfg: Params) -> pd.DataFrame:
    """Make models/foundation/clap from its source; returns the training history."""
    return foundation.make("clap", cfg, train)


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Train on the corpus' captions; zero-shot accuracy on its validation clips is logged."""
    manifest, waves = foundation.clips(cfg, "train")
    held, held_waves = foundation.held_out(cfg)
    prompts = list(manifest.drop_duplicates("target").sort_values("target").prompt)
    targets, rate = torch.tensor(held.target.to_list()), cfg.corpus_of("foundation").rate

    def validate(model: clap.Clap) -> dict:
        audio = model.embed_audio(held_waves, rate)
        similarity = (audio * model.embed_text(list(held.caption))).sum(1).mean()
        accuracy = retrieval_accuracy(audio, model.embed_text(prompts), targets.to(audio.device))
        return {"zero_shot": accuracy, "cosine": similarity}

    job, captions, groups = foundation.job(cfg, "clap"), list(manifest.caption), torch.tensor(manifest.target.to_list())
    check = None if held_waves is None else validate
    model, history = fit_clap(cfg.foundation.clap, waves, captions, groups, job, validate=check)
    model.save(out)
    job.forget()
    return history


def fit_clap(settings, waves, captions: list[str], groups: torch.Tensor, job: Job, *, validate=None):
    """Train a CLAP from scratch on clips `waves[indices]` with a caption and a group (class) each; returns (clap, history).

    `settings` is the section `foundation.clap`; `validate(clap)` returns scalars for the history.
    """
    model = clap.build(settings, captions, seed=job.seed)

    def load(indices) -> dict:
        return {"waves": waves[indices], "captions": [captions[i] for i in indices], "groups": groups[indices]}

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        gain = 10 ** (torch.empty(len(batch["waves"]), 1).uniform_(-0.5, 0.2, generator=_cpu(generator)))
        waves = batch["waves"] * gain.to(batch["waves"])
        return contrastive_terms(module, waves, batch["captions"], batch["groups"])

    check = None if validate is None else lambda: validate(model)
    trainable = Trainable(model, loss, {"contrastive": 1.0})
    history = fit({"clap": trainable}, load, len(waves), settings.train, job, validate=check)
    return model.cpu().eval(), history


def contrastive_terms(model: clap.Clap, waves: torch.Tensor, captions: list[str], groups: torch.Tensor) -> Terms:
    """The symmetric contrastive loss of CLAP, with every pair of one group a positive.

    With all groups distinct this is the published loss. Class-labelled clips share captions, and a pair of two dogs is
    no negative: then each row's target is uniform over the clips of its group (Yang et al. 2022, UniCL).

    Parameters
    ----------
    waves : [shape=(B, T)], captions : B texts, groups : [shape=(B,)], integers.
    """
    audio, text = model.audio(waves), model.text(captions)
    same = (groups[:, None] == groups[None, :]).float()
    target = same / same.sum(1, keepdim=True)  # (B, B)
    to_text = model.model.logit_scale_a.exp() * audio @ text.T
    to_audio = model.model.logit_scale_t.exp() * text @ audio.T
    return {"contrastive": (F.cross_entropy(to_text, target) + F.cross_entropy(to_audio, target)) / 2}


def retrieval_accuracy(audio: torch.Tensor, text: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of clips whose nearest class prompt is that of their own class (zero-shot classification).

    Parameters
    ----------
    audio : clip embeddings [shape=(N, D)], text : one embedding a class [shape=(C, D)], targets : classes [shape=(N,)].
    """
    return float(((audio @ text.T).argmax(1) == targets).double().mean())


def _cpu(generator: torch.Generator) -> torch.Generator:
    return generator if generator.device.type == "cpu" else torch.Generator().manual_seed(generator.initial_seed())
