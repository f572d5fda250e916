"""Whether a score of ours and a published number are measured alike: computed from the card of one and what is known of
the other, never set."""

import json
from collections.abc import Mapping
from pathlib import Path

FACTS = ("embedder", "weights_sha256", "evaluation_set_sha256", "n", "convention")


def comparable(ours: Mapping, published: Mapping | None) -> bool:
    """Whether two scores have the same embedder with the same weights, evaluation set, number of clips and convention.

    Each maps `FACTS` to values; a fact that is missing, None or empty is not known, and then nothing compares.
    """
    if published is None:
        return False
    pairs = [(ours.get(fact), published.get(fact)) for fact in FACTS]
    return all(None not in pair and "" not in pair and str(pair[0]) == str(pair[1]) for pair in pairs)


def refuse_unlike(cards: Mapping[str, Mapping]) -> None:
    """A ValueError where scores that stand in one table are of other reference clips or other weights of an evaluator.

    `cards` are by the file that holds each; one that names no evaluators is of other scores and not asked.
    """
    seen = {}  # what a card says -> the file that said it first, and how
    for file, card in cards.items():
        if "evaluators" not in card:
            continue
        said = {"reference clips": card.get("reference_sha256")}
        said |= {f"weights of the evaluator {name}": own.get("sha256") for name, own in card["evaluators"].items()}
        for what, sha256 in said.items():
            first, known = seen.setdefault(what, (file, sha256))
            if known != sha256:
                raise ValueError(
                    f"{first} and {file} are scores of other {what}, which do not compare: run the evaluate stage again"
                )


def read(file: Path) -> dict:
    """What `scores.save` wrote: {headline, card, scores}."""
    try:
        content = json.loads(file.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing; run the evaluate stage first") from None
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as scores ({error}); run the evaluate stage again") from None
    if not isinstance(content, dict) or not {"headline", "card", "scores"} <= set(content):
        raise ValueError(f"{file} lacks the headline, the card or the scores; run the evaluate stage again")
    return content


def facts_of(card: Mapping, score: Mapping) -> dict:
    """The facts of one of our scores {metric, embedder, seed}, from the card it depends on; those a card lacks are None,
    and all of them where it names no evaluators.

    `n` counts the clips of the whole set; the convention is the embedder's and, after a semicolon, the metric's own.
    """
    if "evaluators" not in card:
        return dict.fromkeys(FACTS)
    evaluator = card["evaluators"].get(score["embedder"], {})
    own = card.get("conventions", {}).get(score["metric"])
    convention = "; ".join(filter(None, (evaluator.get("convention"), own)))
    return {
        "embedder": evaluator.get("network"),
        "weights_sha256": evaluator.get("sha256"),
        "evaluation_set_sha256": card.get("reference_sha256"),
        "n": card["n"].get(str(score["seed"])),
        "convention": convention or None,
    }
