"""Fitted laws as JSON and back: the one object that scripts, reports and plans read."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from noiselaw.laws.doubts import is_allocating, surface_laws
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.isoflop import IsoflopFit, Optimum, SizePoint
from noiselaw.laws.lawfits import finite, finites, law_of, law_records
from noiselaw.laws.surface import Certificate, SurfaceFit
from noiselaw.laws.table import RunTable

METHOD = "isoflop"


def law_object(method: str, table: RunTable, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `noiselaw laws METHOD --json` prints of a table; what is odd about it is flagged in every group."""
    return {
        "method": method,
        "convention": table.convention,
        "groups": {name: {**group, "flags": [*table.flags, *group["flags"]]} for name, group in groups.items()},
    }


def to_json(fits: Mapping[str, IsoflopFit], convention: str) -> dict[str, Any]:
    """{"method", "convention", "groups": {group: {"laws", "parameters", "flags", "optima", ...}}}, lists and numbers.

    `convention` names how FLOPs per token were counted (`noiselaw.accounting.FLOPS_CONVENTIONS`).
    """
    return {
        "method": METHOD,
        "convention": convention,
        "groups": {group: _group_record(fit) for group, fit in fits.items()},
    }


def from_json(record: Mapping[str, Any]) -> dict[str, IsoflopFit]:
    """The exact inverse of `to_json`. Raises ValueError naming what is missing or of another method."""
    if record.get("method") != METHOD:
        raise ValueError(f"laws of method {record.get('method')!r}; this needs {METHOD!r}: fit the table again")
    try:
        return {group: _group_fit(group, value) for group, value in record["groups"].items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"damaged laws: {type(error).__name__} {error}; fit the table again") from error


def _group_record(fit: IsoflopFit) -> dict[str, Any]:
    record: dict[str, Any] = {
        "laws": law_records(fit.laws),
        "flags": list(fit.flags),
        "scatter": fit.scatter,
        "degrees_of_freedom": fit.degrees_of_freedom,
        "optima": [_optimum_record(optimum) for optimum in fit.optima],
    }
    if fit.surface is not None:
        record |= surface_record(fit.surface)
        if is_allocating(fit.surface):
            record["surface"] = _surface_laws(fit)
    return record


def _optimum_record(optimum: Optimum) -> dict[str, Any]:
    names = ("budget", "params", "tokens", "flops_per_token", "loss", "kept")
    return {
        **{name: getattr(optimum, name) for name in names},
        "flags": list(optimum.flags),
        "curve": {"log_params_coefficients": list(optimum.log_params_coefficients)},
        "points": [
            {"run": point.run, "params": point.params, "flops_per_token": point.flops_per_token, "loss": point.loss}
            for point in optimum.points
        ],
    }


COVARIANCE_OF = "log A, alpha, log B, beta, log E; per unit variance of a shift of each run's log loss"


def surface_record(surface: SurfaceFit) -> dict[str, Any]:
    """The keys parameters, parameters_covariance (and what it is of) and certificate."""
    certificate = surface.certificate
    return {
        "parameters": {name: getattr(surface, name) for name in ("E", "A", "alpha", "B", "beta")},
        "parameters_covariance": [list(row) for row in surface.covariance],
        "parameters_covariance_of": COVARIANCE_OF,
        "certificate": {
            "objective": certificate.objective,
            "gradient_norm": certificate.gradient_norm,
            "agreeing_starts": certificate.agreeing_starts,
            "num_starts": certificate.num_starts,
            "parameter_spread": certificate.parameter_spread,
            "active_bounds": list(certificate.active_bounds),
        },
    }


def _surface_laws(fit: IsoflopFit) -> dict[str, Any]:
    """What the surface says in place of the laws; L* = offset + coefficient C^exponent."""
    assert fit.surface is not None
    points = [point for optimum in fit.optima for point in optimum.points]
    params = PowerLaw.fit([point.flops_per_token for point in points], [point.params for point in points])
    laws = surface_laws(fit.surface, params)
    record = {name: {"coefficient": law.coefficient, "exponent": law.exponent} for name, law in laws.items()}
    record["loss"]["offset"] = fit.surface.E
    return record


def _group_fit(group: str, record: Mapping[str, Any]) -> IsoflopFit:
    return IsoflopFit(
        group=group,
        laws={name: law_of(law) for name, law in record["laws"].items()},
        optima=tuple(_optimum(optimum) for optimum in record["optima"]),
        flags=tuple(record["flags"]),
        scatter=None if record["scatter"] is None else finite(record["scatter"]),
        degrees_of_freedom=int(finite(record["degrees_of_freedom"])),
        surface=surface_of(record) if "parameters" in record else None,
    )


def _optimum(record: Mapping[str, Any]) -> Optimum:
    return Optimum(
        **{name: finite(record[name]) for name in ("budget", "params", "tokens", "flops_per_token", "loss")},
        kept=bool(record["kept"]),
        flags=tuple(record["flags"]),
        log_params_coefficients=finites(record["curve"]["log_params_coefficients"], 3),
        points=tuple(
            SizePoint(str(point["run"]), *(finite(point[name]) for name in ("params", "flops_per_token", "loss")))
            for point in record["points"]
        ),
    )


def surface_of(record: Mapping[str, Any]) -> SurfaceFit:
    """The inverse; a certificate may say more."""
    known = {field.name: record["certificate"].get(field.name) for field in fields(Certificate)}
    certificate = {**known, "active_bounds": tuple(known["active_bounds"])}
    return SurfaceFit(
        **{name: finite(value) for name, value in record["parameters"].items()},
        certificate=Certificate(**certificate),
        covariance=tuple(finites(row, 5) for row in record["parameters_covariance"]),
    )
