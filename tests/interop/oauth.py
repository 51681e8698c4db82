#!/usr/bin/env python3
"""Access tokens of the real binary, fetched, used and verified by Authlib and Requests-OAuthlib from PyPI.

    tests/interop/run oauth [path of the binary]

Prints `N passed, N failed`; the exit code says the same.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

import requests
from authlib.integrations.base_client.errors import OAuthError as AuthlibError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt
from joserfc.jwk import KeySet, import_key
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession

PATIENCE = 60
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
# RFC 9864 has a newer name for EdDSA with Ed25519, of which the library tells.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")


class Daemon:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.data_dir = binary, folder, os.path.join(folder, "data")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTINE_")}
        self.environment.update(LUTINE_ENVIRONMENT="development", LUTINE_SERVER__LISTEN="127.0.0.1:0", LUTINE_LOG__FILTER="warn")
        command = [binary, "serve", "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment, cwd=folder)
        line = self.process.stdout.readline().strip()
        self.url = line.removeprefix("lutine listening on ")
        if not self.url.startswith("http://"):
            raise SystemExit(f"the daemon did not get ready: {line!r}")

    def command(self, *arguments):
        command = [self.binary, *arguments, "--output", "json", "--data-dir", self.data_dir]
        return json.loads(subprocess.run(command, check=True, capture_output=True, env=self.environment).stdout)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def refuses(attempt, kind=Exception):
    try:
        attempt()
    except kind:
        return True
    return False


def main():
    binary = os.path.abspath(sys.argv[1])
    passed = failed = 0

    def check(what, holds):
        nonlocal passed, failed
        passed, failed = passed + bool(holds), failed + (not holds)
        if not holds:
            print(f"FAILED: {what}")

    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(binary, folder)
        try:
            daemon.command("company", "create", "--slug", "acme")
            metadata = requests.get(daemon.url + "/.well-known/oauth-authorization-server", timeout=PATIENCE).json()
            token_url, issuer = metadata["token_endpoint"], metadata["issuer"]
            check("the metadata name the daemon", token_url == daemon.url + "/oauth2/token" and issuer == daemon.url)
            scopes = ["--scope", "events:write", "--scope", "events:read"]
            secret_client = daemon.command("client", "create", "--company", "acme", "--name", "interop", *scopes)
            identity, secret = secret_client["id"], secret_client["secret"]

            def works(what, session, token):
                check(f"{what}: a bearer token for an hour", token["token_type"] == "Bearer" and token["expires_in"] == 3600)
                made = session.post(daemon.url + "/api/v1/events", json={"type": "claim.created", "payload": {"by": what}}, timeout=PATIENCE)
                check(f"{what}: publishes ({made.status_code})", made.status_code == 201)
                event = session.get(f"{daemon.url}/api/v1/events/{made.json()['id']}", timeout=PATIENCE).json()
                check(f"{what}: reads what it published", json.loads(event["payload"]) == {"by": what})

            # Requests-OAuthlib: a secret in the header, and in the form.
            session = RequestsSession(client=BackendApplicationClient(client_id=identity))
            works("requests-oauthlib, header", session, session.fetch_token(token_url, auth=HTTPBasicAuth(identity, secret)))
            session = RequestsSession(client=BackendApplicationClient(client_id=identity, scope=["events:read", "events:write"]))
            token = session.fetch_token(token_url, client_secret=secret, include_client_id=True)
            works("requests-oauthlib, form", session, token)
            check("requests-oauthlib: the scopes", set(token["scope"]) == {"events:read", "events:write"})
            wrong = RequestsSession(client=BackendApplicationClient(client_id=identity))
            check("a wrong secret is an InvalidClientError", refuses(lambda: wrong.fetch_token(token_url, auth=HTTPBasicAuth(identity, "wrong")), InvalidClientError))
            greedy = RequestsSession(client=BackendApplicationClient(client_id=identity, scope=["admin"]))
            check("another scope is an OAuth2Error", refuses(lambda: greedy.fetch_token(token_url, auth=HTTPBasicAuth(identity, secret)), OAuth2Error))

            # Authlib: both kinds of secret.
            for method in ["client_secret_basic", "client_secret_post"]:
                session = OAuth2Session(identity, secret, token_endpoint_auth_method=method, scope="events:read events:write")
                works(f"authlib, {method}", session, session.fetch_token(token_url, grant_type="client_credentials"))

            # Authlib: private_key_jwt. Its assertions name the token URL, as the older rule says, unless told otherwise.
            pairs = {
                "RS256": rsa.generate_private_key(65537, 2048),
                "PS256": rsa.generate_private_key(65537, 2048),
                "ES256": ec.generate_private_key(ec.SECP256R1()),
                "EdDSA": ed25519.Ed25519PrivateKey.generate(),
            }
            for algorithm, pair in pairs.items():
                path = os.path.join(folder, algorithm + ".pem")
                with open(path, "wb") as file:
                    file.write(pair.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
                older = ["--public-key", path, "--aud-policy", "token_endpoint"]
                client = daemon.command("client", "create", "--company", "acme", *older, *scopes)["id"]
                private = pair.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
                key = import_key(private, "EC" if algorithm == "ES256" else "OKP" if algorithm == "EdDSA" else "RSA")

                def fetch(audience, life=300):
                    session = OAuth2Session(client, key, token_endpoint_auth_method="private_key_jwt")
                    claims = {"exp": int(time.time()) + life}
                    session.register_client_auth_method(PrivateKeyJWT(audience, claims=claims, alg=algorithm))
                    return session, session.fetch_token(token_url, grant_type="client_credentials")

                works(f"authlib, private_key_jwt, {algorithm}, token URL", *fetch(token_url))
                check(f"{algorithm}: an assertion for an hour is refused", refuses(lambda: fetch(token_url, 3600), AuthlibError))
                daemon.command("client", "change", client, "--aud-policy", "issuer")
                check(f"{algorithm}: the token URL is no audience any more", refuses(lambda: fetch(token_url), AuthlibError))
                works(f"authlib, private_key_jwt, {algorithm}, issuer", *fetch(issuer))

            # The token itself, verified with the published keys.
            keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=PATIENCE).json())
            session = OAuth2Session(identity, secret, token_endpoint_auth_method="client_secret_basic")
            text = session.fetch_token(token_url, grant_type="client_credentials")["access_token"]
            token = jwt.decode(text, keys, algorithms=["EdDSA"])
            wanted = {"iss": issuer, "aud": issuer, "sub": identity, "client_id": identity}
            jwt.JWTClaimsRegistry(**{name: {"essential": True, "value": value} for name, value in wanted.items()}).validate(token.claims)
            check("the scopes of the token", token.claims["scope"] == "events:read events:write")
            check("the header of the token", token.header["typ"] == "at+jwt" and token.header["alg"] == "EdDSA")
            head, body, signature = text.split(".")
            changed = ".".join([head, body, ("A" if signature[0] != "A" else "B") + signature[1:]])
            check("a changed token is refused by the library", refuses(lambda: jwt.decode(changed, keys, algorithms=["EdDSA"])))
            answer = requests.get(daemon.url + "/api/v1/events", headers={"Authorization": "Bearer " + changed}, timeout=PATIENCE)
            check("and by the daemon", answer.status_code == 401 and answer.json()["code"] == "invalid_token")

            # Revoked: at once, whatever the token says.
            daemon.command("client", "revoke", identity)
            answer = session.get(daemon.url + "/api/v1/events", timeout=PATIENCE)
            check("a live token of a revoked client", answer.status_code == 401 and answer.json()["code"] == "token_revoked")
            check("no more tokens for it", refuses(lambda: session.fetch_token(token_url, grant_type="client_credentials")))
        finally:
            daemon.stop()

    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
