"""The sieve that every text of a report goes through: known secrets, what is named like one or has the shape of one."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from miner.addresses import HIDDEN

SHORTEST = 6  # characters; a shorter one would blot out half of every text
PHRASE = 12  # words of the shortest recovery phrase
WORDS = "hdaccount/wordlist/english.txt"  # of BIP-39, in eth_account, which bittensor brings

SHAPES = (
    (re.compile(r"://[^\s/@\"'<>]+@"), f"://{HIDDEN}@"),  # user:password in an address
    (re.compile(r"(?i)([?&][\w-]{0,64}(?:key|token|secret|passw|auth|sig)[\w-]{0,64}=)[^\s&\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),  # of Hugging Face
    (re.compile(r"(?i)\bbearer\s+[\w.~+/-]{8,}=*"), HIDDEN),
    (re.compile(r"\b0x[0-9a-fA-F]{64,}"), HIDDEN),  # seeds, private keys, signatures
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip

# Names of secrets. The short ones count as a whole part of a name only (`bypass` is none), `pass` not before a colon,
# as in prose, and a small number after `seed` or `tokens` is no secret. No name is endless: a text of one word, such as
# a photo in base64, would take minutes.
LONG = r"[\w-]{0,64}(?:passw(?:or)?d|passphrase|secret|mnemonic|api[_-]?key|private[_-]?key|authorization)[\w-]{0,64}"
PART = r"(?:[\w-]{{0,64}}[_-])?(?:{})(?:[_-][\w-]{{0,64}})?"
PLAIN, PASS, COUNTED = rf"{LONG}|{PART.format('token|pwd|phrase')}", PART.format("pass"), PART.format("seed|tokens")
COUNT = r"\d{1,10}\b"

QUOTED = r"\\\"(?:(?!\\\")[^\n])*(?:\\\")?|\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?"
TO_THE_END = r"(?:(?!\\?\"\s*(?:[,}\]]|$))[^\n])+"  # of the line, or of the JSON string that the text is
KEPT = rf"{re.escape(HIDDEN)}|(?:null|none|true|false)\b"
RUN = re.compile(rf"\b[a-z]{{3,8}}(?:(?:\s|\\[nrt]|,)+[a-z]{{3,8}}\b){{{PHRASE - 1},}}")
WORD = re.compile(r"\b[a-z]{3,8}\b")


def _named(name: str, sign: str, kept: str) -> re.Pattern[str]:
    """Return what matches a name that is no file's, a sign, and the value: a quoted one, or all there is."""
    name = rf"(?<![\w/-])(?:{name})(?<!file)"
    return re.compile(
        rf"(?im)(?P<head>{name}(?:(?P<json>\\?[\"'][ \t]*:[ \t]*+)|[ \t]*{sign}++[ \t]*+)|(?=--){name}[ \t]++(?!-))"
        rf"(?!{kept})(?P<value>{QUOTED}|(?(json)[^,}}\]\n]+|{TO_THE_END}))"
    )


NAMED = (
    _named(PLAIN, "[=:]", KEPT),
    _named(PASS, "=", KEPT),
    _named(COUNTED, "[=:]", rf"{KEPT}|{COUNT}"),
)


def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """Return the text without any of the secrets, or anything of their shape."""
    for secret in sorted({one.strip() for one in secrets}, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            for form in {secret, json.dumps(secret)[1:-1]}:
                text = _spelt(form).sub(HIDDEN, text)
    for shape, instead in SHAPES:
        text = shape.sub(instead, text)
    for named in NAMED:
        text = named.sub(_without_value, text)
    return RUN.sub(_without_phrase, text)


def _spelt(secret: str) -> re.Pattern[str]:
    """Return how a secret may be written: its words apart by any space, hex with or without its `0x`."""
    digits = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{32,})", secret)
    if digits:
        return re.compile(rf"(?i)(?:0x)?{digits[1]}")
    return re.compile(r"(?:\s|\\[nrt])+".join(map(re.escape, secret.split())))


def _without_value(match: re.Match[str]) -> str:
    """Hide the value, and leave JSON what it is."""
    value = match["value"]
    quote = next((quote for quote in ('\\"', '"', "'") if value.startswith(quote)), '"' if match["json"] else "")
    return f"{match['head']}{quote}{HIDDEN}{quote}"


def _without_phrase(match: re.Match[str]) -> str:
    """Hide each stretch of a run of words that may be a recovery phrase: those on the list, where it is here."""
    known, run = _phrase_words(), match[0]
    if known is None:
        return HIDDEN
    stretches: list[list[int]] = [[]]  # of ends, after the begin of the first word
    for word in WORD.finditer(run):
        if word[0] in known:
            stretches[-1] += [word.start(), word.end()]
        else:
            stretches.append([])
    for stretch in reversed(stretches):
        if len(stretch) >= 2 * PHRASE:
            run = run[: stretch[0]] + HIDDEN + run[stretch[-1] :]
    return run


@lru_cache(maxsize=1)
def _phrase_words() -> frozenset[str] | None:
    """Return the words that recovery phrases are made of, if a package here has them."""
    package = find_spec("eth_account")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        file = Path(place) / WORDS
        if file.is_file():
            return frozenset(file.read_text(encoding="utf-8").split())
    return None
