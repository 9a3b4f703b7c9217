"""Check: the form of what a doctor checks, with what must be written where.

``codes`` and ``way_codes`` say which codes there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Check(NamedTuple):
    """What is checked under a code.

    ``mendings`` has what to write, by the name of the proxy or the server where it must
    be written. The empty name stands for what holds everywhere.
    """

    asks: str
    mendings: Mapping[str, str]

    def mended(self, by: str = "") -> str:
        """What to do.

        :param by: the proxy or server at fault; with an unknown one, all are told.
        """
        general = self.mendings.get("", "")
        if by and by in self.mendings:
            chosen = {by: self.mendings[by]}
        else:
            chosen = {name: text for name, text in self.mendings.items() if name}
        parts = [general] if general else []
        for name, text in chosen.items():
            lines = text.strip("\n").splitlines()
            parts.append("\n".join([f"{name}:", *(f"    {line}" for line in lines)]))
        return "\n".join(parts)
