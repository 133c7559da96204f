"""caConfig.cnf: read it as openssl does, and write the guide's own for a learner's folder.

The grammar is that of openssl's config(5) man page. Python's configparser differs on quotes, escapes, continued lines
and ``$section::name``; a test holds this reading against libcrypto's own.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.files import DATA, disk_errors, read_file
from mciot_nb.pki.names import BY_LONG_NAME, FIELDS, OTHER_FIELDS, Field

#: How long the guide's CA certificate is valid, in days; and its intermediate certificate; and its device's.
CA_DAYS, INTERMEDIATE_DAYS, DEVICE_DAYS = 7300, 3650, 365

#: The guide's names for the configuration of a root and of an intermediate CA; and easy-rsa's, written out.
CONFIG_NAMES = ("caConfig.cnf", "intermediateConfig.cnf", "safessl-easyrsa.cnf")
#: The guide's configuration: its directives, with comments of ours.
GUIDE_CONFIG = DATA / "caConfig.cnf"

_NAME = r"[\w!.%&*+,/;?@^~|-]+"
_SECTION = re.compile(rf"\[\s*({_NAME}(?:\s+{_NAME})*)\s*\]")
_DIRECTIVE = re.compile(rf"(?:({_NAME})::)?({_NAME})\s*=\s*(.*)", re.DOTALL)
_QUOTED = r"""(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|`(?:\\.|[^`\\])*`?)"""
_UNCOMMENTED = re.compile(rf"(?:{_QUOTED}|\\.|[^#\\\"'`])*\\?", re.DOTALL)
#: A quoted text, an escaped character, a variable ($name, ${name} or $(name), perhaps with section::), or a $ alone.
_TOKEN = re.compile(
    r"(?P<quote>[\"'`])(?P<quoted>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)?|\\(?P<escaped>.?)"
    r"|\$(?:(?P<curly>\{)|(?P<round>\())?(?:(?P<section>\w+)::)?(?P<name>\w+)(?(curly)\}|(?(round)\)))|\$",
    re.DOTALL | re.ASCII,
)
_CONTROL = {"n": "\n", "r": "\r", "b": "\b", "t": "\t"}
#: openssl's words for hashes.
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
DIGESTS: dict[str, Digest] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
#: Every field that a policy may list, by either of openssl's names.
POLICY_FIELDS = {name: field for field in (*FIELDS, *OTHER_FIELDS) for name in (field.long_name, field.short_name)}
#: What ``openssl req`` reads at a prompt at most.
LONGEST_ANSWER = 1024


@dataclass(frozen=True)
class Prompt:
    """How ``openssl req`` asks for one field: in which words, what a blank answer takes, and how long one may be.

    Where ``fixed`` says something, nothing is asked: that is the value. Lengths are in bytes.
    """

    field: Field
    words: str
    default: str = ""
    fixed: str = ""
    shortest: int = 0
    longest: int = LONGEST_ANSWER

    def value(self, answer: str) -> str:
        """Return what an answer makes of the field: the default if it is blank, nothing if it is a ``.``."""
        answer = self.fixed or answer
        return "" if answer == "." else answer or self.default

    def problem(self, value: str) -> str | None:
        """Return one sentence if ``value`` is too short or too long for the configuration, else None."""
        length = len(value.encode(errors="surrogatepass"))
        if not value or self.shortest <= length <= self.longest:
            return None
        bounds = f"{self.field.label} must have {self.shortest} to {self.longest} bytes, says the configuration, "
        return bounds + f"and {value!r} has {length}: give another value."


