"""The clips of a corpus before any audio is read: splits, classes, ids, captions and prompts."""

import hashlib
import re
import string
from collections import Counter
from pathlib import Path

from foleylib.corpora.manifest import CorpusError
from foleylib.corpora.sources import DCASE_PROMPTS, READERS
from foleylib.paths import ROOT

SPLITS = ("train", "val", "test")
OFFSETS = {"train": 0, "val": 1_000_000, "test": 2_000_000}


def spoken(label):
    """Class name as words: "DogBark" -> "dog bark", "Sneeze_Cough" -> "sneeze cough"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-\s]+", " ", label)
    return " ".join(words.lower().split())


def source_root(settings):
    """Folder that holds the recordings; None for the synthetic corpus."""
    if settings.kind == "synthetic":
        return None
    if settings.root is None:
        raise CorpusError(f"kind={settings.kind} needs a root: the folder that holds the recordings")
    return ROOT / settings.root  # an absolute root stays as it is


def list_clips(settings):
    """The clips that `prepare` makes, before any audio is read: id, source, split, label, target, caption, prompt.

    Parameters
    ----------
    settings : foleylib.params.Corpus

    Returns
    -------
    list of dict
        by split, class and id; `target` counts the chosen classes (in the order given, else alphabetical), and is -1
        for a clip without a label

    Raises
    ------
    CorpusError
        if the layout or the settings cannot be used
    """
    clips, classes, default = _synthetic(settings) if settings.kind == "synthetic" else _found(settings)
    prompts, template = _checked_prompts(settings, classes)
    target = {label: i for i, label in enumerate(classes)} | {"": -1}
    for clip in clips:
        label, caption = clip["label"], clip["caption"]
        words = template.format(label=spoken(label)) if template and label else default(clip)
        clip["target"] = target[label]
        clip["prompt"] = prompts.get(label, words)
        clip["caption"] = caption or clip["prompt"]
    return sorted(clips, key=lambda clip: (SPLITS.index(clip["split"]), clip["target"], clip["id"]))


def _checked_prompts(settings, classes):
    prompts, template = settings.prompts or {}, settings.prompt_template
    if template is not None and {part[1] for part in string.Formatter().parse(template)} - {None} != {"label"}:
        raise CorpusError(f"prompt_template={template!r}: it must hold {{label}}, and no other field")
    unknown = sorted(set(prompts) - set(classes))
    if unknown:
        raise CorpusError(f"prompts name {unknown}, but the classes are {list(classes)}; correct or remove these")
    return prompts, template


def _synthetic(settings):
    from foleylib import synth

    classes = _chosen(settings.classes or "broad", synth.BROAD)
    counts = settings.clips_per_class
    if not counts or set(counts) - set(SPLITS) or not all(0 <= n <= 1_000_000 for n in counts.values()):
        raise CorpusError(f"clips_per_class={counts}: give 0 to 1000000 for each of {', '.join(SPLITS)}")
    clips = [
        {
            "id": f"{label}-{split}-{i:06d}",
            "source_path": "synthetic",
            "split": split,
            "label": label,
            "caption": "",
            "source_group": f"{label}-{OFFSETS[split] + i}",
            "licence": "CC0-1.0",
            "index": OFFSETS[split] + i,
        }
        for split, count in counts.items()
        for label in classes
        for i in range(count)
    ]
    if not clips:
        raise CorpusError(f"clips_per_class={counts} asks for no clip at all; give a number above 0")
    return clips, classes, lambda clip: synth.prompt(clip["label"])


def _chosen(wanted, found):
    if wanted is None:
        return list(found)
    if wanted in ("foley", "broad"):
        from foleylib import synth

        wanted = synth.FOLEY if wanted == "foley" else synth.BROAD
    absent = [label for label in wanted if label not in found]
    if absent or len(set(wanted)) < len(wanted) or not wanted:
        raise CorpusError(f"classes={list(wanted)}: {absent or 'none or some twice'}; the corpus has {list(found)}")
    return list(wanted)


def _found(settings):
    if settings.kind not in READERS:
        raise CorpusError(f"kind={settings.kind!r} is not known; the kinds are synthetic, {', '.join(READERS)}")
    clips = READERS[settings.kind](source_root(settings))
    wanted = list(DCASE_PROMPTS) if settings.kind == "dcase2023t7" and settings.classes is None else settings.classes
    classes = _chosen(wanted, sorted({clip["label"] for clip in clips} - {""}))
    asked = settings.folds if "fold" in clips[0] else {} if "split" in clips[0] else settings.split_fractions
    clips = assign_splits(clips, folds=settings.folds, fractions=settings.split_fractions, seed=settings.seed)
    clips = [clip for clip in clips if wanted is None or clip["label"] in classes]
    empty = [split for split, share in asked.items() if share and split not in {clip["split"] for clip in clips}]
    if empty or not clips:
        raise CorpusError(
            f"splits {empty or SPLITS} got no clip of classes {classes}; change their shares, folds or seed"
        )
    ids = _ids([clip["source_path"] for clip in clips], by_name=settings.kind in ("esc50", "urbansound8k"))
    clips = [{**clip, "id": id} for clip, id in zip(clips, ids)]
    return clips, classes, lambda clip: clip["caption"] or DCASE_PROMPTS.get(clip["label"], spoken(clip["label"]))


def _ids(paths, *, by_name):
    """File-name-safe ids, from the name alone or the whole relative path; a hash tells equal ones apart."""
    twice = sorted(path for path, n in Counter(paths).items() if n > 1)
    if twice:
        raise CorpusError(f"listed more than once: {', '.join(twice)}; keep one row of each")
    stems = [Path(path).stem if by_name else str(Path(path).with_suffix("")) for path in paths]
    slugs = [re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-.")[:100] for stem in stems]
    count = Counter(slug.lower() for slug in slugs)
    hashes = [hashlib.sha256(path.encode()).hexdigest()[:8] for path in paths]
    return [slug if slug and count[slug.lower()] == 1 else f"{slug}-{h}" for slug, h in zip(slugs, hashes)]


def assign_splits(clips, *, folds=None, fractions=None, seed=0):
    """Give each clip its split, never parting clips of one source group.

    A corpus with folds goes by `folds`, one with a split column by that, any other by a seeded hash of the group,
    so that clips added later move no others.

    Parameters
    ----------
    clips : list of dict
        rows of a reader
    folds : dict of str to list of int
        folds of each split; clips of a fold that is in none are left out
    fractions : dict of str to float
        share of groups per split; must sum to 1
    seed : int

    Returns
    -------
    list of dict
        clips with `split`

    Raises
    ------
    CorpusError
        if a group lies in several folds or splits, or a split, a fold or a sum is not as described
    """
    if "fold" in clips[0]:
        _whole_groups(clips, "fold")
        split_of = _split_of_fold(folds or {}, {clip["fold"] for clip in clips})
        return [{**clip, "split": split_of[clip["fold"]]} for clip in clips if clip["fold"] in split_of]
    if "split" in clips[0]:
        unknown = sorted({clip["split"] for clip in clips} - set(SPLITS))
        if unknown:
            raise CorpusError(f"split column holds {unknown}; give every row one of {', '.join(SPLITS)}")
        _whole_groups(clips, "split")
        return clips
    _known_splits(fractions or {})
    if not fractions or abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise CorpusError(f"split_fractions={fractions}: give shares >= 0 that sum to 1, such as train .8, test .2")
    return [{**clip, "split": _hashed_split(clip["source_group"], fractions, seed)} for clip in clips]


def _known_splits(given):
    unknown = sorted(set(given) - set(SPLITS))
    if unknown:
        raise CorpusError(f"splits {unknown} are not known; the splits are {', '.join(SPLITS)}")


def _whole_groups(clips, key):
    where = {}
    for clip in clips:
        where.setdefault(clip["source_group"], set()).add(clip[key])
    parted = {group: sorted(places) for group, places in where.items() if len(places) > 1}
    if parted:
        raise CorpusError(f"clips of one source group lie in more than one {key}: {parted}; correct the metadata")


def _split_of_fold(folds, found):
    _known_splits(folds)
    pairs = [(fold, split) for split, numbers in folds.items() for fold in numbers]
    if not pairs or len(dict(pairs)) < len(pairs):
        raise CorpusError(f"folds={folds}: give each fold to one split, such as train [1, 2, 3, 4], test [5]")
    absent = sorted(set(dict(pairs)) - found)
    if absent:
        raise CorpusError(f"folds={folds}: the corpus has no clips in folds {absent}, only in {sorted(found)}")
    return dict(pairs)


def _hashed_split(group, fractions, seed):
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for split in SPLITS:
        edge += fractions.get(split, 0.0)
        if draw < edge:
            return split
    return max(fractions, key=fractions.get)  # the shares sum to a rounding error below 1
