"""Measure what real clients say when they are refused: write data/client_words.csv, by ``python -m tools.measure_clients``.

A local platform in a temporary workspace refuses each client for each cause, on TLS 1.2 and 1.3; so do servers with a
fault of their own, and one that is written in Java, as the real platform is. A row is what one client said of one cause;
what it also says where nothing is wrong is left out. It takes some fifteen minutes, and needs the programs that
`CLIENTS` names, mosquitto's broker, and Debian's libmqtt-client-java.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE, DRIVERS = ROOT / "data" / "client_words.csv", ROOT / "tools" / "clients"
HEADING = ("code", "client", "version", "tls", "words")
VERSIONS = ("TLSv1.2", "TLSv1.3")
#: What is installed for the measurement, and for nothing else.
PYTHON_CLIENTS = {
    "paho-mqtt 2.1": ("paho-mqtt==2.1.0",),
    "paho-mqtt": ("paho-mqtt==2.2.0",),
    "gmqtt": ("gmqtt==0.8.0",),
    "aiomqtt": ("aiomqtt==2.5.1", "paho-mqtt==2.2.0"),
}
NODE_CLIENT = "mqtt@5.16.0"
JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("mqtt-client", "hawtbuf", "hawtdispatch", "hawtdispatch-transport"))
#: Seconds in which a client has said what it has to say.
SECONDS = 6.0
STORE_PASSWORD = "kein-geheimnis"
#: What differs from run to run or from machine to machine is taken out of the words, rule by rule.
CLEANING = [
    (r"\x1b\[[0-9;]*m", ""),  # colours
    (r"\(_ssl\.c:\d+\)", "(_ssl.c)"),
    (r":[./\w]*\.c:\d+:", "::"),  # OpenSSL's file and line
    (r"\b[0-9A-F]{12,16}:error:", "error:"),  # its thread
    (r"\b(127\.0\.0\.1|localhost|127\.1|[a-z.-]*\.invalid)\b", "HOST"),
    (r"(?<=[\s(:'\"=])/[^\s:'\",)]+/", ""),  # folders
    (r"0x[0-9a-f]{6,}", "0x…"),
    (r"(?<=fd=)\d+|(?<= after )\d+(?= ms)|(?<=laddr=)\S+|(?<=raddr=)\S+", "…"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*|\w{3} \w{3} +\d+ \d\d:\d\d:\d\d( \w{3,4})? \d{4}", "TIME"),
    (r"\s+", " "),
]
#: Lines that are about every connection, whatever comes of it.
NOISE = re.compile(r"sending CONNECT|^CONNECTED$|^Connecting to|^\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Attempt:
    """How a client is told to connect. ``wait`` is the pause between handshake and CONNECT, for races on TLS 1.3."""

    host: str
    port: int
    id: str
    ca: str
    cert: str = ""
    key: str = ""
    passphrase: str = ""
    user: str = ""
    password: str = ""
    plain: bool = False
    websocket: bool = False
    mqtt5: bool = False
    tls: str = VERSIONS[1]
    wait: float = 0


def clean(line: str, attempt: Attempt) -> str:
    """Return a line without addresses, times, ports, folders and names of this attempt."""
    for pattern, put in CLEANING:
        line = re.sub(pattern, put, line)
    line = re.sub(rf"\b{attempt.port}\b", "PORT", line)
    return (line.replace(attempt.id, "CLIENTID") if attempt.id else line).strip()


def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program without a terminal, at which it could ask for something; what it printed in time counts."""
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        errors="replace",
        **options,
    )
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    said, _ = process.communicate()
    timer.cancel()
    return subprocess.CompletedProcess(command, process.returncode, said)


class Driver:
    """A program that makes the attempts which it reads as lines, and answers each with a line."""

    def __init__(self, command: list[str], write: Callable[[Attempt], str], read: Callable[[str], list[str]], **options: Any) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **pipes, **options)
        self.write, self.read = write, read

    def __call__(self, attempt: Attempt) -> list[str]:
        """Make an attempt, and return what the client said."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(self.write(attempt) + "\n")
        self.process.stdin.flush()
        return self.read(self.process.stdout.readline())
