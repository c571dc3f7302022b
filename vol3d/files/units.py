"""Units of length as files spell them."""

import re

_MM = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "micron": 1e-3, "nm": 1e-6, "angstrom": 1e-7, "inch": 25.4}
_PREFIXES = {"": "", "centi": "c", "milli": "m", "micro": "u", "nano": "n"}


def millimetres_of(unit: str) -> float | None:
    """How many millimetres a unit is, whatever its case, its plural or its way to write µ; None for another."""
    plain = re.sub(r"^(µ|μ|\\u00b5|&#181;|&#xb5;)", "u", unit.strip().lower())
    plain = plain[:-1] if len(plain) > 2 and plain.endswith("s") else plain
    word = re.fullmatch(r"(\w*)met(?:er|re)", plain)
    return _MM.get(_PREFIXES.get(word[1], "?") + "m" if word else plain)
