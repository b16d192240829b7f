"""Acceptance and refusal read off free words.

Only plain words count, so that nobody buys by accident: a clause must say nothing else than "you have a deal", "I
accept your offer" and the like. Questions, conditions ("if", "would", "throw in") and negations before it decide
nothing. Read in the sentences of the full world only; the small one has `deal` and `bye`.
"""

import re

from .prices import AMOUNT, amounts_in


_HARMLESS = re.compile(r"\b(?:no (?:problem|worries|doubt)|why not|not bad)\b")
_CONDITION = re.compile(
    r"\b(?:if|unless|would|could|might|may|maybe|perhaps|should|when|once|until|till|before|provided|assuming|suppose"
    r"|only|or|else|otherwise|almost|nearly|as (?:long|soon) as|condition|wish|imagine|pretend|include|throw|add|lower"
    r"|drop|knock|reduce|minus|less|without|except|whether|under|below|yet)\b|\w'd\b"
)
# In the same sentence: denials, and words that are only quoted. Before an acceptance, favours asked for as well.
_DENIAL = re.compile(
    r"\b(?:no|not|never|nothing|none|nobody|neither|nor|cannot|\w+n't|refuse|hardly|barely|unable|far from|jok\w+|kidding"
    r"|say|says|saying|said|told|called?|my foot|dreams?)\b"
)
_FAVOUR = re.compile(r"\b(?:give|make|bring|come|meet|show|match)\b")
_TAKEN_BACK = re.compile(
    r"(?:but|if|unless|only|wait|however|though|provided|assuming|as (?:long|if)|on (?:the |one )?condition|when|once|or"
    r"|actually|yeah,? right|said|in your dreams|dream on)\b|no[,.!]|not(?:[.!]| (?:yet|really|for|at|until))|.*\b(?:jok(?:e|ing)|kidding)\b"
)
_LEAD = (
    r"(?:(?:ok|okay|all ?right|alright|yes|yeah|yep|sure|well|so|then|very well|now|i (?:think|guess|believe)(?: that)?"
    r"|(?:it )?(?:looks|seems|sounds) like)\s+)*"
)
_TAIL = (
    r"(?:\s+(?:(?:at|for|of|on|with|to)\s+)?(?:(?:that|this|your|the)\s+)?(?:(?:last|final|new|latest|best)\s+)?"
    r"(?:(?:price|offer|number|terms|amount|counter-?offer|proposal)(?:\s+of\s+#)?|#))?"
    r"(?:\s+(?:then|now|today|sir|madam|my friend|indeed|of course))?(?:\s+and\s+.+)?"
)
_DEAL = (
    r"(?:(?:it|that)(?:'s| is) (?:a )?(?:done )?|(?:you|we)(?: now| finally)?(?:'ve got|'ve| have got| have| got)"
    r"(?: yourself| ourselves)? a |done )?deal"
)
_WILL = r"(?:i|we)(?:'ll| will| shall)(?: happily| gladly)?"
_ACCEPT = (
    rf"(?:(?:i|we)|{_WILL}|(?:i|we) (?:can|do|(?:am|are) (?:happy|glad|willing|ready) to|happily|gladly|hereby))"
    rf" accept(?: it| that)?|{_WILL} take (?:it|(?:your|the|that|this) (?:offer|price|deal))|i take it for #"
    r"|(?:your |the |that )?(?:offer|price)(?: of #)? (?:is )?accepted"
)
_AGREES = re.compile(rf"{_LEAD}(?:{_DEAL}|{_ACCEPT}){_TAIL}")
# These agree to any statement, so they count only among words that close a sale.
_AGREES_ALONE = re.compile(
    rf"{_LEAD}(?:(?:(?:we|i)(?:'re| are|'m| am) |(?:it|that)(?:'s| is) )?agreed|(?:i'm |i am |consider it )?sold(?: to me)?)"
    rf"{_TAIL}"
)
_CLOSES = re.compile(
    r"(?:good|great|fine|ok|okay|all ?right|alright|yes|well|very well|perfect|excellent|thanks|thank you|fair enough|sir"
    r"|madam|my friend|(?:for |at )?#(?: it is)?|(?:it is|it's) (?:yours|mine)|(?:let us|let's|where do i) sign)"
)
_LEAVE_LEAD = r"(?:(?:sorry|i'm afraid|i am afraid|well|so|then|and|but|ok|okay|all ?right|alright|thanks|thank you|forget it)\s+)*"
_LEAVE_TAIL = r"(?:\s+(?:then|now|here|today|sir|madam|for good|elsewhere|from (?:this|the|here|your)\b.*|and .*))?"
_GOODBYE = re.compile(rf"{_LEAVE_LEAD}(?:good ?bye|bye(?: bye)?|farewell){_LEAVE_TAIL}")
_WALKS_AWAY = re.compile(
    rf"{_LEAVE_LEAD}(?:i|we)(?:'m| am|'re| are|'ll| will)?(?: must| have to| going to)?(?: just)?"
    rf" (?:walk(?:ing)? (?:away|out)|leav(?:e|ing)){_LEAVE_TAIL}"
)
_NO_DEAL = re.compile(rf"{_LEAVE_LEAD}(?:(?:that|it|there)(?:'s| is) )?no deal{_LEAVE_TAIL}")
_DONE = re.compile(
    rf"{_LEAVE_LEAD}(?:i|we)(?:'m| am|'re| are) (?:done|through|finished)(?: talking| negotiating| with (?:this|you))?"
    rf"{_LEAVE_TAIL}"
)
_ASKS_FOR_MORE = re.compile(r"\b(?:better|lower|again|try|come (?:down|back))\b|\?")


