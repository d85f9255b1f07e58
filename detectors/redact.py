"""The redaction of addresses: a password or a provider's API key may be part of one."""

import re

HIDDEN = "(hidden)"

HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
ADDRESS_IN_TEXT = re.compile(r"[a-zA-Z][\w+.-]*://\S+")
CREDENTIALS = re.compile(r"[^\s,'\"/@]+:[^\s,'\"/@]+@")  # user and password of an address that lacks its scheme
TRAILING_PUNCTUATION = ".,:;!?)]}>'\""  # what ends a sentence or a quotation, not an address


def shown(address: str) -> str:
    """Return scheme, host and port of an address; a name such as `finney` as it is."""
    scheme, mark, rest = address.strip().partition("://")
    if not mark:
        return HIDDEN if set("/?#@") & set(address) else address
    authority, tail = split(rest)
    host = authority.rpartition("@")[2]
    # With an `@` behind the host, the host may be a user and a password that held a slash.
    return f"{scheme}://{host if HOST.fullmatch(host) and '@' not in tail else HIDDEN}"


def shown_within(text: str) -> str:
    """Return a text with each address in it as `shown`, and no user with a password elsewhere."""

    def show(found: re.Match[str]) -> str:
        address = found[0].rstrip(TRAILING_PUNCTUATION)
        return shown(address) + found[0][len(address) :]

    return CREDENTIALS.sub(f"{HIDDEN}@", ADDRESS_IN_TEXT.sub(show, text))


def split(rest: str) -> tuple[str, str]:
    """Split what follows the scheme at the end of user, host and port."""
    end = re.search(r"[/?#]", rest)
    return (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
