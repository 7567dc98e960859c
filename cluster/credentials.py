"""Passwords inside URLs: refused, and never shown.

What is typed on a command line ends in process lists, in the entrypoint of a Ray job, in logs and
in what a sweep tells to type next.
"""

import re
from collections.abc import Iterable

# user:password@, wherever a URL or what was meant as one has it; a file's name may hold anything
_PASSWORD = re.compile(r"(?<![\w+])(?!sqlite:|file:)[a-z][\w+]+(?::/|//)\S*:\S*@", re.IGNORECASE)
# a web address may have a token instead of both
_TOKEN = re.compile(r"https?:/+[^\s/]*@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"[?&][^\s=&]*(?:password|passwd|pwd|secret|token|api_?key|access_?key|credential)[^\s=&]*=",
    re.IGNORECASE,
)
_NO_SCHEME = re.compile(r"^(?![\w+]+:/)[^\s/]+:\S+@")
_URL_OPTIONS = ("study-storage", "tracking-uri")


def refuse_secret(field: str, text: str) -> None:
    """Raise ValueError naming the field, and not the text, when a URL has a password in it."""
    forms = [_PASSWORD, _TOKEN, _PARAMETER, *([_NO_SCHEME] if field in _URL_OPTIONS else [])]
    if any(form.search(text) for form in forms):
        raise ValueError(
            f"{field}=REDACTED; must hold no password or token, which process lists, logs and "
            "dashboards would show: databases and MLflow read theirs elsewhere (docs/security.md)"
        )


def refuse_secrets(arguments: Iterable[str]) -> None:
    """Raise ValueError naming the option when an argument of a command has a password in it."""
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            refuse_secret(name[2:], value)
        else:
            refuse_secret(option or "argument", argument)
        option = argument[2:] if argument.startswith("--") and not equals else ""
