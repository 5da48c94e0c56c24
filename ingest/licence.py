"""Licences: what a claim means as SPDX, which class it falls in, whether a policy admits it, and the line of credit."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from license_expression import (
    ExpressionError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    ParseError,
    get_license_index,
    get_spdx_licensing,
)

from ingest.refused import Refused
from pipeline.records import LicenceClass, SourceItem

PolicyName = Literal["open", "commercial_safe", "permissive_only", "research", "custom"]

POLICIES: dict[PolicyName, tuple[LicenceClass, ...]] = {
    "open": ("cc0", "permissive", "by", "by-sa"),
    "commercial_safe": ("cc0", "permissive", "by"),
    "permissive_only": ("cc0", "permissive"),
    "research": ("cc0", "permissive", "by", "by-sa", "by-nc", "by-nc-sa"),
    "custom": (),
}
"""policy: the licence classes it admits. Works without derivatives (ND) are in none: a render may be an adaptation."""

# From the fewest duties to the most; combining two licences carries the duties of both.
CLASSES: tuple[LicenceClass, ...] = get_args(LicenceClass)

# CC versions that differ by nothing we act on; claims without a version come from sites that use 4.0.
DEFAULT_CC_VERSION = "4.0"

PUBLIC_DOMAIN = frozenset({"CC0-1.0", "CC-PDDC", "CC-PDM-1.0", "PDDL-1.0"})


@dataclass(frozen=True)
class KnownRef:
    """What we know of a `LicenseRef-…`, which SPDX leaves to the reader."""

    licence_class: LicenceClass
    same_as: str = ""
    """The SPDX licence whose terms it carries."""
    url: str = ""
    note: str = ""


SKETCHFAB_TERMS = "https://sketchfab.com/licenses"
KNOWN_REFS: dict[str, KnownRef] = {
    # Khronos' sample assets: CC BY 4.0, with the trademarks shown on the models left out of the grant.
    "LicenseRef-CC-BY-TM": KnownRef("by", same_as="CC-BY-4.0", note="trademarks shown are not licensed"),
    "LicenseRef-Sketchfab-Standard": KnownRef("other", url=SKETCHFAB_TERMS),
    "LicenseRef-Sketchfab-Editorial": KnownRef("other", url=SKETCHFAB_TERMS),
    "LicenseRef-AllRightsReserved": KnownRef("other"),
}

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
_LONGEST_CLAIM = 300


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A claim, understood and admitted."""

    spdx: str
    """Normalised SPDX expression."""
    licence_class: LicenceClass
    url: str
    note: str
    """What the licence adds to its SPDX text; empty for most."""


