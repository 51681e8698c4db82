#!/usr/bin/env python3
"""Webhooks of the real binary to a receiver behind Authlib's authorization server from PyPI.

    tests/interop/run tokens [path of the binary]

The server issues tokens by client secret and by private_key_jwt, and counts its calls; the receiver takes nothing without a
token of the right client. Keys and secrets are rotated, and the server goes away and comes back.
Prints `N passed, N failed`; the exit code says the same.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer  # noqa: E402
from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, grants  # noqa: E402
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from flask import Flask, request  # noqa: E402
from joserfc import jwt  # noqa: E402
from joserfc.errors import JoseError  # noqa: E402
from joserfc.jwk import KeySet, import_key  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

MANY = 400
FEW = 20
PATIENCE = 60
ALGORITHMS = ["RS256", "ES256", "EdDSA"]
PEM = serialization.Encoding.PEM
# A schedule short enough for a test; the daemon's own rules decide when the token service is asked again.
SCHEDULE = [0.5] * 30
logging.getLogger("werkzeug").setLevel(logging.ERROR)
# RFC 9864 renames EdDSA; the old name is what clients send.
warnings.filterwarnings("ignore")


class Client(ClientMixin):
    """A client of the authorization server: an id with a secret, or with public keys."""

    def __init__(self, identity, method, secret=None, key=None):
        self.client_id, self.method, self.secret, self.key = identity, method, secret, key

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return ""

    def get_allowed_scope(self, scope):
        return " ".join(word for word in scope.split() if word == "hooks")

    def check_redirect_uri(self, _):
        return False

    def check_client_secret(self, secret):
        return self.secret == secret

    def check_endpoint_auth_method(self, method, _):
        return method == self.method

    def check_response_type(self, _):
        return False

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class Assertions(JWTBearerClientAssertion):
    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, site):
        super().__init__()
        self.site, self.leeway = site, 0

    def get_audiences(self):
        return [self.site.token_url]

    def validate_jti(self, _, jti):
        is_new = jti not in self.site.assertions
        self.site.assertions.add(jti)
        return is_new

    def resolve_client_public_key(self, client):
        # The set knows its key by thumbprint alone (RFC 7638): an assertion without it, or with another, finds none.
        public = import_key(client.key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), key_type(client.key))
        return KeySet([import_key({**public.as_dict(private=False), "kid": public.thumbprint()})])

    def process_assertion_claims(self, assertion, key):
        try:
            token = jwt.decode(assertion, key, algorithms=ALGORITHMS)
        except (JoseError, ValueError) as error:
            raise InvalidClientError() from error
        if token.claims["exp"] - token.claims["iat"] > 300 or not token.header.get("kid"):
            raise InvalidClientError()
        self.verify_claims(token.claims)
        return token.claims


def key_type(key):
    return "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC" if isinstance(key, ec.EllipticCurvePrivateKey) else "OKP"


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt"]


class Site:
    """The authorization server, on a port that can be closed and opened again, and the receiver on another."""

    def __init__(self):
        self.clients, self.tokens, self.assertions = {}, {}, set()
        self.calls, self.refused_calls, self.hooks, self.intruders = {}, 0, {}, 0
        self.lock = threading.Lock()
        self.app = Flask("site")
        server = AuthorizationServer(self.app, query_client=self.clients.get, save_token=self.save)
        server.register_grant(ClientCredentials)
        server.register_client_auth_method("private_key_jwt", Assertions(self))
        self.app.add_url_rule("/oauth/token", view_func=lambda: self.issue(server), methods=["POST"], endpoint="token")
        self.app.add_url_rule("/hooks/<client>", view_func=self.receive, methods=["POST"])
        self.port = 0
        self.open()
        self.token_url = f"http://127.0.0.1:{self.port}/oauth/token"
        self.url = f"http://127.0.0.1:{self.serve(0).server_port}"

    def serve(self, port):
        server = make_server("127.0.0.1", port, self.app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def open(self):
        self.authority = self.serve(self.port)
        self.port = self.authority.server_port

    def close(self):
        self.authority.shutdown()
        self.authority.server_close()

    def issue(self, server):
        answer = server.create_token_response()
        if answer.status_code != 200:
            with self.lock:
                self.refused_calls += 1
        return answer

    def save(self, token, asking):
        with self.lock:
            identity = asking.client.client_id
            self.tokens[token["access_token"]] = identity
            self.calls[identity] = self.calls.get(identity, 0) + 1

    def revoke(self, identity):
        with self.lock:
            self.tokens = {token: owner for token, owner in self.tokens.items() if owner != identity}

    def receive(self, client):
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        with self.lock:
            if scheme != "Bearer" or not token:
                self.intruders += 1
            if self.tokens.get(token) != client:
                return {"error": "invalid_token", "you_sent": token}, 401
            self.hooks.setdefault(client, set()).add(request.headers["webhook-id"])
        return "", 204


class Daemon:
    def __init__(self, binary, folder):
        self.binary, self.data_dir = binary, os.path.join(folder, "data")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTINE_")}
        self.environment.update(LUTINE_ENVIRONMENT="development", LUTINE_SERVER__LISTEN="127.0.0.1:0", LUTINE_LOG__FILTER="info")
        self.log = open(os.path.join(folder, "log"), "w+", encoding="utf-8")
        command = [binary, "serve", "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=self.environment, cwd=folder)
        line = self.process.stdout.readline().strip()
        self.url = line.removeprefix("lutine listening on ")
        if not self.url.startswith("http://"):
            raise SystemExit(f"the daemon did not get ready: {line!r}")
        self.key = None

    def command(self, *arguments):
        command = [self.binary, *arguments, "--output", "json", "--data-dir", self.data_dir]
        return json.loads(subprocess.run(command, check=True, capture_output=True, env=self.environment).stdout)

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "X-Api-Key": self.key}
        asking = urllib.request.Request(self.url + path, json.dumps(body).encode() if body is not None else None, headers, method=method)
        with urllib.request.urlopen(asking, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def private_pem(key):
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def until(holds):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


class Trial:
    def __init__(self, binary, folder):
        self.site, self.daemon = Site(), Daemon(binary, folder)
        self.passed = self.failed = 0
        self.subscriptions, self.types = {}, {}

    def check(self, what, holds):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        if not holds:
            print(f"FAILED: {what}")

    def subscribe(self, client, credential):
        self.site.clients[client.client_id] = client
        member = "privateKey" if client.key else "clientSecret"
        auth = {"kind": "oauth2_client_credentials", "tokenUrl": self.site.token_url, "clientId": client.client_id, "scope": "hooks", "method": client.method, member: credential}
        kind = f"claim.number{len(self.types)}"
        body = {
            "url": f"{self.site.url}/hooks/{client.client_id}", "types": [kind], "profile": "standard", "auth": auth,
            "overrides": {"retryScheduleSeconds": SCHEDULE},
        }
        made = json.loads(self.daemon.call("POST", "/api/v1/webhooks/subscriptions", body))
        self.check(f"{client.client_id}: the credential is not shown", made["auth"][member] == "***")
        self.subscriptions[client.client_id], self.types[client.client_id] = made["id"], kind

    def rotate(self, identity, member, credential):
        current = json.loads(self.daemon.call("GET", f"/api/v1/webhooks/subscriptions/{self.subscriptions[identity]}"))
        self.daemon.call("PATCH", f"/api/v1/webhooks/subscriptions/{self.subscriptions[identity]}", {"auth": {**current["auth"], member: credential}})

    def publish(self, identity, count):
        expected = set()
        for start in range(0, count, 100):
            batch = [{"type": self.types[identity], "payload": {"number": number}} for number in range(start, min(start + 100, count))]
            results = json.loads(self.daemon.call("POST", "/api/v1/events/batch", batch))["results"]
            expected |= {f"evt_{result['id']}_{self.subscriptions[identity]}" for result in results}
        return expected

    def arrives(self, identity, expected):
        return until(lambda: expected <= self.site.hooks.get(identity, set()))

    def deliveries(self, identity):
        return self.daemon.call("GET", f"/api/v1/webhooks/subscriptions/{self.subscriptions[identity]}/deliveries?limit=200")

    def attempts(self, hook):
        """All attempts of the delivery of a webhook, once its end is written down."""
        _, event, subscription = hook.split("_")
        path = f"/api/v1/deliveries/{subscription}-{event}"
        until(lambda: json.loads(self.daemon.call("GET", path))["state"] == "delivered")
        return json.loads(self.daemon.call("GET", path))["attempts"]

    def counted(self, outcome):
        """Calls to token services with this outcome, as the daemon counts them."""
        lines = self.daemon.call("GET", "/metrics").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f'lutine_token_requests_total{{outcome="{outcome}"}}'))

    def run(self):
        site = self.site
        self.daemon.command("company", "create", "--slug", "acme")
        self.daemon.key = self.daemon.command("key", "create", "--company", "acme", "--scope", "admin")["key"]
        awkward = "s3cret:+&/%é"
        self.subscribe(Client("basic", "client_secret_basic", awkward), awkward)
        self.subscribe(Client("post", "client_secret_post", awkward), awkward)
        keys = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "p256": ec.generate_private_key(ec.SECP256R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate(),
        }
        for name, key in keys.items():
            self.subscribe(Client(name, "private_key_jwt", key=key), private_pem(key))

        # One call for each subscription, however many events there are.
        for identity, count in [("basic", MANY), ("post", FEW), *((name, FEW) for name in keys)]:
            self.check(f"{identity}: {count} events arrive", self.arrives(identity, self.publish(identity, count)))
            self.check(f"{identity}: one token call, not {site.calls.get(identity)}", site.calls.get(identity) == 1)

        # Revoked tokens are replaced within the attempt.
        site.revoke("basic")
        expected = self.publish("basic", FEW)
        self.check("after a revocation events arrive", self.arrives("basic", expected))
        self.check(f"after a revocation there is one more call, not {site.calls['basic']}", site.calls["basic"] == 2)
        self.check("after a revocation there is one attempt each", all(len(self.attempts(hook)) == 1 for hook in expected))

        # Another secret, and another key, at the server first: nothing arrives until the subscription has it too.
        another = ec.generate_private_key(ec.SECP256R1())
        for identity, member, credential, change in [
            ("post", "clientSecret", "another", lambda client: setattr(client, "secret", "another")),
            ("p256", "privateKey", private_pem(another), lambda client: setattr(client, "key", another)),
        ]:
            change(site.clients[identity])
            site.revoke(identity)
            refused = site.refused_calls
            expected = self.publish(identity, FEW)
            self.check(f"{identity}: the server refuses what was rotated", until(lambda: site.refused_calls > refused))
            self.check(f"{identity}: nothing arrives meanwhile", not expected & site.hooks[identity])
            self.rotate(identity, member, credential)
            self.check(f"{identity}: everything arrives after the rotation", self.arrives(identity, expected))
            classes = {attempt["errorClass"] for hook in expected for attempt in self.attempts(hook)[:-1]}
            self.check(f"{identity}: attempts without a token say so: {classes}", classes == {"token"})
            self.check(f"{identity}: one more call, not {site.calls[identity]}", site.calls[identity] == 2)

        # The server goes away while tokens are refused, and comes back.
        site.close()
        site.revoke("rsa")
        before = self.counted("unavailable")
        expected = self.publish("rsa", FEW)
        self.check("rsa: the outage is noticed", until(lambda: self.counted("unavailable") > before))
        time.sleep(5)
        asked = self.counted("unavailable") - before
        # 20 deliveries with retries every half second want a token some 200 times: pauses of 1, 2 and 4 s leave four calls.
        self.check(f"rsa: the server is left alone in between: {asked} calls", asked <= 4)
        self.check("rsa: nothing arrives meanwhile", not expected & site.hooks["rsa"])
        site.open()
        self.check("rsa: everything arrives after the outage", self.arrives("rsa", expected))
        self.check(f"rsa: one more token, not {site.calls['rsa']}", site.calls["rsa"] == 2)

        self.check(f"{site.intruders} webhooks came without a token", site.intruders == 0)
        self.check("the metrics count the tokens", self.counted("issued") == sum(site.calls.values()))
        logs = "".join(self.deliveries(identity) for identity in self.subscriptions)
        logs += "".join(json.dumps(self.attempts(hook)) for hooks in site.hooks.values() for hook in sorted(hooks)[-FEW:])
        self.daemon.log.seek(0)
        logs += self.daemon.log.read()
        secrets = [awkward, "another", *site.tokens, *(private_pem(key).splitlines()[1] for key in keys.values())]
        self.check("no token and no secret is in a delivery or in the log", not any(secret in logs for secret in secrets if len(secret) > 8))


def main():
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(os.path.abspath(sys.argv[1]), folder)
        try:
            trial.run()
        finally:
            trial.daemon.stop()
    print(f"{trial.passed} passed, {trial.failed} failed")
    sys.exit(trial.failed > 0)


main()
