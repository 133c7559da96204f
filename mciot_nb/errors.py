"""The one exception that this package raises on purpose: a plain sentence for the person in front of it."""


class OnboardingError(Exception):
    """Something that we can name went wrong: one sentence says what, where, and what to do next.

    ``code`` is a stable word for programs (``WRONG_PASSPHRASE``, ``CLIENT_ID_MISMATCH`` …), empty where nobody branches
    on it.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """Show the sentence alone in a notebook: a traceback through our code would teach nothing."""
        return [str(self)]
