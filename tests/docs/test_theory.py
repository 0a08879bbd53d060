"""docs/theory.md: every numbered equation names tests that exist, and some are computed here as they stand there."""

import ast
import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from own_noise import BoundedMixing
from torch.nn.functional import softplus

from noiselaw.noise import HybridMixing, NoiseProcess, bound_weight, divergences
from noiselaw.noise.levels import SPACINGS
from noiselaw.sampling import GRIDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "theory.md").read_text("utf-8")
EQUATIONS = re.findall(r"^### \((\d+)\) .*?$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_of_tests(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_equations_are_numbered_in_order():
    assert [int(number) for number, _ in EQUATIONS] == list(range(1, len(EQUATIONS) + 1))
    assert len(EQUATIONS) >= 37
    assert all("$$" in text for _, text in EQUATIONS)


@pytest.mark.parametrize(("number", "text"), EQUATIONS, ids=[number for number, _ in EQUATIONS])
def test_every_equation_is_held_by_tests_that_exist(number, text):
    (held_by,) = re.findall(r"^Held by (.*?)\.\n$", text + "\n", re.MULTILINE | re.DOTALL)
    named = TEST.findall(held_by)
    assert named
    assert held_by.count("`") == 2 * len(named)
    assert [name for file, name in named if name not in names_of_tests(file)] == []


def test_equations_that_docstrings_cite_exist():
    cited = {
        int(number)
        for path in (ROOT / "src").rglob("*.py")
        for numbers in re.findall(r"theory\.md eq\. ((?:\d+(?:, | to | and )?)+)", path.read_text("utf-8"))
        for number in re.findall(r"\d+", numbers)
    }
    assert len(cited) > 10
    assert max(cited) <= len(EQUATIONS)


MIXINGS = {
    "low-uniform": HybridMixing(7, 3, -2.0),
    "half-scale": HybridMixing(7, 3, 1.0, 0.5),
    "uniform": HybridMixing(7, 3, math.inf),
    "own": BoundedMixing(7, 3, reference=torch.tensor([0.3, 0.2, 0.1, 0.0, 0.2, 0.1, 0.1])),
}


@pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS.keys())
@pytest.mark.parametrize("noisy", [3, 5, 0], ids=["mask", "kept", "swapped"])
@pytest.mark.parametrize("level", [-6.0, -0.5, 4.0])
def test_closed_forms_are_the_definitions(mixing, noisy, level):
    """Eq. 17 to 22, typed from the page, against eq. 9 to 11 and autograd."""
    x, z, m = torch.tensor(5), torch.tensor(noisy), 3
    log_snr = torch.tensor(level, dtype=torch.float64)
    logits = torch.randn(7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits = logits.masked_fill(torch.arange(7) == m, -math.inf).requires_grad_()
    probs = logits.softmax(0)
    terms = divergences(mixing, log_snr, z, x, torch.where(torch.arange(7) == m, 0.0, probs))
    weight = bound_weight(mixing, log_snr, z, x)
    (by_autograd,) = torch.autograd.grad(weight * terms.total, logits)

    others = torch.arange(7) != m
    s, rho = probs.detach()[others], mixing.reference_probs()[others]
    alpha, u, ell = torch.sigmoid(log_snr), mixing.uniform_share(log_snr), mixing.share_logit(log_snr)
    c = torch.sigmoid(-log_snr) * u * rho
    is_x, is_z = (torch.arange(7) == x)[others], (torch.arange(7) == z)[others]
    kappa = log_snr + softplus(-ell) - rho.log()
    assert torch.allclose(kappa, (alpha / c).log(), rtol=1e-12)
    ratios, g = (kappa.exp() * s).log1p(), torch.sigmoid(kappa + s.log())
    p = alpha * s + c
    assert torch.allclose(ratios, (p / c).log(), rtol=1e-12)
    assert torch.allclose(g, alpha * s / p, rtol=1e-12)
    d = softplus((1 - s[is_x]).log() - ((-kappa[is_x]).exp() + s[is_x]).log()).squeeze()
    assert torch.allclose(d, ((alpha + c[is_x]) / p[is_x]).log().squeeze(), rtol=1e-10)
    kl = alpha * d + c[is_x].squeeze() * softplus(kappa[is_x]).squeeze() - (c * ratios).sum()
    assert torch.allclose(kl, terms.kl, rtol=1e-10, atol=1e-14)
    closed = {3: torch.zeros_like(d), 5: d.expm1() - d}.get(noisy, (ratios[is_z] - g[is_z]).sum())
    assert torch.allclose(closed, terms.itakura_saito, rtol=1e-9, atol=1e-13)
    at_x = -alpha * g[is_x].squeeze() - (noisy == 5) * d.expm1() * g[is_x].squeeze()
    at_z = g[is_z].square().sum() * (noisy == 0)
    spread = (c * g).sum() - at_x - at_z
    gradient = weight * (spread * s - c * g + at_x * is_x + at_z * is_z)
    assert torch.allclose(gradient, by_autograd[others], rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_their_formula(name):
    """Eq. 33."""
    process, num = NoiseProcess(HybridMixing(5, 4, 0.0), -7.0, 6.0), 9
    place = torch.arange(num, dtype=torch.float64) / num
    shape = {"linear": place, "cosine": (1 - torch.cos(math.pi * place)) / 2}[name]
    low, high = torch.sigmoid(torch.tensor([-7.0, 6.0], dtype=torch.float64))
    levels = GRIDS[name](process, num)
    assert len(levels) == num
    assert torch.allclose(torch.sigmoid(levels), low + (high - low) * shape, rtol=1e-9)


@pytest.mark.parametrize("name", SPACINGS)
def test_levels_are_a_change_of_variable(name):
    """Eq. 35: the same integral by every spacing, for a function with a known one."""
    process = NoiseProcess(HybridMixing(5, 4, 0.0), -7.0, 6.0)
    num = 200_000
    levels = SPACINGS[name](process, (torch.arange(num, dtype=torch.float64) + 0.5) / num)
    found = (levels.weight * torch.sigmoid(levels.log_snr) * torch.sigmoid(-levels.log_snr)).mean()
    low, high = torch.sigmoid(torch.tensor([-7.0, 6.0], dtype=torch.float64))
    assert torch.isclose(found, high - low, rtol=1e-6)
