"""Files of secrets are known by their names, wherever they lie."""

from __future__ import annotations

import pytest

from zenray.context.privacy import is_secret_file

SECRET = """.env .env.local .env.production prod.env .netrc .npmrc .pypirc .git-credentials .htpasswd id_rsa
id_ed25519 deploy_id_rsa id_rsa.old server.pem tls.key store.jks cert.p12 cert.pfx my.ppk vault.kdbx credentials
credentials.json client_secret.json secrets.yaml kubeconfig terraform.tfstate prod.auto.tfvars .pgpass"""
PLAIN = """main.py environment.py env.py .env.example .env.sample id_rsa.pub keys.py key.ts secrets.py credentials.go
token.rs README.md tokenizer.json keyboard.key.ts pem.c envoy.yaml .gitignore .environment"""


@pytest.mark.parametrize("folder", ["", "deep/down/", "a b/é/", "win\\dows\\"])
@pytest.mark.parametrize(
    ("name", "is_secret"),
    [(name, True) for name in (SECRET + " " + SECRET.upper()).split()] + [(name, False) for name in PLAIN.split()],
)
def test_names_tell(folder: str, name: str, is_secret: bool) -> None:
    assert is_secret_file(folder + name) == is_secret


@pytest.mark.parametrize("path", [".ssh/config", "home/.aws/config", ".kube/cache/x", "x/.gnupg/y"])
def test_everything_in_folders_for_secrets_is_secret(path: str) -> None:
    assert is_secret_file(path)
