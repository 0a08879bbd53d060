"""Settings from a file, changed by --key value on the command line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml

from noiselaw.specs import Spec, SpecError, nearest_name, parse_spec, read_mapping

S = TypeVar("S", bound=Spec)


def read_with_overrides(spec_class: type[S], path: Path, words: list[str], options: tuple[str, ...]) -> S:
    """The spec in the YAML or JSON file `path`, with the settings in `words` in place of its own.

    `options` are what the command takes beside settings: a misspelt one ends up here too. Raises SpecError naming the
    file, setting or option at fault.
    """
    _check_options(words, [*spec_class.model_fields, *options])
    values = read_mapping(path)
    for key, value in parse_overrides(words):
        set_dotted(values, key, value)
    return parse_spec(spec_class, values, str(path) if not words else f"{path} and the command line")


def parse_overrides(words: list[str]) -> list[tuple[str, Any]]:
    """`["--a.b", "1", "--c=x"]` -> `[("a.b", 1), ("c", "x")]`; values are read as YAML scalars or lists.

    Raises SpecError for a word that is not an option, or an option without a value.
    """
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise SpecError(f"command line: unexpected {word!r}; settings are given as --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise SpecError(f"command line: --{key} needs a value, as in --{key} true")
            value = rest.pop(0)
        try:
            pairs.append((key, yaml.safe_load(value)))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SpecError(f"command line: --{key}: {value!r} is not a value ({error})") from None
    return pairs


def set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `values["a"]["b"] = value` for key "a.b"; dashes count as underscores."""
    *parents, last = key.replace("-", "_").split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SpecError(
                f"{key}: {parent} is {child!r}, not a group of settings; give {parent} whole, as in "
                f"'{{{last}: {value}}}'"
            )
        values = child
    values[last] = value


def _check_options(words: list[str], known: list[str]) -> None:
    """Raises SpecError for an option that is neither a setting nor the command's own, with the nearest that is."""
    for word in words:
        name = word.removeprefix("--").partition("=")[0].partition(".")[0].replace("-", "_")
        if word.startswith("--") and name not in known:
            raise SpecError(f"command line: unknown option --{name}{nearest_name(name, known)}")
