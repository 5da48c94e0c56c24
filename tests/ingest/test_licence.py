from collections.abc import Sequence
from typing import Any

import pytest

from ingest.licence import LicencePolicy, attribution, class_of, url_of
from ingest.licence_claims import parse_claim
from ingest.refused import Refused
from tests.ingest.tiny import item


@pytest.mark.parametrize(
    ("claim", "spdx", "licence_class"),
    [
        ("CC0-1.0", "CC0-1.0", "cc0"),
        ("cc0", "CC0-1.0", "cc0"),
        ("CC0 Public Domain", "CC0-1.0", "cc0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/legalcode", "CC0-1.0", "cc0"),
        ("Creative Commons - Public Domain Dedication", "CC0-1.0", "cc0"),
        ("MIT", "MIT", "permissive"),
        ("mit license", "MIT", "permissive"),
        ("MIT OR Unlicense", "MIT OR Unlicense", "permissive"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception", "permissive"),
        ("https://spdx.org/licenses/MIT.html", "MIT", "permissive"),
        ("by", "CC-BY-4.0", "by"),
        ("CC Attribution", "CC-BY-4.0", "by"),
        ("CC-BY 4.0", "CC-BY-4.0", "by"),
        ("cc-by-3.0", "CC-BY-3.0", "by"),
        ("CC-BY-4.0 (http://creativecommons.org/licenses/by/4.0/)", "CC-BY-4.0", "by"),
        ("http://creativecommons.org/licenses/by/3.0/us/deed.en", "CC-BY-3.0-US", "by"),
        ("LicenseRef-CC-BY-TM", "LicenseRef-CC-BY-TM", "by"),
        ("MIT AND CC-BY-4.0", "MIT AND CC-BY-4.0", "by"),
        ("by-sa", "CC-BY-SA-4.0", "by-sa"),
        ("Creative Commons - Attribution - Share Alike", "CC-BY-SA-4.0", "by-sa"),
        ("CC Attribution-NonCommercial", "CC-BY-NC-4.0", "by-nc"),
        ("http://creativecommons.org/licenses/by-nc-sa/4.0/", "CC-BY-NC-SA-4.0", "by-nc-sa"),
        ("CC-BY-SA-4.0 AND CC-BY-NC-4.0", "CC-BY-SA-4.0 AND CC-BY-NC-4.0", "by-nc-sa"),
        ("CC Attribution-NoDerivs", "CC-BY-ND-4.0", "other"),
        ("Standard", "LicenseRef-Sketchfab-Standard", "other"),
        ("GPL-3.0", "GPL-3.0-only", "other"),
        ("LicenseRef-Ours", "LicenseRef-Ours", None),
        ("MIT AND LicenseRef-Ours", "MIT AND LicenseRef-Ours", None),
        ("MIT OR LicenseRef-Ours", "MIT OR LicenseRef-Ours", "permissive"),
    ],
)
def test_a_claim_becomes_spdx_and_a_class(claim: str, spdx: str, licence_class: str | None) -> None:
    assert parse_claim(claim) == spdx
    assert class_of(spdx) == licence_class


ADMITTED = {
    "open": ["CC0-1.0", "MIT", "CC-BY-4.0", "LicenseRef-CC-BY-TM", "CC-BY-SA-4.0"],
    "commercial_safe": ["CC0-1.0", "MIT", "CC-BY-4.0", "LicenseRef-CC-BY-TM"],
    "permissive_only": ["CC0-1.0", "MIT"],
    "research": [
        "CC0-1.0",
        "MIT",
        "CC-BY-4.0",
        "LicenseRef-CC-BY-TM",
        "CC-BY-SA-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0",
    ],
}
ALL = [*ADMITTED["research"], "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "GPL-3.0-only", "Editorial", "all rights reserved"]


@pytest.mark.parametrize("policy", ADMITTED)
def test_a_policy_admits_what_its_table_says(policy: Any) -> None:
    assert [spdx for spdx in ALL if admits(LicencePolicy(name=policy), spdx)] == ADMITTED[policy]


def test_custom_admits_what_is_named_and_nothing_else() -> None:
    policy = LicencePolicy(name="custom", allow=("CC-BY-4.0", "by-nc", "LicenseRef-Ours", "OFL-1.1"))
    admitted = ["CC-BY-4.0", "LicenseRef-CC-BY-TM", "CC-BY-NC-3.0", "LicenseRef-Ours", "OFL-1.1", "GPL-3.0 OR OFL-1.1"]
    assert all(admits(policy, spdx) for spdx in admitted)
    assert not any(admits(policy, spdx) for spdx in ("CC0-1.0", "MIT", "CC-BY-3.0", "LicenseRef-Theirs"))
    assert policy.admit(item("a.glb", spdx="LicenseRef-Ours")).licence_class == "other"


def test_nothing_admits_a_licence_without_derivatives() -> None:
    policy = LicencePolicy(name="research", allow=("other",))
    assert admits(policy, "GPL-3.0-only")
    assert not admits(policy, "CC-BY-ND-4.0")
    assert not admits(policy, "GPL-3.0-only AND CC-BY-NC-ND-4.0")


def test_of_alternatives_one_suffices_and_of_a_sum_all_are_needed() -> None:
    policy = LicencePolicy()
    assert admits(policy, "MIT OR CC-BY-NC-4.0")
    assert not admits(policy, "MIT AND CC-BY-NC-4.0")
    assert admits(policy, "CC-BY-ND-4.0 OR CC0-1.0")


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "custom"},
        {"name": "liberal"},
        {"allow": ("nonsense",)},
        {"allow": ("CC-BY-ND-4.0",)},
        {"allow": ("CC Attribution-NoDerivs",)},
        {"allow": ("MIT OR Zlib",)},
    ],
)
def test_a_bad_policy_is_an_error_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"policy|--allow"):
        LicencePolicy(**settings)