@dataclass(frozen=True)
class CaConfig:
    """A configuration file as openssl reads it: sections of names and values, every ``$name`` expanded."""

    path: Path
    sections: dict[str, dict[str, str]]
    #: From where relative paths are seen: where the program stood when it read the file, as for openssl.
    base: Path = field(default_factory=Path.cwd, compare=False, repr=False)

    def value(self, section: str, name: str) -> str | None:
        """Return ``name`` of ``section``, or else of the defaults at the top of the file, or None."""
        return self.sections.get(section, {}).get(name, self.sections["default"].get(name))

    def required(self, section: str, name: str) -> str:
        """Return ``name`` as `value` does. Raises: OnboardingError: BAD_CONFIG if it is missing or empty."""
        value = self.value(section, name)
        if not value:
            raise OnboardingError(f"{self.path}: section [ {section} ] has no {name}: add it.", "BAD_CONFIG")
        return value

    def ca(self, name: str) -> str:
        """Return ``name`` of the section that ``default_ca`` names, as ``openssl ca`` does; raises as `required`."""
        return self.required(self.required("ca", "default_ca"), name)

    def ca_path(self, name: str) -> Path:
        """Return the absolute path of a file or folder that is named as `ca` has it."""
        return self.base / self.ca(name)

    def optional(self, name: str) -> str | None:
        """Return ``name`` as `ca` does, or None."""
        return self.value(self.required("ca", "default_ca"), name)

    def other_folder(self, folder: Path) -> str:
        """Return one sentence if the ``database``, and so the place where openssl signs, is not in this folder."""

        def is_here(path: Path) -> bool:
            with suppress(OSError):  # it is not there, or can't be
                return any(each.samefile(folder) for each in (path, *path.parents))
            return False

        named = self.ca_path("database").parent
        if is_here(named):
            return ""
        do = f"if this is a copy or was moved, call CertificateAuthority.relocate(Path({str(folder)!r}))"
        if not Path(self.ca("database")).is_absolute():
            do = f"start in the folder from which {self.ca('database')} is right (os.chdir)"
        elif is_here(self.ca_path("dir")):
            do = "correct its paths, which don't begin with $dir"
        return f"{self.path} names {named}, so openssl would sign into that folder: {do}, and open it again."

    def section(self, name: str) -> dict[str, str]:
        """Return one section whole. Raises: OnboardingError: BAD_CONFIG if the file does not have it."""
        if name not in self.sections:
            known = ", ".join(section for section in self.sections if section != "default")
            raise OnboardingError(f"{self.path} has no section [ {name} ]: it has {known}.", "BAD_CONFIG")
        return self.sections[name]

    @property
    def prompts(self) -> list[Prompt]:
        """What ``openssl req`` asks for; of two prompts for one field the last."""
        name = self.required("req", "distinguished_name")
        keys = {_field_name(key): key for key in self.section(name) if _field_name(key) in BY_LONG_NAME}
        made = []
        for long_name, key in keys.items():
            words, default, fixed = (self.value(name, f"{key}{end}") or "" for end in ("", "_default", "_value"))
            least, most = self.number(f"{key}_min", name), self.number(f"{key}_max", name, LONGEST_ANSWER)
            made.append(Prompt(BY_LONG_NAME[long_name], words, default, fixed, least, most))
        return made

    def number(self, name: str, section: str = "", default: int = 0) -> int:
        """Return a number, such as ``default_days``. Raises: OnboardingError: BAD_CONFIG if it is none."""
        text = self.value(section or self.required("ca", "default_ca"), name) or str(default)
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise OnboardingError(f"{self.path} says {name} = {text}: write a whole number.", "BAD_CONFIG")
        return int(text)

    @property
    def preserve(self) -> bool:
        """Whether a subject stays as it was requested: ``preserve = yes`` in ``[ ca ]``, where openssl looks for it."""
        return (self.value("ca", "preserve") or "no")[0] in "yY"

    @property
    def digest(self) -> Digest:
        """The hash of signatures, ``default_md``. Raises: OnboardingError: BAD_CONFIG if unfit for certificates."""
        word = self.optional("default_md") or "default"
        if word == "default":
            return DIGESTS["sha256"]  # openssl's own for RSA and EC keys
        if word.lower() not in DIGESTS:
            raise OnboardingError(f"{self.path} says default_md = {word}: use {', '.join(DIGESTS)}.", "BAD_CONFIG")
        return DIGESTS[word.lower()]

    @property
    def policy(self) -> list[tuple[Field, str]]:
        """Each field of the policy with match, supplied or optional. Raises: OnboardingError: BAD_CONFIG for others."""
        policy, within = self.section(self.ca("policy")).items(), f"{self.path}: [ {self.ca('policy')} ]"
        for name, word in policy:
            if name not in POLICY_FIELDS:
                raise OnboardingError(f"{within} names the field {name}: use {', '.join(BY_LONG_NAME)}.", "BAD_CONFIG")
            if word not in ("match", "supplied", "optional"):
                raise fault("BAD_CONFIG.policy", within=within, name=name, word=word)
        return [(POLICY_FIELDS[name], word) for name, word in policy]


