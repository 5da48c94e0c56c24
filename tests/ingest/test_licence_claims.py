import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.licence import class_of, url_of
from ingest.licence_claims import find_claim, parse_claim


@pytest.mark.parametrize(
    "claim",
    [
        "",
        "free",
        "CC BY but ask me first",
        "MIT, textures https://creativecommons.org/licenses/by/4.0/",
        "MIT AND",
        "(",
        "unknown",
        "2020 John",
        "x" * 1000,
        "CC-BY-4.0,MIT",
    ],
)
def test_what_is_not_a_licence_stays_unknown(claim: str) -> None:
    assert parse_claim(claim) == ""


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("CC-BY 4.0 Model by PixelMannen https://opengameart.org/content/fox", "CC-BY-4.0"),
        ("# MIT License\n\nCopyright (c) 2020 somebody", "MIT"),
        ("SPDX-License-Identifier: CC0-1.0\nMIT License", "CC0-1.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("models: CC-BY 4.0, textures: CC-BY-NC 4.0", ""),
        ("Copyright 2020", ""),
    ],
)
def test_a_text_gives_its_one_licence(text: str, spdx: str) -> None:
    assert find_claim(text) == spdx


WORDS = st.lists(st.sampled_from(["MIT", "AND", "OR", "WITH", "(", ")", "CC-BY-4.0", "+", "by", "4.0"]), max_size=8)


@example("()")
@example("(AND 0")
@given(st.text(max_size=60) | WORDS.map(" ".join))
def test_any_text_is_a_claim_that_can_be_classified_or_none(text: str) -> None:
    spdx = parse_claim(text)
    assert parse_claim(spdx) == spdx
    class_of(spdx)
    url_of(spdx)
    find_claim(text)
