"""Every package that an installation brings has one version, that of constraints.txt: today's tests hold tomorrow."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)")


def pins() -> dict[str, str]:
    """Version by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    matches = [PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(matches), [line for line, match in zip(lines, matches, strict=False) if not match]
    return {canonicalize_name(match[1]): match[2] for match in matches}


def asked_for() -> list[Requirement]:
    """What pyproject.toml names, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def needed(requirement: Requirement, known: dict[str, Requirement]) -> None:
    """Collect the requirement and what its installed package requires in turn."""
    name = canonicalize_name(requirement.name)
    if name in known and not requirement.extras:
        return
    known[name] = requirement
    try:
        texts = distribution(name).requires or []
    except PackageNotFoundError:  # an extra that is not installed here
        return
    for text in texts:
        inner = Requirement(text)
        extras = requirement.extras or {""}
        if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
            needed(inner, known)


def test_every_package_that_is_asked_for_is_pinned_to_a_version_that_will_do():
    pinned = pins()
    for requirement in asked_for():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_what_those_packages_need_in_turn_is_pinned_too():
    known: dict[str, Requirement] = {}
    for requirement in asked_for():
        needed(requirement, known)
    assert len(known) > 60
    unpinned = sorted(set(known) - set(pins()) - {"setuptools", "pip", "noiselaw"})
    assert unpinned == []


def test_no_name_is_pinned_twice():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [canonicalize_name(match[1]) for match in map(PIN.fullmatch, lines) if match]
    assert len(names) == len(set(names))
