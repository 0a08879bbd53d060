"""Every setting of a spec, listed: `noiselaw train --settings`, `noiselaw study run --settings`."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from noiselaw.specfaults import spec_classes
from noiselaw.specs import Spec


def describe_settings(spec_class: type[Spec]) -> str:
    """One line per setting: its key, its default ("required" where there is none) and what it means."""
    rows = _rows(spec_class, "")
    width = max(len(key) for key, _, _ in rows)
    return "\n".join(f"{key:<{width}}  {default:<13} {meaning}".rstrip() for key, default, meaning in rows)


def _rows(spec_class: type[BaseModel], prefix: str) -> list[tuple[str, str, str]]:
    rows = []
    for name, field in spec_class.model_fields.items():
        key = prefix + name
        groups = [] if _is_list(field) else spec_classes(field.annotation)
        if not groups:
            meaning = (field.description or " or ".join(_choices(field))).split("\n")[0]
            rows.append((key, _default(field), meaning))
        for group in groups:
            rows += _rows(group, f"{key}.")
    return rows


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list


def _choices(field: FieldInfo) -> tuple[str, ...]:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return choices if len(choices) > 1 else ()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "null" if value is None else str(value)
