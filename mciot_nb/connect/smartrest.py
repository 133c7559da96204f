r"""SmartREST, the comma-separated text of devices: how lines are written and read, on both sides.

One message a line. A value with a comma, a quote, a newline or blanks at its edges is put in quotes, with ``\"`` for a
quote in it. The vendor describes no more. What this reading adds, and what no real tenant was asked about: backslashes
right before a quote come in pairs, as in a Windows command line, so that a value may end in a backslash. All
other backslashes mean themselves.

Two things can't be carried: text that is not Unicode (half a surrogate pair), and a line of no value at all.
"""

import csv
import io
import re

# A quoted value: its opening quote, then what is in it. Backslashes are taken a whole run at a time: an odd run before
# a quote makes it part of the value, an even one leaves it to close the value.
_QUOTED = re.compile(r'((?:^|[,\r\n]) *")((?:[^"\\]|(?:\\\\)*+\\"|\\++(?!")|(?:\\\\)++(?="))*+)')
_BACKSLASHES = re.compile(r'(\\++)("|\Z)?')
_TO_ESCAPE = re.compile(r'(\\++)("|\Z)?|"')


def line(*values: str) -> str:
    """Write values as one SmartREST line, without a newline behind it."""
    if values == ("",):
        return '""'  # an empty line would be no line
    quoted = [one for one in values if set(one) & set('",\r\n') or one != one.strip()]
    return ",".join(f'"{_TO_ESCAPE.sub(_written, one)}"' if one in quoted else one for one in values)


def parse(payload: bytes) -> list[list[str]]:
    """Split a payload into its lines and values; empty lines are left out.

    Raises: ValueError: with a sentence where it is not UTF-8 or its quotes do not close.
    """
    try:
        text = payload.decode()
        if '"' in text:
            text = _QUOTED.sub(lambda value: value[1] + _BACKSLASHES.sub(_read, value[2]), text)
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True) if row]
    except UnicodeDecodeError:
        raise ValueError("The message is not UTF-8.") from None
    except csv.Error:
        raise ValueError("A quoted value of the message does not end, or goes on behind its end.") from None


def _written(part: re.Match[str]) -> str:
    run, end = part[1] or "", part[2]
    if run and end is None:
        return run
    return run * 2 + ("" if end == "" else '\\"')


def _read(part: re.Match[str]) -> str:
    run, end = part[1], part[2]
    if end is None:
        return run
    # "" is the csv module's own way to write a quote inside quotes
    return run[: len(run) // 2] + ('""' if end else "")
