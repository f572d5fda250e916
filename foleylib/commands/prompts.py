"""Prompts as they are given to `generate`: read from a file, and refused where no sound can be made of them."""

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from foleylib.evaluation.remarks import listed

MOST = 10_000  # clips at once, which are held in memory


def read_prompts(file: Path) -> list[str]:
    """The lines of a text file in UTF-8 that are not empty."""
    if not file.exists():
        raise ValueError(f"{file}: there is no such file of prompts")
    if not file.is_file():
        raise ValueError(f"{file}: is no file; give a text file with a prompt in each line")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is no UTF-8; save the file in that encoding") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); give a text file") from None
    if "\0" in text:
        raise ValueError(f"{file}: character {text.index(chr(0))} is NUL; give a text file in UTF-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_prompts(prompts: Sequence[str], number: int) -> None:
    """A ValueError where prompts, or the number of clips of each, are none."""
    if not all(isinstance(text, str) for text in prompts):
        raise ValueError("a prompt is no text: give a text, or a list of them")
    if not prompts or not all(text.strip() for text in prompts):
        raise ValueError("a prompt is empty: give a text, such as 'a dog bark'")
    if wrong := [text for text in prompts if any("\ud800" <= sign <= "\udfff" or sign == "\0" for sign in text)]:
        raise ValueError(f"the prompt {wrong[0][:40]!a} has signs that are no text: give it in UTF-8")
    if twice := [text for text, count in Counter(prompts).items() if count > 1]:
        told = listed(repr(text[:40]) for text in twice)
        raise ValueError(
            f"{told}: a prompt that is given twice makes the same clip again; ask for a larger number instead"
        )
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(f"number is {number}: ask for one clip at least")
    if number * len(prompts) > MOST:
        raise ValueError(f"number is {number}, of {len(prompts)} prompts: ask for {MOST} clips at once at most")
