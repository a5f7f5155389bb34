"""The special tokens that a tokenizer puts around one text and around two."""

from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.models.conversion.tokenizer_file import (
    EnclosingTokens,
    Template,
    TemplateStep,
    TokenizerFile,
)


@dataclass(frozen=True)
class Enclosing:
    """Hold token ids; of two texts, the second has the token type `second_type`."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    second_type: int = 0


def read_enclosing(tokenizer: TokenizerFile) -> Enclosing:
    """Return what the tokenizer puts around texts; raise ValueError saying what can't be done."""
    steps = tokenizer.enclosing
    if not steps:
        return Enclosing()
    if len(steps) > 1:
        raise ValueError("several post-processors put special tokens around texts")
    [step] = steps
    return _of_template(step) if isinstance(step, Template) else _of_pair(step)


def _of_pair(step: EnclosingTokens) -> Enclosing:
    first, last = step.cls[1], step.sep[1]
    if step.type == "RobertaProcessing":
        return Enclosing((first,), (last,), (last, last))
    return Enclosing((first,), (last,), (last,), second_type=1)


def _of_template(template: Template) -> Enclosing:
    before, after = _around(template, template.single, "A")
    lead, rest = _around(template, template.pair, "A")
    start = _place(template.pair, "B")
    if lead != before or start < 0:
        raise ValueError("the template of pairs doesn't begin as that of single texts")
    last = len(template.pair) - start - 1
    between = rest[: len(rest) - last]
    if rest[len(between) :] != after and between:
        raise ValueError("the template of pairs doesn't end as that of single texts")
    token = template.pair[start].Sequence
    return Enclosing(before, after, between, token.type_id if token else 0)


def _around(
    template: Template, steps: Sequence[TemplateStep], text: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the special tokens before and after `text`."""
    place = _place(steps, text)
    if place < 0:
        raise ValueError("a template leaves the text out")
    return _ids(template, steps[:place]), _ids(template, steps[place + 1 :])


def _place(steps: Sequence[TemplateStep], text: str) -> int:
    names = [step.Sequence.id if step.Sequence else None for step in steps]
    return names.index(text) if text in names else -1


def _ids(template: Template, steps: Sequence[TemplateStep]) -> tuple[int, ...]:
    ids: list[int] = []
    for step in steps:
        if step.SpecialToken:
            if step.SpecialToken.id not in template.special_tokens:
                raise ValueError(f"a template names the unknown token {step.SpecialToken.id}")
            ids += template.special_tokens[step.SpecialToken.id].ids
    return tuple(ids)
