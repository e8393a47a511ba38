"""The final number of a solution to a word problem, as in GSM8K."""

from __future__ import annotations

import re
from decimal import Decimal

MARK = "####"
"""The mark before the final number of a solution."""

_NUMBER = re.compile(r"####\s*([-−+]?)\s*[$€£¥₹]?\s*([-−+]?)(\d[\d,]*(?:\.\d+)?|\.\d+)")


def final_number(solution: str) -> Decimal | None:
    """The number behind the first ``####``; None without one.

    Commas between digits, a currency sign, a unit behind the number and zeros behind the decimal point do not count:
    ``#### $1,200.00 a week`` is 1200. As in the data set's own evaluation
    (https://github.com/openai/grade-school-math), a number elsewhere in the text is no answer.
    """
    found = _NUMBER.search(solution)
    if found is None:
        return None
    sign = "-" if {found[1], found[2]} & {"-", "−"} else ""
    return Decimal(sign + found[3].replace(",", ""))
