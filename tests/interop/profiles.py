#!/usr/bin/env python3
"""Webhooks of every profile of the real binary, read and verified by foreign libraries: standardwebhooks from PyPI and
npm, the CloudEvents SDKs from PyPI and npm, OpenSSL, and the crypto module of Node.

    tests/interop/run profiles [path of the binary]

Prints `N passed, N failed`; the exit code says the same.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse

from cloudevents.v1.http import from_http, from_json
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from black_box import PATIENCE, Daemon, Receiver, Tally

EVENTS = 40
# What a JSON serializer leaves as it is, so that a receiver that serializes `payload` again gets `payloadAsString`.
TEXTS = ["æøå 😀 \u2028", "\\ \" / \n\t", "", "0" * 5000]
NO_AUTH = {"kind": "none"}
SUBSCRIPTIONS = {
    "standard": {"profile": "standard"},
    "envelope": {"profile": "envelope"},
    "signed-envelope": {"profile": "signed-envelope"},
    "signed-envelope-rsa": {"profile": "signed-envelope", "overrides": {"signature": "body-rsa-sha256"}},
    "structured": {"profile": "cloudevents", "auth": NO_AUTH, "overrides": {"handshake": "options"}},
    "binary": {"profile": "cloudevents", "auth": NO_AUTH, "overrides": {"body": "cloudevents-binary"}},
    "batch": {"profile": "cloudevents", "auth": NO_AUTH, "overrides": {"body": "cloudevents-batch"}},
    "reference": {"profile": "reference"},
    "bridge": {"profile": "bridge", "auth": NO_AUTH},
}
SUBJECT = 'claim/C 1"%'


def event(number):
    return {
        "type": "claim.created",
        "payload": {"number": number, "text": TEXTS[number % len(TEXTS)], "list": [1, None, True, {}]},
        "metadata": {"user": {"id": "u-1"}, "brokerReference": "456"},
        "references": [{"referenceType": "claim", "referenceId": 'C 1"%', "links": []}],
    }


def check_cloud_event(tally, what, parsed, url, number, payload):
    expected = {"specversion": "1.0", "id": str(number), "source": f"{url}/companies/acme", "type": "claim.created"}
    attributes = parsed.get_attributes() if hasattr(parsed, "get_attributes") else parsed._get_attributes()
    for name, value in expected.items():
        tally.check(f"{what}: {name} is {attributes.get(name)!r}", attributes.get(name) == value)
    # The SDK leaves the encoding of headers to its user.
    tally.check(f"{what}: subject is {attributes['subject']!r}", urllib.parse.unquote(attributes["subject"]) == SUBJECT or attributes["subject"] == SUBJECT)
    tally.check(f"{what}: the data", parsed.data == payload)


def openssl_verifies(folder, public, text, signature):
    paths = {name: os.path.join(folder, name) for name in ("public", "text", "signature")}
    for name, content in (("public", public), ("text", text), ("signature", signature)):
        with open(paths[name], "wb") as file:
            file.write(content)
    command = ["openssl", "dgst", "-sha256", "-verify", paths["public"], "-signature", paths["signature"], paths["text"]]
    return subprocess.run(command, capture_output=True).returncode == 0


def check_message(tally, what, body, payload):
    message, text = body["payload"], body["payloadAsString"]
    tally.check(f"{what}: the text is the payload", json.loads(text) == message)
    tally.check(f"{what}: the payload serialized again is the text", json.dumps(message, separators=(",", ":"), ensure_ascii=False) == text)
    details = dict(message["details"])
    tally.check(f"{what}: the type", details.pop("messageType") == "event.claim.created.v1")
    tally.check(f"{what}: details and user", details == payload and message["user"] == {"id": "u-1"})


def main():
    tally, receiver = Tally(), Receiver()
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(os.path.abspath(sys.argv[1]), folder)
        try:
            secrets = {}
            for name, wishes in SUBSCRIPTIONS.items():
                made = daemon.post("/api/v1/webhooks/subscriptions", {"url": receiver.url(f"/{name}"), "types": ["*"], **wishes})
                tally.check(f"{name} is {made['state']}", made["state"] == "active")
                secrets[name] = made["secret"]
            public = daemon.get("/api/v1/webhooks/public-key")
            payloads = {daemon.post("/api/v1/events", event(number))["id"]: event(number)["payload"] for number in range(EVENTS)}
            deadline = time.monotonic() + PATIENCE
            while len(receiver.hooks) < EVENTS * len(SUBSCRIPTIONS) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            daemon.stop()
        tally.check(f"{len(receiver.hooks)} webhooks arrived", len(receiver.hooks) == EVENTS * len(SUBSCRIPTIONS))
        hooks = []
        for path, headers, body in receiver.hooks:
            name = path.removeprefix("/")
            number = int(headers["webhook-id"].split("_")[1])
            what, payload = f"{name} of {number}", payloads[number]
            hooks.append({"name": name, "secret": secrets[name], "headers": headers, "body": base64.b64encode(body).decode()})
            if not name.startswith("signed-envelope"):
                try:
                    Webhook(secrets[name]).verify(body, headers)
                    tally.check(what, True)
                except WebhookVerificationError as error:
                    tally.check(f"{what}: {error}", False)
            if name in ("structured", "binary"):
                check_cloud_event(tally, what, from_http(headers, body), daemon.url, number, payload)
            elif name == "batch":
                [one] = json.loads(body)
                check_cloud_event(tally, what, from_json(json.dumps(one)), daemon.url, number, payload)
            elif name == "bridge":
                tally.check(f"{what}: the body", json.loads(body) == payload and headers["event-type"] == "claim.created")
            elif name == "reference":
                tally.check(f"{what}: the broker", json.loads(body)["brokerReference"] == "456")
            elif name.startswith("signed-envelope"):
                message = json.loads(body)
                check_message(tally, what, message, payload)
                text, signature = message["payloadAsString"].encode(), base64.b64decode(message["signature"])
                if name == "signed-envelope":
                    key = base64.b64decode(secrets[name].removeprefix("whsec_"))
                    tally.check(f"{what}: the signature", hmac.digest(key, text, hashlib.sha256) == signature)
                else:
                    tally.check(f"{what}: OpenSSL verifies", openssl_verifies(folder, public, text, signature))
                    tally.check(f"{what}: OpenSSL refuses another text", not openssl_verifies(folder, public, text + b" ", signature))
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "profiles.cjs")
    content = json.dumps({"hooks": hooks, "publicKey": public.decode(), "url": daemon.url})
    result = subprocess.run(["node", script, sys.argv[2]], input=content.encode(), stdout=subprocess.PIPE, check=True)
    told = json.loads(result.stdout)
    for failure in told["failures"]:
        tally.check(f"Node: {failure}", False)
    tally.check("Node has checked all webhooks", told["passed"] >= len(hooks))
    tally.passed += told["passed"]
    tally.end()


main()
