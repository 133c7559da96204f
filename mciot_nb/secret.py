"""A passphrase or password that no repr, log or file shows."""


class Secret:
    """Text that ``repr``, ``str``, logs and tracebacks show as dots. Call `reveal` where it is really used.

    Example: ``workspace.type_passphrase(Secret(getpass()))``.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('••••')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("A Secret is not written into files.")


def reveal(secret: Secret | str) -> str:
    """Return the text of a `Secret`, or plain text as it is."""
    return secret.reveal() if isinstance(secret, Secret) else secret
