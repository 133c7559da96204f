"""The form for a key and its certificate: what kind of key, how many days, and what else the certificate will say."""

from collections.abc import Callable, Iterator
from datetime import datetime

import ipywidgets as widgets  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import GUIDE_CONFIG, CaConfig, read_config
from mciot_nb.pki.extensions import build_extensions
from mciot_nb.pki.keys import KEY_SIZE, P256, KeyChoice, check_bits
from mciot_nb.pki.signing import end_below, end_of, moment
from mciot_nb.ui.base import Form, list_field, number_field
from mciot_nb.ui.card import extension_rows
from mciot_nb.ui.markup import Row, escape, table

#: The kinds of key that are offered, by their bits, and what each means.
_KINDS = {
    2048: ("RSA 2048", "The shortest that is still safe, quick to make; taken everywhere."),
    3072: ("RSA 3072", "As strong as P-256: what is advised for RSA keys that serve beyond 2030."),
    KEY_SIZE: ("RSA 4096", "The guide's: stronger than needed today, and a second or more to make."),
    P256: ("P-256", "An elliptic curve: as strong as RSA 3072, small and quick; made for small devices."),
}
_TITLE = "Extensions that the certificate will get"


class KeyForm(Form):
    """Ask for the kind of a key and for the days of its certificate; ``.value`` is a `KeyChoice`, ``default`` at first.

    ``issuer`` is the certificate of who will sign, None for a CA that signs its own; ``config`` (the guide's, unless
    you give one) and its ``section`` say which extensions the certificate gets. ``made`` says that ``default`` is what
    is there already: as long as it stands in the form nothing is judged, for the same subject finds what is there.
    ``on_days`` is told the days that stand in the form, from the start, whenever they are good.
    """

    def __init__(
        self,
        default: KeyChoice,
        title: str = "Key and validity",
        *,
        issuer: x509.Certificate | None = None,
        config: CaConfig | None = None,
        section: str = "v3_ca",
        made: bool = False,
        on_days: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(title)
        self._value, self._issuer, self._made, self._on_days = default, issuer, default if made else None, on_days
        self._extensions = list(_extension_rows(config or read_config(GUIDE_CONFIG), section, issuer))
        options = [(kind, bits) for bits, (kind, _) in (_KINDS | {default.bits: _kind(default.bits)}).items()]
        self._bits = list_field("Key", options, default.bits)
        self._days = number_field("Days of validity", default.days)
        self._meaning, self._end = (widgets.HTML().add_class("mciot-hint") for _ in range(2))
        folded = f"<details><summary>{_TITLE}</summary>{table(_TITLE, self._extensions)}</details>"
        extensions = widgets.HTML(folded).add_class("mciot-folded")
        self.build(self.row("bits", self._bits), self._meaning, self.row("days", self._days), self._end, extensions)

    @property
    def value(self) -> KeyChoice:
        """What was submitted last."""
        return self._value

    def typed(self) -> KeyChoice:
        """Give what stands in the form now."""
        return KeyChoice(self._bits.value, self._days.value)

    def problems(self) -> dict[str, str]:
        """Ask `mciot_nb.pki` whether such a key can be made, and a certificate of so many days be signed now."""
        found, typed = {}, self.typed()
        for name, check in (("bits", lambda: check_bits(typed.bits)), ("days", lambda: self._end_of(typed))):
            try:
                if typed != self._made:
                    check()
            except OnboardingError as error:
                found[name] = str(error)
        return found

    def refresh(self) -> None:
        """Write what is wrong with the days, or else when they end; and what the kind of key means."""
        super().refresh()
        self._meaning.value = escape(_kind(self.typed().bits)[1])
        good = not self.problems()
        self._end.value = escape(self._ends(self.typed()) if good else "")
        if good and self._on_days:
            self._on_days(self.typed().days)

    def take(self) -> None:
        """Make what stands in the form the value."""
        self._value = self.typed()

    def static_text(self) -> str:
        """Give the submitted choice in one line."""
        return f"{self.title}: {_kind(self._value.bits)[0]}, {self._value.days} days"

    def static_html(self) -> str:
        """Give the submitted choice, and the extensions, as a table."""
        kind, meaning = _kind(self._value.bits)
        rows = [("Key", kind, meaning), ("Validity", f"{self._value.days} days", self._ends(self._value))]
        return table(self.static_text(), rows + self._extensions)

    def _end_of(self, choice: KeyChoice) -> datetime:
        now = moment(None)
        return end_below(self._issuer, now, choice.days) if self._issuer else end_of(now, choice.days)

    def _ends(self, choice: KeyChoice) -> str:
        """Say when a certificate ends that is signed now; nothing where none can be."""
        try:
            return f"Signed now, it expires on {self._end_of(choice):%Y-%m-%d %H:%M} UTC, in {_span(choice.days)}."
        except OnboardingError:
            return ""


def _kind(bits: int) -> tuple[str, str]:
    other = (f"RSA {bits}" if bits else "another kind", "The kind of key that is there; it is not offered anew.")
    return _KINDS.get(bits, other)


def _span(days: int) -> str:
    """Say how long so many days are, in years where they are full ones as the guide counts them, or many."""
    years = round(days / 365.25) if days % 365 else days // 365
    if years < 2 and days != 365:
        return f"{days} days" if days != 1 else "1 day"
    return ("about " if days % 365 else "") + (f"{years} years" if years != 1 else "1 year")


def _extension_rows(config: CaConfig, section: str, issuer: x509.Certificate | None) -> Iterator[Row]:
    """Show the extensions that a section makes; what is made from a key has no value before there is one."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()  # stands for the one that will be made
    try:
        extensions = build_extensions(config, section, key, issuer)
    except OnboardingError as error:
        yield "Extensions", f"✗ {error}", ""
        return
    ca = any(isinstance(extension.value, x509.BasicConstraints) and extension.value.ca for extension in extensions)
    for extension in extensions:
        for name, content, meaning in extension_rows([extension], ca):
            own = isinstance(extension.value, x509.SubjectKeyIdentifier)
            of_issuer = isinstance(extension.value, x509.AuthorityKeyIdentifier)
            yield name, "made from the key" if own or (of_issuer and not issuer) else content, meaning
