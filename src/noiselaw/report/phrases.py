"""How numbers are written for people: 1.2M parameters, 3.2×10¹⁵ FLOPs, 12 min."""

from collections.abc import Sequence
from datetime import datetime

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def superscript(exponent: int) -> str:
    return str(exponent).translate(_SUPERSCRIPTS)


def scientific(value: float, digits: int = 3) -> str:
    """3.2×10¹⁵ with `digits` significant digits, trailing zeros dropped; a mantissa of one is left out."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    power = f"10{superscript(int(exponent))}"
    return power if mantissa == "1" else f"{mantissa}×{power}"


def count(value: float, digits: int = 3) -> str:
    """1.23M: parameters, tokens, FLOPs per token."""
    rounded = float(f"{value:.{digits}g}")
    for unit, suffix in _COUNT_UNITS:
        if abs(rounded) >= unit:
            return f"{rounded / unit:.{digits}g}{suffix}"
    return f"{rounded:.{digits}g}"


def plain(value: float) -> str:
    """Four significant digits and a true minus sign."""
    return f"{value:.4g}".replace("-", "−")


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def signed(value: float, digits: int = 2, unit: str = "") -> str:
    """+0.31 or −0.31 (a true minus sign), never −0.00."""
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text}{unit}"


def signed_span(values: Sequence[float]) -> str:
    """−0.31 to +0.12 %: the least and the largest percentage, or one where both read the same."""
    ends = tuple(dict.fromkeys(signed(end) for end in (min(values), max(values))))
    return f"{' to '.join(ends)} %"


def moment(timestamp: str) -> str:
    """2026-03-01 10:11 UTC of an ISO 8601 date and time; anything else as it is."""
    try:
        when = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    return when.strftime("%Y-%m-%d %H:%M %Z").strip() if "T" in timestamp else timestamp


def percent(share: float, digits: int = 0) -> str:
    """A share of one as percent."""
    return f"{100 * share:.{digits}f} %"


def fixed(value: float, digits: int) -> str:
    """A number with a true minus sign and no plus."""
    return f"{value:.{digits}f}".replace("-", "−")


def span(low: float, high: float, digits: int) -> str:
    """0.012 to 0.034, or one number where both ends read the same."""
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