def read_config(path: Path) -> CaConfig:
    """Read a configuration file. Raises: OnboardingError: BAD_CONFIG, with the line's number, or NO_FILE."""
    try:
        text = read_file(path, f"There is no configuration {path}: create the CA first.").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OnboardingError(f"{path} is not in UTF-8: save it as UTF-8 text.", "BAD_CONFIG") from None
    if "\0" in text:
        raise OnboardingError(f"{path} holds a zero byte, so it is not text: put the file back.", "BAD_CONFIG")
    sections: dict[str, dict[str, str]] = {"default": {}}
    current = "default"
    for number, line in _logical_lines(text):
        try:
            current = _read_line(line, current, sections)
        except OnboardingError as error:
            raise OnboardingError(f"{path}, line {number}: {error}", "BAD_CONFIG") from None
    return CaConfig(path, sections)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, numbered: continued ones joined, comments and edge blanks removed."""
    pending = ""
    for number, line in enumerate(text.split("\n"), 1):
        line = pending + line.rstrip("\r")
        if line.endswith("\\") and not line.endswith("\\\\"):
            pending = line[:-1]
            continue
        pending = ""
        comment_free = _UNCOMMENTED.match(line)
        assert comment_free  # it matches the empty string too
        if stripped := comment_free[0].strip(" \t\r\n"):
            yield number, stripped


def _read_line(line: str, current: str, sections: dict[str, dict[str, str]]) -> str:
    """Add what a line says to ``sections``, and return the section to which the next line belongs."""
    if line.startswith("["):
        if not (header := _SECTION.match(line)):
            raise OnboardingError(f"{line} is not a section: write it as [ name ].")
        sections.setdefault(header[1], {})
        return header[1]
    if re.match(r"\.(include|pragma)\b", line):
        raise OnboardingError("the .include and .pragma directives are not followed here: copy the lines in.")
    if not (directive := _DIRECTIVE.fullmatch(line)):
        raise OnboardingError(f"{line!r} is neither a section nor a line of the form name = value.")
    section = directive[1] or current
    value, values = _expand(directive[3], section, sections), sections.setdefault(section, {})
    values.pop(directive[2], None)  # the last one wins, and counts in its place
    values[directive[2]] = value
    return current


def _expand(text: str, section: str, sections: dict[str, dict[str, str]]) -> str:
    """Resolve quotes, escapes and variables of a value, from left to right."""

    def resolve(token: re.Match[str]) -> str:
        if token["quoted"] is not None:
            return re.sub(r"\\(.)", r"\1", token["quoted"], flags=re.DOTALL)
        if token["escaped"] is not None:
            return _CONTROL.get(token["escaped"], token["escaped"])
        if token["name"] is None:
            raise OnboardingError(f"the variable in {text!r} is not written as $name, ${{name}} or $section::name.")
        where, name = token["section"] or section, token["name"]
        if where == "ENV" and name in os.environ:
            return os.environ[name]
        for each in (where, "default"):
            if name in sections.get(each, {}):
                return sections[each][name]
        if where == "ENV":
            raise OnboardingError(f"the environment variable {name} is not set: set it, or write its value here.")
        raise OnboardingError(f"the variable ${name} is used before it has a value: define it further up.")

    return _TOKEN.sub(resolve, text)


def is_yes(word: str) -> bool:
    """Read a yes or no as openssl does: any word that does not begin like a no is a yes."""
    return word[:1] not in tuple("nNfF0")


def _field_name(key: str) -> str:
    """Remove the prefix of a field's name that tells two of a kind apart: ``0.organizationName``."""
    return re.sub(r"^[^:,.]*[:,.](?=.)", "", key)


def guide_config(folder: Path, prefix: str = "ca") -> bytes:
    """Return the guide's configuration with ``dir`` set to ``folder``, made absolute so that openssl works anywhere.

    ``prefix`` begins the names of key, certificate and CRL; ``intermediate`` makes the guide's intermediateConfig.cnf.
    """
    return re.sub(rb"(?<=/)ca(?=(?:Key|Cert|Crl)\.pem$)", prefix.encode(), with_dir(GUIDE_CONFIG, folder), flags=re.M)


def with_dir(config: Path, folder: Path) -> bytes:
    """Return the text of ``config`` with only its ``dir`` line rewritten, for a CA directory that was moved."""
    text, value = config.read_bytes().decode("utf-8"), Path(folder).absolute().as_posix()
    if re.search(r"[\r\n\ud800-\udfff]", value):
        raise OnboardingError(f"The folder {value!r} has a line break in its name, or is not text: choose another one.")
    if re.search(r"""[#$\\"'`]|^\s|\s$""", value):
        value = '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return re.sub(r"(?m)^([ \t]*dir[ \t]*=[ \t]*)[^\r\n]*", lambda match: match[1] + value, text, count=1).encode()


def find_config(folder: Path) -> Path:
    """Return a CA directory's configuration. Raises: OnboardingError: NO_FILE if it has none, or several others."""
    folder = Path(folder)  # a str serves too
    with disk_errors(folder):
        named = [folder / name for name in CONFIG_NAMES if (folder / name).exists()]
        found = named or sorted(folder.glob("*.cnf"))
    if len(found) == 1:
        return found[0]
    raise fault("NO_FILE.config", folder=folder, has=", ".join(path.name for path in found) or "none")
