"""The sieve that every text of a report goes through: known secrets, what is named like one or has the shape of one."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from miner.settings.secrets import HIDDEN
from miner.support.forms import ESCAPES, Span, spans_of
from miner.support.forms import WORDS as PHRASE

SHORTEST = 6  # characters; a shorter one would blot out half of every text
WORDS = "hdaccount/wordlist/english.txt"  # of BIP-39, in eth_account, which bittensor brings

# Tokens that their makers gave a form to be known by. A detector off the shelf finds them by entropy, and takes hotkeys
# and commits along, which whoever helps has to read; without it, it passes half of these over.
TOKENS = "|".join(
    (
        r"hf_[A-Za-z0-9]{8,}",  # Hugging Face
        r"gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|gl[a-z]{2,5}-[\w-]{16,}",  # GitHub, GitLab
        r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|hooks\.slack\.com/services/[\w/-]+",  # Slack
        r"discord(?:app)?\.com/api/webhooks/[\w/-]+|\d{8,10}:[A-Za-z0-9_-]{35}\b",  # Discord, Telegram's bots
        r"A(?:BIA|CCA|GPA|IDA|KIA|NPA|NVA|ROA|SIA)[A-Z0-9]{16}\b",  # AWS
        r"AIza[\w-]{35}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}",  # Google
        r"sk-(?=[\w-]{0,64}\d)[\w-]{20,}|(?:pk|rk|sk)_(?:live|test)_[A-Za-z0-9]{8,}",  # OpenAI, Anthropic, Stripe
        r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{50,}|dckr_pat_[\w-]{16,}|do[opr]_v1_[0-9a-f]{32,}",  # registries, clouds
        r"SG\.[\w-]{16,}\.[\w-]{16,}|eyJ[\w-]{8,2048}\.[\w-]{8,4096}(?:\.[\w-]{0,4096})*",  # SendGrid, JSON web tokens
    )
)
SHAPES = (
    # user:password in an address; a password may hold a slash
    (re.compile(r"://(?:[^\s/@\"'<>]+|[^\s/@:\"'<>]{1,64}:[^\s@\"'<>]{1,256})@"), f"://{HIDDEN}@"),
    (re.compile(r"(?i)([?&][\w-]{0,64}(?:key|token|secret|passw|auth|sig)[\w-]{0,64}=)[^\s&\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?<![A-Za-z0-9])(?:{TOKENS})"), HIDDEN),
    (re.compile(r"(?i)\bbearer\s+[\w.~+/-]{8,}=*"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip
# Seeds, private keys, signatures; also over several lines.
KEY = re.compile(rf"\b0x[0-9a-fA-F]{{8,}}+(?:(?:\s|{ESCAPES})+[0-9a-fA-F]{{8,}}+)*+")
KEY_DIGITS = 64

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
RUN = re.compile(rf"\b[a-z]{{3,8}}(?:(?:\s|{ESCAPES}|,)+[a-z]{{3,8}}\b){{{PHRASE - 1},}}")
WORD = re.compile(rf"{ESCAPES}|(?P<word>[A-Za-z]+)")
APART = 32  # characters between two words of a phrase that is numbered, quoted, or in a table


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
    known = sorted({one.strip() for one in secrets if len(one.strip()) >= SHORTEST}, key=len, reverse=True)
    text = _without(text, spans_of(text, known))
    for secret in known:
        for form in {secret, json.dumps(secret)[1:-1]}:
            text = _spelt(form).sub(HIDDEN, text)
    for shape, instead in SHAPES:
        text = shape.sub(instead, text)
    text = KEY.sub(_without_key, text)
    for named in NAMED:
        text = named.sub(_without_value, text)
    words = _phrase_words()
    return RUN.sub(HIDDEN, text) if words is None else _without(text, _phrases(text, words))


def _without(text: str, spans: Sequence[Span]) -> str:
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return HIDDEN.join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _spelt(secret: str) -> re.Pattern[str]:
    """Return how a secret may be written as it is: its words apart by any space."""
    return re.compile(rf"(?:\s|{ESCAPES})+".join(map(re.escape, secret.split())))


def _without_key(match: re.Match[str]) -> str:
    """Hide what has as many digits as a key; a shorter number stays."""
    digits = sum(map(len, re.findall(r"[0-9a-fA-F]{8,}", match[0])))
    return HIDDEN if digits >= KEY_DIGITS else match[0]


def _without_value(match: re.Match[str]) -> str:
    """Hide the value, and leave JSON what it is."""
    value = match["value"]
    quote = next((quote for quote in ('\\"', '"', "'") if value.startswith(quote)), '"' if match["json"] else "")
    return f"{match['head']}{quote}{HIDDEN}{quote}"


def _phrases(text: str, known: frozenset[str]) -> list[Span]:
    """Return where as many words as make a recovery phrase follow each other, all of them of the list.

    They may be in capitals, numbered, quoted, in a list or in a column: whatever is no letter may stand between them.
    """
    found: list[Span] = []
    run: list[Span] = []
    for match in WORD.finditer(text):
        if match["word"] is None:
            continue
        if run and match.start() - run[-1][1] > APART:
            found += _whole(run)
            run = []
        if match[0].lower() in known:
            run.append(match.span())
        else:
            found += _whole(run)
            run = []
    return [*found, *_whole(run)]


def _whole(run: Sequence[Span]) -> list[Span]:
    return [(run[0][0], run[-1][1])] if len(run) >= PHRASE else []


@lru_cache(maxsize=1)
def _phrase_words() -> frozenset[str] | None:
    """Return the words that recovery phrases are made of, if a package here has them."""
    package = find_spec("eth_account")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        file = Path(place) / WORDS
        if file.is_file():
            return frozenset(file.read_text(encoding="utf-8").split())
    return None
