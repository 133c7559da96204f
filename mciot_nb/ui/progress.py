"""What is going on while a cell takes more than a moment, with a way to stop it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anywidget
from ipykernel.connect import get_connection_file
from IPython.display import display
from traitlets import Int, Unicode

from mciot_nb.errors import OnboardingError

_HERE = Path(__file__).parent


class Progress(anywidget.AnyWidget):
    """A bar, the seconds, and a Cancel button; `working` makes it.

    The browser shows it once the work has lasted half a second. Cancel interrupts the kernel, as the Lab's own Stop
    does: the kernel itself is busy, and could not hear of a press.
    """

    _esm = _HERE / "progress.js"
    _css = _HERE / "ui.css"
    what = Unicode().tag(sync=True)
    done = Int().tag(sync=True)
    of = Int().tag(sync=True)  # 0 where nobody knows how much there is to do
    state = Unicode("running").tag(sync=True)  # then done, cancelled or failed
    kernel = Unicode().tag(sync=True)  # the Lab's number for this kernel; empty where it can't be interrupted

    def count(self, done: int) -> None:
        """Say how many are done."""
        self.done = done


@contextmanager
def working(what: str, of: int = 0) -> Iterator[Progress]:
    """Show that ``what`` is being done while the body of the ``with`` statement does it; ``of`` is how many, if known.

    Raises OnboardingError (CANCELLED) in place of a KeyboardInterrupt, so that whoever cancels sees a sentence. A saved
    notebook shows nothing of it but where it is open.
    """
    progress = Progress(what=what, of=of, kernel=_kernel())
    view = {"version_major": 2, "version_minor": 0, "model_id": progress.model_id}
    display({"application/vnd.jupyter.widget-view+json": view}, raw=True)  # type: ignore[no-untyped-call]
    try:
        yield progress
    except KeyboardInterrupt:
        progress.state = "cancelled"
        raise OnboardingError(
            f"Cancelled: {what}. What was not finished is not there; run the cell again to make it.", "CANCELLED"
        ) from None
    except BaseException:
        progress.state = "failed"
        raise
    progress.state = "done"


def _kernel() -> str:
    """Give the number under which the Lab knows this kernel: it stands in the name of its connection file."""
    try:
        return Path(get_connection_file()).stem.removeprefix("kernel-")
    except RuntimeError:  # a shell without a Lab
        return ""
