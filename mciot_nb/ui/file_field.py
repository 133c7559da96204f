"""A field for a file whose bytes are in no file that the notebook saves, whatever was chosen or dropped by mistake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
from traitlets import Int, Unicode

from mciot_nb.errors import OnboardingError
from mciot_nb.ui.markup import StaticPicture

_HERE = Path(__file__).parent
#: Bytes that a file may have: a certificate has some thousands, and a long chain some ten thousands.
LONGEST = 500_000
_PROBLEMS = {
    "none": "That was no file: drop a file, or choose one.",
    "several": "These were several files: drop one at a time.",
    "folder": "{name} is a folder: open it, and drop the file that is in it.",
    "unreadable": "{name} can't be read: look whether it is a folder, or still there.",
}


class FileField(StaticPicture, anywidget.AnyWidget):
    """A file input, and a place to drop a file; the bytes go to the kernel in a message, never as the widget's state.

    ``take`` gets the file's name and bytes, and gives the sentence to be shown under the field; it may raise
    OnboardingError. Nothing here keeps the bytes. ``longest`` is how many there may be.
    """

    _esm = _HERE / "file_field.js"
    _css = _HERE / "ui.css"
    label = Unicode("File").tag(sync=True)
    longest = Int(LONGEST).tag(sync=True)
    status = Unicode("").tag(sync=True)

    def __init__(self, label: str, take: Callable[[str, bytes], str], longest: int = LONGEST) -> None:
        super().__init__(label=label, longest=longest)
        self._take = take
        self.on_msg(self._receive)

    def _receive(self, _widget: object, content: dict[str, Any], buffers: list[Any]) -> None:
        self.status = ""  # so that the same sentence a second time is a change, and is shown
        name, problem = str(content.get("name", "")), content.get("problem")
        try:
            if problem in _PROBLEMS:
                raise OnboardingError(_PROBLEMS[problem].format(name=name))
            size = len(buffers[0]) if buffers else int(content.get("size", 0))
            if size > self.longest:
                raise OnboardingError(
                    f"{name} has {size:,} bytes, and a certificate some thousands: it was not read; choose another."
                )
            self.status = self._take(name, bytes(buffers[0]) if buffers else b"")
        except OnboardingError as error:
            self.status = f"✗ {error}"

    def static_text(self) -> str:
        """Say that a file can be given here."""
        return f"{self.label}: to be chosen here."