@dataclass(frozen=True, kw_only=True)
class LicencePolicy:
    """Which licences are admitted.

    Raises:
        ValueError: `allow` names nothing we know, or a licence without derivatives; or `custom` allows nothing.
    """

    name: PolicyName = "open"
    allow: tuple[str, ...] = ()
    """SPDX ids (`CC-BY-NC-4.0`, `LicenseRef-Ours`) or classes (`by-sa`) admitted beside the policy's own."""

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ValueError(f"unknown licence policy {self.name!r}; choose from {', '.join(POLICIES)}")
        if self.name == "custom" and not self.allow:
            raise ValueError("licence policy 'custom' admits only what is allowed: add --allow, for example MIT")
        for entry in self.allow:
            if entry not in CLASSES and len(_leaves(parse_claim(entry))) != 1:
                raise ValueError(f"--allow {entry}: neither an SPDX licence id nor a class ({', '.join(CLASSES)})")
            if _is_no_derivatives(parse_claim(entry)):
                raise ValueError(f"--allow {entry}: a render may be an adaptation, so ND licences are never admitted")

    def admit(self, item: SourceItem, *, honour_noai: bool = True) -> Licence:
        """The licence of an item, if the policy admits it.

        Raises:
            Refused: `noai`, `licence_unknown` or `licence_not_allowed`.
        """
        if honour_noai and (item.noai or any(tag.lower() == "noai" for tag in item.tags)):
            raise Refused("noai", "its author opted out of use by generative AI")
        spdx = _claimed(item)
        licence_class = class_of(spdx)
        if not self._admits(spdx):
            if licence_class is None:
                raise _unknown(spdx)
            raise Refused("licence_not_allowed", self._why_not(spdx, licence_class), self._way_in(spdx, licence_class))
        note = "; ".join(
            KNOWN_REFS[leaf].note for leaf in _leaves(spdx) if leaf in KNOWN_REFS and KNOWN_REFS[leaf].note
        )
        return Licence(
            spdx=spdx, licence_class=licence_class or "other", url=item.licence_url or url_of(spdx), note=note
        )

    def _admits(self, spdx: str) -> bool:
        return _holds(_parsed(spdx), self._admits_leaf)

    def _admits_leaf(self, leaf: str) -> bool:
        if _is_no_derivatives(leaf):
            return False
        same_as = KNOWN_REFS[leaf].same_as if leaf in KNOWN_REFS else ""
        allowed = {parse_claim(entry) for entry in self.allow if entry not in CLASSES}
        classes = {*POLICIES[self.name], *self.allow}
        return leaf in allowed or (same_as and same_as in allowed) or _leaf_class(leaf) in classes

    def _why_not(self, spdx: str, licence_class: LicenceClass) -> str:
        admitted = ", ".join((*POLICIES[self.name], *self.allow))
        return f"{spdx} (class {licence_class}) is outside the policy {self.name!r}, which admits {admitted}"

    def _way_in(self, spdx: str, licence_class: LicenceClass) -> str:
        if any(_is_no_derivatives(leaf) for leaf in _leaves(spdx)):
            return "nothing admits it: a render may be an adaptation, which ND forbids"
        ways = [f"--policy {name}" for name, classes in POLICIES.items() if licence_class in classes]
        ways += [f"--allow {leaf}" for leaf in _leaves(spdx) if not self._admits_leaf(leaf)][:1]
        return f"{' or '.join(ways)} would admit it"


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
    return _from_url(claim) or _from_name(claim) or _from_expression(claim) or _from_words(claim)


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


def class_of(spdx: str) -> LicenceClass | None:
    """The class of a normalised expression; None if it is not known. Of an `OR`, the freest counts."""
    return _class_of_node(_parsed(spdx)) if spdx else None


def url_of(spdx: str) -> str:
    """Where the licence text stands; empty for an expression of several licences, or if not known."""
    leaves = _leaves(spdx)
    if len(leaves) != 1:
        return ""
    leaf = leaves[0]
    if leaf in KNOWN_REFS:
        return KNOWN_REFS[leaf].url or (url_of(KNOWN_REFS[leaf].same_as) if KNOWN_REFS[leaf].same_as else "")
    if leaf.startswith("LicenseRef-"):
        return ""
    creative = re.fullmatch(r"CC-(BY(?:-NC)?(?:-SA|-ND)?)-(\d\.\d)(?:-([A-Z]+))?", leaf)
    if creative:
        place = f"{creative[3].lower()}/" if creative[3] else ""
        return f"https://creativecommons.org/licenses/{creative[1].lower()}/{creative[2]}/{place}"
    if leaf == "CC0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    return f"https://spdx.org/licenses/{leaf}.html"


def attribution(item: SourceItem, licence: Licence) -> str:
    """One line of credit: title, author, source, licence, and that it was changed."""
    by = f" by {item.author}" if item.author else ""
    parts = [f'"{item.title or item.name}"{by}']
    parts += [item.source_url] if item.source_url else []
    parts += [f"{licence.spdx} ({licence.url})" if licence.url else licence.spdx]
    parts += [licence.note] if licence.note else []
    parts += ["changed: rendered to images"]
    return " ".join("; ".join(parts).split())


