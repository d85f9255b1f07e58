"""The redaction of a report: known secrets in every form they may be written in, and whatever is shaped like one."""

import base64
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_origin

from detectors.redact import HIDDEN
from miner.settings.addresses import ADDRESSES, secrets_within, shown_each
from miner.settings.settings import Settings

ESCAPES = r"\\[nrt]"  # a line's end within JSON
MIN_ENCODED_BYTES = 8  # bytes of a secret that is looked for in base64, of which fewer would be found by chance
PHRASE_WORDS = 12  # of the shortest recovery phrase
HEX_NUMBER = re.compile(r"(?:0x)?([0-9a-fA-F]{32,})")

Span = tuple[int, int]

MIN_SECRET_CHARACTERS = 6  # characters; a shorter one would blot out half of every text
WORD_LIST = "hdaccount/wordlist/english.txt"  # of BIP-39, in eth_account, which bittensor brings
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
SECRET_SHAPES = (
    # user:password in an address; a password may hold a slash
    (re.compile(r"://(?:[^\s/@\"'<>]+|[^\s/@:\"'<>]{1,64}:[^\s@\"'<>]{1,256})@"), f"://{HIDDEN}@"),
    (re.compile(r"(?i)([?&][\w-]{0,64}(?:key|token|secret|passw|auth|sig)[\w-]{0,64}=)[^\s&\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?<![A-Za-z0-9])(?:{TOKENS})"), HIDDEN),
    (re.compile(r"(?i)\bbearer\s+[\w.~+/-]{8,}=*"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip
# Seeds, private keys, signatures; also over several lines.
HEX_KEY = re.compile(rf"\b0x[0-9a-fA-F]{{8,}}+(?:(?:\s|{ESCAPES})+[0-9a-fA-F]{{8,}}+)*+")
KEY_DIGITS = 64
# Names of secrets. The short ones count as a whole part of a name only (`bypass` is none), `pass` not before a colon,
# as in prose, and a small number after `seed` or `tokens` is no secret. No name is endless: a text of one word, such as
# a photo in base64, would take minutes.
LONG_NAMES = (
    r"[\w-]{0,64}(?:passw(?:or)?d|passphrase|secret|mnemonic|api[_-]?key|private[_-]?key|authorization)[\w-]{0,64}"
)
NAME_PART = r"(?:[\w-]{{0,64}}[_-])?(?:{})(?:[_-][\w-]{{0,64}})?"
PLAIN_NAMES, PASS_NAMES, COUNTED_NAMES = (
    rf"{LONG_NAMES}|{NAME_PART.format('token|pwd|phrase')}",
    NAME_PART.format("pass"),
    NAME_PART.format("seed|tokens"),
)
SHORT_NUMBER = r"\d{1,10}\b"
QUOTED = r"\\\"(?:(?!\\\")[^\n])*(?:\\\")?|\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?"
REST_OF_LINE = r"(?:(?!\\?\"\s*(?:[,}\]]|$))[^\n])+"  # of the line, or of the JSON string that the text is
HARMLESS_VALUES = rf"{re.escape(HIDDEN)}|(?:null|none|true|false)\b"
WORD_SEQUENCE = re.compile(rf"\b[a-z]{{3,8}}(?:(?:\s|{ESCAPES}|,)+[a-z]{{3,8}}\b){{{PHRASE_WORDS - 1},}}")
WORD = re.compile(rf"{ESCAPES}|(?P<word>[A-Za-z]+)")
MAX_WORD_GAP = 32  # characters between two words of a phrase that is numbered, quoted, or in a table
SET_NOT_SHOWN = "(set, not shown)"
MAX_KEY_FILE_BYTES = 2**16  # bytes of a key file
MAX_WALLET_FILES = 10_000  # files in a wallets folder; who named another folder by mistake shall not wait for all of it
PUBLIC_KEY_FIELDS = (
    "accountId",
    "publicKey",
    "ss58Address",
    "address",
    "cryptoType",
    "encoding",
    "meta",
)  # of a key file
# Free text that is harmless; numbers, switches and closed lists always are, and all else is hidden.
HARMLESS = {
    "image_detector", "image_detector_config", "image_detector_backend", "image_detector_precision", "wallet_name",
    "wallet_hotkey", "wallet_hotkeys", "wallet_path", "miner_axon_host", "axon_external_ip", "blacklist_allow_hotkeys",
    "blacklist_deny_hotkeys", "status_host", "status_allowed_hosts", "state_dir", "models_dir", "standalone_file",
    "remote_model", "remote_fallback", "shadow_detector", "shadow_detector_config",
}  # fmt: skip


class ReducedText:
    """A text without the characters that don't count, and where each that does stands in it."""

    def __init__(self, text: str, counting: str) -> None:
        """Keep the runs that a class of characters, such as `[a-z]`, matches; an escaped line's end is none."""
        kept = [run for run in re.finditer(rf"{ESCAPES}|(?P<kept>{counting}+)", text) if run["kept"]]
        self.text = "".join(run[0] for run in kept)
        self.lower = self.text.lower()  # as long: it is all ASCII
        self._starts = [run.start() for run in kept]
        self._offsets = [0]
        for run in kept:
            self._offsets.append(self._offsets[-1] + len(run[0]))

    def spans(self, form: str, *, any_case: bool = False) -> Iterator[Span]:
        """Yield where a form stands in the whole text."""
        text = self.lower if any_case else self.text
        at = text.find(form)
        while at >= 0:
            yield self._place(at), self._place(at + len(form) - 1) + 1
            at = text.find(form, at + len(form))

    def _place(self, index: int) -> int:
        run = bisect_right(self._offsets, index) - 1
        return self._starts[run] + index - self._offsets[run]


def spans_of(text: str, secrets: Iterable[str]) -> list[Span]:
    """Return where secrets stand in a text, in any of these forms; in order, and none within another."""
    letters, digits = ReducedText(text, "[A-Za-z]"), ReducedText(text, "[0-9A-Za-z]")
    coded = ReducedText(text.replace("-", "+").replace("_", "/"), "[A-Za-z0-9+/]")  # the alphabet for addresses too
    found: list[Span] = []
    for secret in secrets:
        digit = HEX_NUMBER.fullmatch(secret)
        words = re.findall(r"[a-z]+", secret.lower())
        if digit:
            found += (_with_prefix(text, span) for span in digits.spans(digit[1].lower(), any_case=True))
        elif len(words) >= PHRASE_WORDS:
            found += letters.spans("".join(words), any_case=True)
        known = [secret.encode()]
        if digit:  # its digits alone too: with or without `0x` before them
            known += [digit[1].encode(), *([bytes.fromhex(digit[1])] if len(digit[1]) % 2 == 0 else [])]
        for core in {core for data in known if len(data) >= MIN_ENCODED_BYTES for core in _cores(data)}:
            found += coded.spans(core)
    return merged(found)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order, those that touch as one."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and start <= whole[-1][1]:
            whole[-1] = whole[-1][0], max(end, whole[-1][1])
        else:
            whole.append((start, end))
    return whole


def _with_prefix(text: str, span: Span) -> Span:
    start, end = span
    return (start - 2 if text[max(0, start - 2) : start].lower() == "0x" else start), end


def _cores(data: bytes) -> Iterator[str]:
    """Yield what stands in base64 for certain, by where among three bytes the secret begins."""
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        first = (0, 2, 3)[shift]  # characters that also tell of what stands before
        last = 0 if (shift + len(data)) % 3 == 0 else 1  # and of what stands behind
        yield whole[first : len(whole) - last]


def _named(name: str, sign: str, kept: str) -> re.Pattern[str]:
    """Return what matches a name that is no file's, a sign, and the value: a quoted one, or all there is."""
    name = rf"(?<![\w/-])(?:{name})(?<!file)"
    return re.compile(
        rf"(?im)(?P<head>{name}(?:(?P<json>\\?[\"'][ \t]*:[ \t]*+)|[ \t]*{sign}++[ \t]*+)|(?=--){name}[ \t]++(?!-))"
        rf"(?!{kept})(?P<value>{QUOTED}|(?(json)[^,}}\]\n]+|{REST_OF_LINE}))"
    )


NAMED_SECRETS = (
    _named(PLAIN_NAMES, "[=:]", HARMLESS_VALUES),
    _named(PASS_NAMES, "=", HARMLESS_VALUES),
    _named(COUNTED_NAMES, "[=:]", rf"{HARMLESS_VALUES}|{SHORT_NUMBER}"),
)


def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """Return the text without any of the secrets, or anything of their shape."""
    known = sorted({one.strip() for one in secrets if len(one.strip()) >= MIN_SECRET_CHARACTERS}, key=len, reverse=True)
    text = _without(text, spans_of(text, known))
    for secret in known:
        for form in {secret, json.dumps(secret)[1:-1]}:
            text = _spelt(form).sub(HIDDEN, text)
    for shape, instead in SECRET_SHAPES:
        text = shape.sub(instead, text)
    text = HEX_KEY.sub(_without_key, text)
    for named in NAMED_SECRETS:
        text = named.sub(_without_value, text)
    words = _phrase_words()
    return WORD_SEQUENCE.sub(HIDDEN, text) if words is None else _without(text, _phrases(text, words))


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
        if run and match.start() - run[-1][1] > MAX_WORD_GAP:
            found += _whole(run)
            run = []
        if match[0].lower() in known:
            run.append(match.span())
        else:
            found += _whole(run)
            run = []
    return [*found, *_whole(run)]


def _whole(run: Sequence[Span]) -> list[Span]:
    return [(run[0][0], run[-1][1])] if len(run) >= PHRASE_WORDS else []


@lru_cache(maxsize=1)
def _phrase_words() -> frozenset[str] | None:
    """Return the words that recovery phrases are made of, if a package here has them."""
    package = find_spec("eth_account")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        file = Path(place) / WORD_LIST
        if file.is_file():
            return frozenset(file.read_text(encoding="utf-8").split())
    return None


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings by name, with what could be a secret hidden."""
    return {name.upper(): _shown(name, getattr(settings, name)) for name in type(settings).model_fields}


def _shown(name: str, value: Any) -> Any:
    if value is None or value == "" or isinstance(value, (bool, int, float)):
        return value
    if name in ADDRESSES:
        return shown_each(str(value))
    is_closed = get_origin(Settings.model_fields[name].annotation) is Literal
    return str(value) if name in HARMLESS or is_closed else SET_NOT_SHOWN


def secrets_of_addresses(settings: Settings) -> Iterator[str]:
    """Yield what the addresses hold that others may not see; the model's page is there to be seen."""
    for name in ADDRESSES - {"model_url"}:
        for address in str(getattr(settings, name)).split(","):
            yield from secrets_within(address)


def secrets_in(files: Iterable[Path]) -> Iterator[str]:
    """Yield the secrets of key and password files: each text in a key's JSON but the public ones, or the whole file."""
    for file in files:
        try:
            data = file.read_bytes() if file.stat().st_size <= MAX_KEY_FILE_BYTES else b""
            text = data.decode("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        try:
            content = json.loads(text)
        except ValueError:
            content = text
        yield from _texts_of(content if isinstance(content, dict) else text)


def _texts_of(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in PUBLIC_KEY_FIELDS:
                yield from _texts_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts_of(value)
    else:
        yield str(content)


def key_files(settings: Settings) -> list[Path]:
    """Return every file of this machine that may hold a secret of the miner."""
    named = [settings.wallet_hotkey_file, settings.wallet_hotkey_password_file]
    folders = [settings.wallet_path, settings.state_dir / "wallets"]  # also the wallets that serve no request here
    found = [path for folder in folders for path in islice(_files_below(folder), MAX_WALLET_FILES)]
    return [path for path in [*named, *found] if path is not None and not path.name.endswith("pub.txt")]


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield every file there is to be seen: what may not be entered is passed over."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)
