"""What all forms share: fields with what is wrong beside each, a button, and a static picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.errors import OnboardingError
from mciot_nb.ui.markup import StaticPicture, escape
from mciot_nb.ui.secret import SecretField

_LABEL = {"description_width": "14em"}
_SUBMITTED = "✓ Submitted. Now run the cells below."
_CHANGED = "Changed since: press Submit."


class Form(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """Fields with what is wrong beside each, a Submit button, and a line that says what came of it.

    A form of one's own makes its rows with `row`, gives its parts to `build`, and overrides `problems` and `take`.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._notes: dict[str, Any] = {}
        self._style = widgets.HTML(style())
        self._heading = widgets.HTML(f'<span class="mciot-title">{escape(title)}</span>')
        self._button = widgets.Button(description="Submit", button_style="primary").add_class("mciot-submit")
        self._button.on_click(lambda _: self.submit())
        self._message = widgets.HTML().add_class("mciot-message")
        self.add_class("mciot-form")

    def row(self, name: str, field: Any) -> Any:
        """Put a place for its problem beside ``field``; both get CSS classes made of ``name``."""
        css_class = f"mciot-{name.replace('_', '-')}"
        self._notes[name] = widgets.HTML().add_class("mciot-note").add_class(f"{css_class}-note")
        field.add_class(css_class)
        if not isinstance(field, SecretField):
            field.observe(self._edited, "value")
        return widgets.HBox([field, self._notes[name]]).add_class("mciot-row")

    def build(self, *parts: Any, buttons: tuple[Any, ...] = ()) -> None:
        """Show the heading, the parts, the buttons and the message, and what is wrong from the start."""
        bottom = widgets.HBox([self._button, *buttons, self._message]).add_class("mciot-row")
        self.children = [self._style, self._heading, *parts, bottom]
        self.refresh()

    def problems(self) -> Mapping[str, str]:
        """Say for each field by name what is wrong with it; empty where the form can be submitted."""
        raise NotImplementedError

    def warnings(self) -> Mapping[str, str]:
        """Say for each field by name what is allowed but hardly meant."""
        return {}

    def take(self) -> None:
        """Make the fields' values the form's value."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Write what is wrong beside each field."""
        problems, warnings = self.problems(), self.warnings()
        for name, note in self._notes.items():
            note.value = _note("problem", "✗", problems.get(name)) or _note("warning", "⚠", warnings.get(name))

    def submit(self) -> None:
        """Do what the button does: take the values, or say what to mend first."""
        self.refresh()
        problems = self.problems()
        if problems:
            self._say(f"✗ Not submitted: {fields_to_mend(problems)}")
            return
        try:
            self.take()
        except OnboardingError as error:
            self._say(f"✗ {error}")
        except OSError as error:  # a form may keep its value in a file
            self._say(f"✗ Not submitted: {error.strerror or error}. Mend that, and press Submit again.")
        else:
            self._say(_SUBMITTED)

    def _edited(self, _change: object) -> None:
        self.refresh()
        self._say(_CHANGED)

    def _say(self, sentence: str) -> None:
        self._message.value = f'<span role="status">{escape(sentence)}</span>'


def fields_to_mend(problems: Mapping[str, str]) -> str:
    """Say how many fields have a problem beside them."""
    return f"{'1 field' if len(problems) == 1 else f'{len(problems)} fields'} to mend first, see above."


def style() -> str:
    """Give the style sheet of all forms, to be shown with each."""
    return f"<style>{Path(__file__).with_name('ui.css').read_text('utf-8')}</style>"


def number_field(label: str, value: int) -> Any:
    """Make a field for a whole number, which says at each key what stands in it."""
    return widgets.IntText(
        description=label, value=value, continuous_update=True, style=_LABEL, layout=_as_wide_as("22em")
    )


def list_field(label: str, options: list[tuple[str, int]], value: int) -> Any:
    """Make a list of words, each standing for a number, of which one is chosen."""
    return widgets.Dropdown(description=label, options=options, value=value, style=_LABEL, layout=_as_wide_as("36em"))


def _note(kind: str, sign: str, sentence: str | None) -> str:
    return f'<span role="status" class="mciot-{kind}">{sign} {escape(sentence)}</span>' if sentence else ""


def text_field(label: str, value: str, example: str = "") -> Any:
    """Make a line to type in; ``example`` stands in it, pale, while it is empty."""
    return widgets.Text(description=label, value=value, placeholder=example, style=_LABEL, layout=_as_wide_as("36em"))


def choice(label: str, options: list[tuple[str, bool]], value: bool) -> Any:
    """Make a choice between a few words, each standing for a value."""
    return widgets.RadioButtons(
        description=label, options=options, value=value, style=_LABEL, layout=_as_wide_as("36em")
    )


def _as_wide_as(width: str) -> Any:
    return widgets.Layout(flex=f"1 1 {width}", max_width=width, min_width="0")  # narrower where the window is
