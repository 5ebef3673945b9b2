"""Which words of an English answer name things that an image can show: a rule over a few lists of words, no parser.

The text is cut at punctuation and at words that cannot stand in a noun phrase: prepositions, conjunctions, pronouns and
the verbs that descriptions use. Of what is left between two cuts, a run of words is a phrase

* if it begins with an article, a number or another determiner, or
* if its last word is a plural, or
* if it is all that a short sentence says, such as the answer "Blue cross.".

A run ends before a participle that follows its noun ("a man | holding a cat", "a table | covered with a cloth") and
before the verb of a single thing ("a dog | runs"). Quantities take what they measure ("a group of people"). Words that
name the image or a place in it ("the picture", "the left") are not phrases.

What it cannot know: a verb that is on no list and looks like a noun stays in the phrase, and a mass noun without an
article ("snow on water") is missed. For other languages, and for more care, pass a function of your own.
"""

from __future__ import annotations

import re

from vlm_adapters.prompt import Phrase

_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*|\d+|[^\w\s]|_")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SINGULAR = _words("a an one this that each every another")
_DETERMINERS = _SINGULAR | _words(
    "the these those some several many few both all two three four five six seven eight nine ten eleven twelve "
    "my your his her its our their"
)
_CUTS = _words(
    # prepositions
    "about above across after against along alongside amid among around as at atop before behind below beneath beside "
    "besides between beyond by down during for from in inside into near off on onto out outside over past per through "
    "throughout to toward towards under underneath up upon via with within without of "
    # conjunctions, and what joins clauses
    "and or but nor so yet if because although though while whereas than then that which who whom whose where when "
    # pronouns
    "i you he she it we they me him us them itself himself herself themselves there here what something nothing "
    "someone everything everyone "
    # verbs of descriptions
    "is are was were be been being am isn't aren't it's there's has have had do does did can could may might must "
    "shall should will would see sees seen show shows shown appear appears appeared seem seems look looks looked "
    "contain contains include includes feature features depict depicts sit sits sat stand stands stood lie lies lay "
    "hold holds held wear wears wore hang hangs hung rest rests rested lean leans leaned face faces run runs ran walk "
    "walks walked ride rides rode carry carries carried play plays played eat eats ate drive drives drove fly flies "
    "flew make makes made take takes took give gives gave get gets got go goes went come comes came fill fills "
    "surround surrounds cover covers create creates suggest suggests indicate indicates overlap overlaps touch touches "
    # adverbs and others
    "not no yes very quite also too just only even still perhaps probably likely clearly partly partially slightly "
    "directly currently together away apart overall please sorry"
)
_NOT_THINGS = _words(
    "image picture photo photograph photography scene view left right top bottom middle center centre side sides front "
    "back foreground background corner way time description kind sort type lot bit number addition fact shape shapes "
    "color colors colour colours order other others them answer question"
)
_QUANTITIES = _words(
    "group pair couple set row rows piece pieces slice slices bunch stack pile crowd herd flock line bowl plate cup "
    "glass bottle box basket vase bouquet variety number lot"
)
_ADJECTIVES = _words(
    "red green blue yellow white black grey gray orange purple pink brown large small big little tall short long young "
    "old new dark light bright other round wooden"
)
_PLACES = _words("left right next close nearby")
"""Where a thing is, after it: `a star left of the circle`."""
_NOUNS_IN_ING = _words(
    "building ceiling clothing painting ring king string spring wing railing awning sibling evening morning thing "
    "swing sling icing wedding earring pudding lightning crossing parking duckling"
)
_NOUNS_IN_ED = _words("bed seed shed sled weed reed breed speed")
_NO_PLURAL = ("ss", "us", "is")
_PLURALS = _words("people men women children sheep deer fish feet teeth geese mice")
_SHORT_ANSWER = 5


