"""The signing database in words, all rows at once: what the live table shows of it, and until when that is right."""

import math
from datetime import datetime

import numpy as np
import pandas as pd

from mciot_nb.pki.rows import hex_serial

_STATUS = {"V": "✓ valid", "R": "✗ revoked", "E": "✗ expired"}
_DAY = 86_400  # seconds


def signing_texts(frame: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Write ``database.to_frame()`` in the words of `signing_table`, with the serial number, in hexadecimal, as key."""
    status = _status(frame, now)
    serials = [hex_serial(serial) for serial in frame["serial"]]
    reasons = [f": {reason}" if reason else "" for reason in frame["reason"]]
    days = [math.ceil(seconds / _DAY) for seconds in (frame["expires"] - now).dt.total_seconds()]
    columns = {
        "Serial": serials,
        "Status": [_STATUS[word] + reason for word, reason in zip(status, reasons, strict=True)],
        "Days left": [str(left) if word == "V" else "-" for word, left in zip(status, days, strict=True)],
        "Common name": [name or "-" for name in frame["common_name"]],
        "Subject": frame["subject"].tolist(),
        "Expires": _times(frame["expires"]),
        "Revoked": _times(frame["revoked"]),
    }
    return pd.DataFrame(columns, index=pd.Index(serials, dtype=str), dtype=str)


def signing_values(frame: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Give that by which each column of `signing_texts` is sorted: numbers and times as such, letters without case."""
    columns = {
        "Serial": frame["serial"].array,
        "Status": texts["Status"].array,
        "Days left": frame["expires"].where((texts["Days left"] != "-").to_numpy()).array,
        "Common name": texts["Common name"].str.casefold().array,
        "Subject": texts["Subject"].str.casefold().array,
        "Expires": frame["expires"].array,
        "Revoked": frame["revoked"].array,
    }
    return pd.DataFrame(columns, index=texts.index)


def right_until(frame: pd.DataFrame, now: datetime) -> float:
    """Give the time, in seconds as `time.time` has it, up to which the words are right: then somebody has a day less.

    It is a second away at least, and infinite where nobody is valid.
    """
    left = (frame["expires"] - now).dt.total_seconds()[_status(frame, now) == "V"]
    return now.timestamp() + 1 + float((left % _DAY).min()) if len(left) else math.inf


def _status(frame: pd.DataFrame, now: datetime) -> "pd.Series[str]":
    return frame["status"].mask((frame["status"] == "V") & (frame["expires"] < now), "E")


def _times(times: "pd.Series[pd.Timestamp]") -> list[str]:
    texts = np.datetime_as_string(times.dt.tz_localize(None).to_numpy(), unit="s").tolist()
    return ["-" if text == "NaT" else f"{text[:10]} {text[11:]} UTC" for text in texts]
