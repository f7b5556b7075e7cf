"""Take e-mail addresses, which are personal data, out of what servers said, for whatever leaves this machine."""

import re

# The "@" as it is, and as servers escape it: in a URL, in HTML and in JSON.
_AT = r"(?:@|%(?:25)*40|&#0*64;|&#x0*40;|&commat;|\\u0040)"
_LETTER = r"[^\s<>\"'(),;:@|\[\]{}=\u2018\u2019\u201c\u201d\xab\xbb]"
_APOSTROPHE = r"(?<=\w)['\u2019](?=\w)"  # as in a name
# It begins where a word does, so that a long text takes no longer than its length.
_ADDRESS = re.compile(rf"(?<!{_LETTER})(?<!\w['\u2019])(?:{_LETTER}|{_APOSTROPHE})+{_AT}{_LETTER}+", re.IGNORECASE)


def without_addresses(words: str) -> str:
    """Return a text with … in place of each e-mail address in it, also of one that is escaped."""
    return _ADDRESS.sub("…", words)