def _claimed(item: SourceItem) -> str:
    stated, linked = parse_claim(item.spdx), parse_claim(item.licence_url)
    if stated and linked and class_of(stated) != class_of(linked):
        raise Refused(
            "licence_unknown",
            f"it claims {item.spdx!r}, and its licence URL says {linked}",
            "make them agree",
        )
    spdx = stated or linked or ("" if item.spdx else parse_claim(item.licence_text))
    if not spdx:
        raise _unknown(item.spdx)
    return spdx


def _unknown(claim: str) -> Refused:
    if not claim:
        return Refused("licence_unknown", "no licence is stated")
    if claim.startswith("LicenseRef-"):
        advice = f"pass --allow {claim} if you hold the rights, or state the SPDX licence it stands for"
        return Refused("licence_unknown", f"we do not know what {claim} permits", advice)
    return Refused(
        "licence_unknown", f"{claim[:100]!r} is not a licence we know", "state an SPDX id, such as CC-BY-4.0"
    )


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
        parsed = _licensing().parse(claim)
    except (ExpressionError, ParseError):
        return ""
    if parsed is None:
        return ""
    unknown = _licensing().unknown_license_keys(parsed)
    if not all(_LICENCE_REF.fullmatch(key) for key in unknown):
        return ""
    return str(parsed.render())


@functools.cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@functools.cache
def _categories() -> dict[str, str]:
    """SPDX id to ScanCode's category, which the library carries."""
    return {entry["spdx_license_key"]: entry["category"] for entry in get_license_index() if entry["spdx_license_key"]}


def _parsed(spdx: str) -> Any:
    return _licensing().parse(spdx)


def _leaves(spdx: str) -> list[str]:
    if not spdx:
        return []
    return [_leaf_id(symbol) for symbol in _licensing().license_symbols(_parsed(spdx), decompose=False)]


def _leaf_id(symbol: Any) -> str:
    # An exception only ever widens what its licence permits.
    return str(symbol.license_symbol.key if isinstance(symbol, LicenseWithExceptionSymbol) else symbol.key)


def _is_no_derivatives(spdx: str) -> bool:
    return "ND" in spdx.split("-")


def _holds(node: Any, test: Any) -> bool:
    """Whether the test holds for an expression, given how it judges each licence."""
    if isinstance(node, LicenseSymbol | LicenseWithExceptionSymbol):
        return bool(test(_leaf_id(node)))
    results = [_holds(part, test) for part in node.args]
    return any(results) if isinstance(node, _licensing().OR) else all(results)


def _class_of_node(node: Any) -> LicenceClass | None:
    if isinstance(node, LicenseSymbol | LicenseWithExceptionSymbol):
        return _leaf_class(_leaf_id(node))
    classes = [_class_of_node(part) for part in node.args]
    if isinstance(node, _licensing().OR):
        return min((c for c in classes if c is not None), key=CLASSES.index, default=None)
    return None if None in classes else _combined(c for c in classes if c is not None)


def _combined(classes: Iterable[LicenceClass]) -> LicenceClass:
    found = set(classes)
    if {"by-sa", "by-nc"} <= found and "other" not in found:
        return "by-nc-sa"
    return max(found, key=CLASSES.index)


def _leaf_class(leaf: str) -> LicenceClass | None:
    if leaf in KNOWN_REFS:
        return KNOWN_REFS[leaf].licence_class
    if leaf in PUBLIC_DOMAIN:
        return "cc0"
    terms = re.match(r"CC-BY((?:-NC|-SA|-ND)*)-\d", leaf)
    if terms:
        by_terms: dict[str, LicenceClass] = {"": "by", "-SA": "by-sa", "-NC": "by-nc", "-NC-SA": "by-nc-sa"}
        return by_terms.get(terms[1], "other")
    if leaf == "ODC-By-1.0":
        return "by"
    category = _categories().get(leaf)
    if category is None or leaf.startswith("LicenseRef-"):
        return None
    return "permissive" if category in ("Permissive", "Public Domain") else "other"
