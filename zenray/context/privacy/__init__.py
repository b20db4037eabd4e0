"""What must not leave a file: ignored files, files of secrets, and secrets in other files."""

from zenray.context.privacy.ignore import IgnoreRules
from zenray.context.privacy.secret_files import is_secret_file
from zenray.context.privacy.secrets import Span, redact, secrets_in

__all__ = ["IgnoreRules", "Span", "is_secret_file", "redact", "secrets_in"]
