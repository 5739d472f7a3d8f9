"""What reading foreign bytes may raise."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes that are not what they should be: a wrong form, text that is no UTF-8, nesting
without end. Whoever decodes what came from outside the process, over a network or from a disk, catches these three."""
