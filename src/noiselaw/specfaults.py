"""What is wrong with a configuration, in words."""

import reprlib
from typing import Any

from pydantic import BaseModel

from noiselaw.words import nearest_name

MOST_LETTERS = 200
"""Of a key or a value in a message."""


def describe_fault(fault: Any, spec_class: type[BaseModel]) -> str:
    """One fault of pydantic's in one line: the field, the value, and for an unknown key the nearest valid one."""
    path, known = _resolve(spec_class, [str(part) for part in fault["loc"]])
    field = _cut(".".join(path))
    if fault["type"] == "extra_forbidden":
        return f"{field}: unknown key{nearest_name(path[-1], known)}; known here: {', '.join(sorted(known))}"
    if fault["type"] == "missing":
        return f"{field}: missing"
    if fault["type"] == "union_tag_invalid":
        tag, tags = fault["ctx"]["tag"], [expected.strip("'") for expected in fault["ctx"]["expected_tags"].split(", ")]
        return f"{field}.kind: unknown {_shown(tag)}{nearest_name(tag, tags)}; known: {', '.join(tags)}"
    if fault["type"] == "union_tag_not_found":
        return f"{field}.kind: missing"
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        return f"{field}: {fault['msg']} (got {_shown(fault['input'])}{_nearest_literal(fault)})"
    return f"{field}: {fault['msg'].removeprefix('Value error, ')} (got {_shown(fault['input'])})"


def _shown(value: Any) -> str:
    """A value in a message, cut short: YAML's aliases can make a small file stand for gigabytes."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, MOST_LETTERS, MOST_LETTERS
    return _cut(short.repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."


def _nearest_literal(fault: Any) -> str:
    known = fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return nearest_name(fault["input"], [name.strip("'") for name in known])


def _resolve(spec_class: type[BaseModel], location: list[str]) -> tuple[list[str], set[str]]:
    """The keys in a fault's `location`, without the tags that pydantic puts in where kinds fork, and the names of the
    settings valid beside the last of them.
    """
    path, classes, known = [], [spec_class], set[str]()
    for part in location:
        tagged = [cls for cls in classes if "kind" in cls.model_fields and cls.model_fields["kind"].default == part]
        if tagged and len(classes) > 1:
            classes = tagged
            continue
        known = {name for cls in classes for name in cls.model_fields}
        fields = [cls.model_fields[part].annotation for cls in classes if part in cls.model_fields]
        classes = [cls for annotation in fields for cls in spec_classes(annotation)] or classes
        path.append(part)
    return path, known


def spec_classes(annotation: Any) -> list[type[BaseModel]]:
    """The specs that a field of this annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for argument in getattr(annotation, "__args__", ()) for cls in spec_classes(argument)]
