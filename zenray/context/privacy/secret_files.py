"""Files that are made to hold secrets, known by their names."""

from __future__ import annotations

import re

_TEMPLATES = frozenset((".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults"))
"""Committed on purpose, to say which variables there are; what looks secret in them is redacted all the same."""

_NAMES = """
.netrc _netrc .npmrc .yarnrc .yarnrc.yml .pypirc .pgpass .my.cnf .mylogin.cnf .s3cfg .boto .dockercfg .git-credentials
.htpasswd .envrc .env .vault-token .vault_pass .bash_history .zsh_history .python_history .psql_history .mysql_history
.node_repl_history credentials credentials.json credentials.toml credentials.yml credentials.yaml credentials.ini
credentials.db credentials.xml credentials.tfrc.json client_secret.json client_secrets.json
application_default_credentials.json service_account.json service-account.json serviceaccount.json .secret .secrets
secrets secret.json secret.toml secret.yaml secret.yml secrets.env secrets.json secrets.toml secrets.yaml secrets.yml
master.key kubeconfig .kubeconfig local.settings.json terraform.tfvars wp-config.php
"""

_ENDINGS = """
.pem .key .p12 .pfx .pkcs12 .p8 .jks .jceks .keystore .bcfks .ppk .gpg .pgp .asc .kdbx .kdb .agekey .ovpn
.mobileprovision .tfstate .tfstate.backup .auto.tfvars .env .htpasswd .keytab .snk
"""

_SECRET_NAMES = frozenset(_NAMES.split())
_SECRET_ENDINGS = tuple(_ENDINGS.split())
_FOLDERS = frozenset((".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".password-store"))
_KEY_NAME = re.compile(r"(?:.*[._-])?id_(?:rsa|dsa|ecdsa|ed25519)(?:[._-](?!pub$).*)?")


def is_secret_file(path: str) -> bool:
    """Whether the file at `path` exists to hold keys, tokens or passwords, going by its name and folders."""
    *folders, name = path.replace("\\", "/").lower().split("/")
    if name in _TEMPLATES:
        return False
    return (
        name in _SECRET_NAMES
        or name.startswith(".env.")
        or name.endswith(_SECRET_ENDINGS)
        or _KEY_NAME.fullmatch(name) is not None
        or not _FOLDERS.isdisjoint(folders)
    )
