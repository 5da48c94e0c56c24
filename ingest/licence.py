"""Licences: which class one falls in, whether a policy admits it, and the line of credit."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from license_expression import LicenseSymbol, LicenseWithExceptionSymbol, get_license_index

from ingest.licence_claims import licensing, parse_claim
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

    @property
    def classes(self) -> tuple[LicenceClass, ...]:
        """The classes of all that may be admitted, in the order of `CLASSES`."""
        allowed = {entry if entry in CLASSES else class_of(parse_claim(entry)) or "other" for entry in self.allow}
        return tuple(name for name in CLASSES if name in {*POLICIES[self.name], *allowed})

    def admit(self, item: SourceItem, *, honour_noai: bool = True) -> Licence:
        """The licence of an item, if the policy admits it.

        Raises:
            Refused: `noai`, `licence_unknown` or `licence_not_allowed`.
        """
        if honour_noai and (item.noai or any(tag.lower() == "noai" for tag in item.tags)):
            raise Refused("noai", "its author opted out of use by generative AI")
        spdx = claimed(item)
        licence_class = class_of(spdx)
        if not self._admits(spdx):
            if licence_class is None:
                raise _unknown(spdx)
            raise Refused("licence_not_allowed", self._why_not(spdx, licence_class), self._way_in(spdx, licence_class))
        return Licence(
            spdx=spdx,
            licence_class=licence_class or "other",
            url=item.licence_url or url_of(spdx),
            note=note_of(spdx),
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


def note_of(spdx: str) -> str:
    """What the licences of a normalised expression add to their SPDX texts; empty for most."""
    return "; ".join(KNOWN_REFS[leaf].note for leaf in _leaves(spdx) if leaf in KNOWN_REFS and KNOWN_REFS[leaf].note)


def claimed(item: SourceItem) -> str:
    """The normalised expression that an item claims.

    Raises:
        Refused: `licence_unknown`: none, one that we cannot read, or two that contradict each other.
    """
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


@functools.cache
def _categories() -> dict[str, str]:
    """SPDX id to ScanCode's category, which the library carries."""
    return {entry["spdx_license_key"]: entry["category"] for entry in get_license_index() if entry["spdx_license_key"]}


def _parsed(spdx: str) -> Any:
    return licensing().parse(spdx)


def _leaves(spdx: str) -> list[str]:
    if not spdx:
        return []
    return [_leaf_id(symbol) for symbol in licensing().license_symbols(_parsed(spdx), decompose=False)]


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
    return any(results) if isinstance(node, licensing().OR) else all(results)


def _class_of_node(node: Any) -> LicenceClass | None:
    if isinstance(node, LicenseSymbol | LicenseWithExceptionSymbol):
        return _leaf_class(_leaf_id(node))
    classes = [_class_of_node(part) for part in node.args]
    if isinstance(node, licensing().OR):
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
