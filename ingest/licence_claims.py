"""What somebody says of a licence, as an SPDX expression: ids, URLs, plain words, slugs of asset sites."""

import functools
import re
import threading

from license_expression import ExpressionError, Licensing, ParseError, get_spdx_licensing

# CC versions that differ by nothing we act on; claims without a version come from sites that use 4.0.
DEFAULT_CC_VERSION = "4.0"

NAMES: dict[str, str] = {
    "cc0": "CC0-1.0",
    "public domain": "CC-PDDC",
    "public domain mark": "CC-PDM-1.0",
    "mit license": "MIT",
    "the mit license": "MIT",
    "expat": "MIT",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "the unlicense": "Unlicense",
    "isc license": "ISC",
    "zlib license": "Zlib",
    "bsd 2 clause simplified license": "BSD-2-Clause",
    "bsd 3 clause new or revised license": "BSD-3-Clause",
    "gnu gpl": "GPL-2.0-or-later",
    "gnu general public license v2.0": "GPL-2.0-only",
    "gnu general public license v3.0": "GPL-3.0-only",
    "st": "LicenseRef-Sketchfab-Standard",
    "standard": "LicenseRef-Sketchfab-Standard",
    "free st": "LicenseRef-Sketchfab-Standard",
    "free standard": "LicenseRef-Sketchfab-Standard",
    "ed": "LicenseRef-Sketchfab-Editorial",
    "editorial": "LicenseRef-Sketchfab-Editorial",
    "all rights reserved": "LicenseRef-AllRightsReserved",
}
"""Names in plain words, lower case, punctuation as spaces: GitHub's, Sketchfab's slugs and labels, Thingiverse's."""

_LICENCE_REF = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_CC_URL = re.compile(
    r"creativecommons\.org/(?P<kind>licenses|publicdomain)/(?P<terms>[a-z0-9-]+)/(?P<version>\d\.\d)"
    r"(?:/(?P<place>[a-z]{2,4})(?=/|$|[\s)]))?",
    re.IGNORECASE,
)
_SPDX_URL = re.compile(r"(?:spdx\.org/licenses|opensource\.org/licenses?)/([A-Za-z0-9.+-]+?)(?:\.html|\.json)?/?$")
_CC_WORDS = {
    "by": "by", "attribution": "by", "nc": "nc", "noncommercial": "nc", "sa": "sa", "sharealike": "sa",
    "nd": "nd", "noderivs": "nd", "noderivatives": "nd", "cc0": "zero", "zero": "zero", "dedication": "zero",
    "cc": "", "creative": "", "commons": "", "public": "", "domain": "", "license": "", "licence": "", "universal": "",
    "international": "", "intl": "", "unported": "", "generic": "", "the": "", "deed": "",
}  # fmt: skip
_READING = threading.Lock()
_LONGEST_CLAIM = 300


@functools.lru_cache(maxsize=4096)
def parse_claim(claim: str) -> str:
    """The SPDX expression that a claim means, or an empty string.

    Understood are SPDX ids and expressions, Creative Commons and SPDX URLs, names in words (`CC Attribution`),
    Sketchfab's slugs (`by-nc`), and an id with its URL in brackets, as Sketchfab writes into its glTF files.
    """
    claim = " ".join(claim.split()).strip("\"'# ")
    if not claim or len(claim) > _LONGEST_CLAIM:
        return ""
    bracketed = re.fullmatch(r"(.+?) \((https?://[^)]+)\)", claim)
    if bracketed:
        claim = bracketed[1]
    if "://" in claim or "creativecommons.org/" in claim:
        return "" if " " in claim else _from_url(claim)
    return _from_name(claim) or _from_expression(claim) or _from_words(claim)


def find_claim(text: str) -> str:
    """The one licence that a longer text speaks of, as an SPDX expression; empty if it names none or several.

    Seen as claims: `SPDX-License-Identifier:` lines, else Creative Commons URLs and ids (`CC-BY 4.0`), else a first
    line that is a licence's name.
    """
    # REUSE-IgnoreStart
    tagged = re.findall(r"SPDX-License-Identifier:\s*([^\n*<]+)", text)
    # REUSE-IgnoreEnd
    if tagged:
        found = [parse_claim(tag) for tag in tagged]
    else:
        found = [_from_url(match[0]) for match in _CC_URL.finditer(text)]
        found += [
            _from_words(match[0])
            for match in re.finditer(r"\bCC[- ]?(?:0|BY(?:[- ](?:NC|SA|ND))*(?:[- ]\d\.\d)?)(?![\w.-]*\w)", text)
        ]
        first_line = next((line for line in text.splitlines() if line.strip()), "")
        found = found or [parse_claim(first_line)]
    known = {spdx for spdx in found if spdx}
    return known.pop() if len(known) == 1 else ""


def licensing() -> Licensing:
    """The SPDX licences and their grammar."""
    with _READING:  # of threads that begin together, one reads them for all
        return _licensing()


@functools.cache
def _licensing() -> Licensing:
    """Takes 0.3 s, with the tables that the first parsing makes."""
    found = get_spdx_licensing()
    found.parse("MIT")
    return found


def _from_url(text: str) -> str:
    match = _CC_URL.search(text)
    if match:
        terms, version = match["terms"].lower(), match["version"]
        if match["kind"].lower() == "publicdomain":
            return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}.get(terms, "")
        plain = f"CC-{terms.upper()}-{version}"
        ported = f"{plain}-{match['place'].upper()}" if match["place"] else plain
        return _from_expression(ported) or _from_expression(plain)
    spdx = _SPDX_URL.search(text)
    return _from_expression(spdx[1]) if spdx else ""


def _from_name(claim: str) -> str:
    return NAMES.get(re.sub(r"[^a-z0-9.]+", " ", claim.lower()).strip(), "")


def _from_words(claim: str) -> str:
    """Creative Commons in words. Every word must be known, so that `CC BY but ask me first` is not."""
    text = re.sub(r"[^a-z0-9.]+", " ", claim.lower())
    text = re.sub(r"\bnon commercial\b", "nc", text)
    text = re.sub(r"\bshare alike\b", "sa", text)
    text = re.sub(r"\bno (derivatives|derivs|derivative works)\b", "nd", text)
    terms: set[str] = set()
    version = DEFAULT_CC_VERSION
    for word in text.split():
        number = re.fullmatch(r"v?(\d\.\d)", word)
        if number:
            version = number[1]
        elif word in _CC_WORDS:
            terms.add(_CC_WORDS[word])
        else:
            return ""
    terms.discard("")
    if terms == {"zero"}:
        return "CC0-1.0"
    if "by" not in terms or "zero" in terms:
        return ""
    return _from_expression("-".join(["CC", *(t.upper() for t in ("by", "nc", "sa", "nd") if t in terms), version]))


def _from_expression(claim: str) -> str:
    try:
        parsed = licensing().parse(claim)
    except (ExpressionError, ParseError, AssertionError, IndexError):  # the last two for "(AND 0" and "()"
        return ""
    if parsed is None:
        return ""
    unknown = licensing().unknown_license_keys(parsed)
    if not all(_LICENCE_REF.fullmatch(key) for key in unknown):
        return ""
    return str(parsed.render())