def noun_phrases(text: str) -> list[Phrase]:
    """Find the phrases of an English text that an image can show, in their order; none lies within another.

    Examples:
        >>> from vlm_adapters.grounding import noun_phrases
        >>> [phrase.text for phrase in noun_phrases("A man holding two red kites stands left of the white house.")]
        ['A man', 'two red kites', 'the white house']
    """
    words = list(_WORD.finditer(text))
    runs = _joined(text, _runs(words))
    found = [run for run in runs if _is_phrase(run) or _is_short_answer(text, run)]
    return [Phrase.at(text, run[0].start(), run[-1].end()) for run in found]


_Run = list[re.Match[str]]


def _runs(words: _Run) -> list[_Run]:
    """The words between two cuts, without the verb at their end."""
    runs: list[_Run] = [[]]
    for index, word in enumerate(words):
        lower = _lower(word)
        starts = lower in _DETERMINERS and not _is_relative(words, index)
        if not starts and (not word.group()[0].isalnum() or lower in _CUTS):
            runs.append([])
        elif starts or _is_participle(runs[-1], lower):
            continues = starts and runs[-1] and all(_lower(before) in _DETERMINERS for before in runs[-1])
            if continues:  # "all the", "both his"
                runs[-1].append(word)
            else:
                runs.append([word] if starts else [])
        else:
            runs[-1].append(word)
    return [shorter for run in runs if (shorter := _without_verb(run))]


def _is_relative(words: _Run, index: int) -> bool:
    """Whether `that` joins a clause: it follows a noun, or a verb comes next."""
    if _lower(words[index]) != "that":
        return False
    after = _lower(words[index + 1]) if index + 1 < len(words) else ""
    return not after or after in _CUTS or after in _DETERMINERS


def _is_participle(run: _Run, lower: str) -> bool:
    """Whether a word that follows these ends their phrase, as `holding` after `a man` does."""
    if not lower.endswith("ing") or lower in _NOUNS_IN_ING:
        return False
    return any(_lower(word) not in _DETERMINERS | _ADJECTIVES and not word.group().isdecimal() for word in run)


def _without_verb(run: _Run) -> _Run:
    """A run without the verb or participle at its end."""
    if len(run) < 2:
        return run
    last, before = _lower(run[-1]), _lower(run[-2])
    is_alone = before in _DETERMINERS | _ADJECTIVES or before.isdecimal()
    past = last in _PLACES or (last.endswith("ed") and last not in _NOUNS_IN_ED)
    single = _lower(run[0]) in _SINGULAR and last.endswith("s") and not last.endswith(_NO_PLURAL)
    return run[:-1] if not is_alone and (past or single) else run


def _joined(text: str, runs: list[_Run]) -> list[_Run]:
    """Quantities together with what they measure: `a group` and `people` around `of`."""
    joined: list[_Run] = []
    for run in runs:
        between = text[joined[-1][-1].end() : run[0].start()] if joined else ""
        if between.strip().lower() == "of" and _lower(joined[-1][-1]) in _QUANTITIES:
            joined[-1] = joined[-1] + run
        else:
            joined.append(run)
    return joined


def _is_phrase(run: _Run) -> bool:
    """Whether a run names a thing: by its first word, or by its last."""
    first, last = _lower(run[0]), _lower(run[-1])
    if last in _NOT_THINGS or last in _DETERMINERS or last.isdecimal() or last in _ADJECTIVES:
        return False
    if first in _DETERMINERS or first.isdecimal():
        return True
    plural = len(last) > 3 and last.endswith("s") and not last.endswith((*_NO_PLURAL, "'s", "\u2019s"))
    return plural or last in _PLURALS


def _is_short_answer(text: str, run: _Run) -> bool:
    """Whether a run is all that its sentence says."""
    last = _lower(run[-1])
    before, after = text[: run[0].start()].rstrip(), text[run[-1].end() :].lstrip()
    alone = (not before or before[-1] in ".!?:;\n") and (not after or after[0] in ".!?;\n")
    names = last not in _NOT_THINGS | _ADJECTIVES | _DETERMINERS and not last.isdecimal()
    return alone and names and len(run) <= _SHORT_ANSWER


def _lower(word: re.Match[str]) -> str:
    return word.group().lower().replace("\u2019", "'")
