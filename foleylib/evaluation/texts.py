"""Texts that are longer than what reads them, told and not cut in silence."""

from collections.abc import Sequence


class TextCut(UserWarning):
    """Texts lose their end."""


def cut(tokenizer, texts: Sequence[str], most: int | None = None) -> list[str]:
    """A sentence where a tokenizer of transformers leaves off the end of texts, else nothing.

    `most` are the tokens that are read, those of the beginning and end among them; by default the tokenizer's own length.
    """
    unique, most = list(dict.fromkeys(texts)), tokenizer.model_max_length if most is None else most
    ids = tokenizer(unique, truncation=False, padding=False, verbose=False)["input_ids"] if unique else []
    long = [(text, len(own)) for text, own in zip(unique, ids) if len(own) > most]
    if not long:
        return []
    text, length = long[0]
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    told = f"{len(long)} of {len(unique)} texts are longer than the {most} tokens that are read, and lose their end"
    return [f"{told}, first {shown!r} with {length}."]


def tell_of_cut(where: str, tokenizer, texts: Sequence[str], most: int | None = None) -> None:
    """Print a note where texts lose their end; `where` says whose they are. A warning would bring the path of the library into
    the executed notebook."""
    for sentence in cut(tokenizer, texts, most):
        print(f"Note: {where}: {sentence}")