def acceptance_in(text: str) -> list[int | None] | None:
    """The prices that go with a plain acceptance (those of its sentence, else of the whole text), or `None` if the
    words do not plainly accept."""
    accepted = None
    for sentence in _sentences(text):
        if "?" in sentence:
            continue
        if accepted is not None and _TAKEN_BACK.match(sentence):
            return None
        # What follows the last "but" is what counts.
        part = re.split(r"\bbut\b", sentence)[-1]
        if _accepts(AMOUNT.sub("#", part)):
            accepted = amounts_in(part, "full")
    if accepted is None or _says(text, _WALKS_AWAY) or _says(text, _NO_DEAL):
        return None
    return accepted or amounts_in(text, "full")


def leaves(text: str) -> bool:
    """Whether the words end the talk. "No deal" and "we are done" do, unless they ask for a better price."""
    if _says(text, _GOODBYE) or _says(text, _WALKS_AWAY):
        return True
    if amounts_in(text, "full"):
        return False
    sentences = _sentences(text)
    ends = [index for index, said in enumerate(sentences) if _says(said, _NO_DEAL) or _says(said, _DONE)]
    return bool(ends) and not _ASKS_FOR_MORE.search(" ".join(sentences[ends[0] :]))


def _sentences(text: str) -> list[str]:
    text = re.sub(r"[\"*_\u201c\u201d]", "", text.lower().replace("\u2019", "'"))
    return [sentence.strip() for sentence in re.split(r"(?<=[.!?;\u2026])\s+|\n", text) if sentence.strip()]


def _clauses(part: str) -> list[str]:
    clauses = re.split(r"[,:]\s+|\s+[-\u2013]+\s+|\s*\u2014\s*", part.strip())
    return [clause.strip(" .!;,:\u2026") for clause in clauses]


def _accepts(part: str) -> bool:
    part = _HARMLESS.sub("good", part)
    if _CONDITION.search(part) or _DENIAL.search(part):
        return False
    clauses = _clauses(part)
    for index, clause in enumerate(clauses):
        plain = _AGREES.fullmatch(clause) or (
            _AGREES_ALONE.fullmatch(clause)
            and all(other == clause or _CLOSES.fullmatch(other) or _AGREES.fullmatch(other) for other in clauses)
        )
        if plain and not (index and clause.startswith("then ")):  # "lease it to me, then we have a deal"
            return not _FAVOUR.search(", ".join(clauses[:index]))
    return False


def _says(text: str, pattern: re.Pattern) -> bool:
    return any(
        pattern.fullmatch(clause)
        for sentence in _sentences(text)
        if "?" not in sentence and not _CONDITION.search(sentence)
        for clause in _clauses(AMOUNT.sub("#", sentence))
    )
