"""Captions in several phrasings, with the right article, and the word for the side an object is seen from."""

from __future__ import annotations

from collections.abc import Sequence

# Words for a material, before the colour ("a shiny red mug") and, for metal, also after it ("a red metal mug").
MATERIAL_WORDS: dict[str, tuple[str, ...]] = {
    "matte": ("",),
    "glossy": ("shiny", "glossy"),
    "metal": ("metal", "metallic"),
}
COLORED = (
    "{a} {phrase}",
    "{a} {thing}, {color}",
    "a 3d model of {a} {phrase}",
    "a photo of {a} {phrase}",
    "{phrase}",
    "a small toy of {a} {phrase}",
    "a 3d render of {a} {phrase}",
)
PLAIN = tuple(template for template in COLORED if "{color}" not in template)
VIEW_WORDS = ("front view", "side view", "back view", "overhead view")
# Written with a vowel, spoken with a consonant.
_CONSONANT_SOUND = ("uni", "use", "usu", "one", "euro", "u-")


def article(phrase: str) -> str:
    """The indefinite article, a or an, by the sound the phrase starts with."""
    word = phrase.lower()
    return "an" if word[:1] in tuple("aeiou") and not word.startswith(_CONSONANT_SOUND) else "a"


def caption(template: str, noun: str, color: str | None, material_word: str = "") -> str:
    """Fill a template of COLORED (or of PLAIN when color is None)."""
    thing = " ".join(word for word in (material_word, noun) if word)
    phrase = " ".join(word for word in (material_word, color, noun) if word)
    lead = thing if "{thing}" in template else phrase
    return template.format(a=article(lead), phrase=phrase, thing=thing, color=color)


def captions(nouns: Sequence[str], color: str | None, material: str = "matte") -> list[str]:
    """Every phrasing of an object, the plainest first. color None: the natural look, no colour is named."""
    templates = PLAIN if color is None else COLORED
    return [
        caption(template, noun, color, word)
        for noun in nouns
        for word in MATERIAL_WORDS[material]
        for template in templates
    ]


def view_word(azimuth_deg: float, elevation_deg: float) -> str:
    """One of VIEW_WORDS: overhead above 60 degrees of elevation, else front or back within 45 degrees of azimuth 0 or
    180 (inclusive), else side. Any azimuth is accepted."""
    if elevation_deg > 60.0:
        return "overhead view"
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    if turned <= 45.0:
        return "front view"
    return "back view" if turned >= 135.0 else "side view"


def with_view(text: str, azimuth_deg: float, elevation_deg: float) -> str:
    """The caption with its view suffix: "a red mug, side view"."""
    return f"{text}, {view_word(azimuth_deg, elevation_deg)}"
