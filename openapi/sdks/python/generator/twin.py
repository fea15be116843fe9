"""The sync twin of async code: the same text without `async` and `await`.

Owns: the words that change.
Invariant: whatever differs in more than words lives in `seam.py`, once for each of the two.
"""
from __future__ import annotations

import re

WORDS = {
    "AbstractAsyncContextManager": "AbstractContextManager",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "_async": "_sync",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "async_operations": "operations",
    "asynccontextmanager": "contextmanager",
}


def sync(text: str) -> str:
    text = re.sub(r"\basync (?=def|for|with)", "", text)
    text = re.sub(r"\bawait ", "", text)
    for word, other in WORDS.items():
        text = re.sub(rf"\b{word}\b", other, text)
    return re.sub(r"\bAsync(?=[A-Z])", "", text)