@pytest.mark.parametrize(
    ("claims", "reason", "words"),
    [
        ({"spdx": ""}, "licence_unknown", ["no licence is stated"]),
        ({"spdx": "my own"}, "licence_unknown", ["'my own'", "SPDX id"]),
        ({"spdx": "LicenseRef-X"}, "licence_unknown", ["LicenseRef-X", "--allow"]),
        (
            {"spdx": "CC-BY-NC-4.0"},
            "licence_not_allowed",
            ["policy 'open'", "--policy research", "--allow CC-BY-NC-4.0"],
        ),
        ({"spdx": "CC-BY-ND-4.0"}, "licence_not_allowed", ["nothing admits it", "ND"]),
        ({"spdx": "GPL-3.0"}, "licence_not_allowed", ["--allow GPL-3.0-only"]),
        ({"spdx": "CC0-1.0", "noai": True}, "noai", ["opted out"]),
        ({"spdx": "CC0-1.0", "tags": ("cat", "NoAI")}, "noai", ["opted out"]),
        (
            {"spdx": "CC-BY-4.0", "licence_url": "https://creativecommons.org/licenses/by-nc/4.0/"},
            "licence_unknown",
            ["make them agree"],
        ),
    ],
)
def test_a_refusal_says_why_and_what_would_help(claims: dict[str, Any], reason: str, words: Sequence[str]) -> None:
    with pytest.raises(Refused) as refusal:
        LicencePolicy().admit(item("a.glb", **claims))
    assert refusal.value.reason == reason
    assert all(word in refusal.value.detail for word in words)


def test_the_opt_out_can_be_passed_over_only_on_purpose() -> None:
    opted_out = item("a.glb", noai=True)
    assert LicencePolicy().admit(opted_out, honour_noai=False).licence_class == "cc0"


def test_a_licence_url_alone_is_a_claim() -> None:
    licence = LicencePolicy().admit(item("a.glb", spdx="", licence_url="http://creativecommons.org/licenses/by/4.0/"))
    assert (licence.spdx, licence.licence_class) == ("CC-BY-4.0", "by")


def test_the_credit_is_one_line_with_title_author_source_and_licence() -> None:
    fox = item("fox.glb", title="A\nFox", author="Pixel Mannen", spdx="CC-BY-4.0", source_url="https://example.org/fox")
    line = attribution(fox, LicencePolicy().admit(fox))
    assert line == (
        '"A Fox" by Pixel Mannen; https://example.org/fox; '
        "CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/); changed: rendered to images"
    )
    man = item("man.glb", spdx="LicenseRef-CC-BY-TM")
    assert "trademarks" in attribution(man, LicencePolicy().admit(man))


def test_every_admitted_single_licence_has_a_url() -> None:
    assert all(url_of(spdx).startswith("https://") for spdx in ADMITTED["research"])
    assert url_of("MIT OR Unlicense") == ""


def admits(policy: LicencePolicy, spdx: str) -> bool:
    try:
        policy.admit(item("a.glb", spdx=spdx))
    except Refused:
        return False
    return True
