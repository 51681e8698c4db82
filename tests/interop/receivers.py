#!/usr/bin/env python3
"""The receiver kit's own code, run on webhooks that the Standard Webhooks library and OpenSSL have signed.

    tests/interop/run receivers

Every language whose runtime is on the machine is run on the same cases: good ones, and the same tampered, stale, signed
with another key, without a signature. Prints `N passed, N failed`; the exit code says the same.
"""

import base64
import datetime
import hashlib
import hmac
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile

from standardwebhooks.webhooks import Webhook

KIT = "src/http/docs/receivers"
HERE = "tests/interop/receivers"
NOW = 1_795_343_400
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
BODIES = [b'{"type":"claim.created","data":{"name":"\xc3\xa6\xc3\xb8\xc3\xa5 \xf0\x9f\x98\x80"}}', b"{}", b'{ "a" :\t1.50 }\n']


def key_of(secret):
    return base64.b64decode(secret.removeprefix("whsec_"))


def standard(secret, body, at=NOW):
    when = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc)
    signature = Webhook(secret).sign("evt_1_1", when, body.decode())
    return {"webhook-id": "evt_1_1", "webhook-timestamp": str(at), "webhook-signature": signature}


def rsa_pair(folder):
    private, public = os.path.join(folder, "private.pem"), os.path.join(folder, "public.pem")
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    with open(public) as file:
        return private, file.read()


def rsa_sign(private, text):
    signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", private], input=text.encode(), check=True, capture_output=True)
    return base64.b64encode(signed.stdout).decode()


def cases(folder):
    """(case, whether it must be taken)"""
    private, pem = rsa_pair(folder)
    for number, body in enumerate(BODIES):
        headers = standard(SECRET, body)
        both = {**headers, "webhook-signature": standard(OTHER, body)["webhook-signature"] + " " + headers["webhook-signature"]}
        tampered = body.replace(b"}", b" }", 1)
        unsigned = {**headers, "webhook-signature": "v1, v1a," + headers["webhook-signature"][3:]}
        for name, given, text, taken in [
            ("good", headers, body, True),
            ("rotated", both, body, True),
            ("old but fresh enough", standard(SECRET, body, NOW - 299), body, True),
            ("tampered", headers, tampered, False),
            ("stale", standard(SECRET, body, NOW - 301), body, False),
            ("ahead", standard(SECRET, body, NOW + 301), body, False),
            ("another key", standard(OTHER, body), body, False),
            ("unsigned", unsigned, body, False),
        ]:
            yield dict(name=f"standard {number} {name}", kind="standard", secret=SECRET, headers=given, now=NOW, body=text), taken
        digest = "sha256=" + hmac.new(key_of(SECRET), body, hashlib.sha256).hexdigest()
        for name, given, text, taken in [("good", digest, body, True), ("tampered", digest, tampered, False), ("unsigned", "", body, False)]:
            case = dict(name=f"header-hmac {number} {name}", kind="header-hmac", secret=SECRET, headers={"x-signature": given}, now=NOW, body=text)
            yield case, taken
        text = body.decode()
        signatures = {
            "body-hmac-sha256": base64.b64encode(hmac.new(key_of(SECRET), body, hashlib.sha256).digest()).decode(),
            "body-rsa-sha256": rsa_sign(private, text),
        }
        for kind, signature in signatures.items():
            for name, signed, taken in [("good", text, True), ("tampered", text + " ", False)]:
                message = dict(payload=json.loads(text), payloadAsString=signed, signature=signature)
                body_of = json.dumps(message).encode()
                yield dict(name=f"{kind} {number} {name}", kind=kind, secret=SECRET, pem=pem, headers={}, now=NOW, body=body_of), taken


def by_python(all_cases, _folder):
    spec = importlib.util.spec_from_file_location("verify_webhook", f"{KIT}/verify_webhook.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    taken = []
    for case in all_cases:
        try:
            if case["kind"] == "standard":
                kit.verify_standard(case["secret"], case["headers"], case["body"], case["now"])
            elif case["kind"] == "header-hmac":
                kit.verify_header_hmac(case["secret"], case["headers"]["x-signature"], case["body"])
            elif case["kind"] == "body-hmac-sha256":
                kit.verify_signed_envelope(case["secret"], case["body"])
            else:
                kit.verify_signed_envelope_rsa(case["pem"].encode(), case["body"])
            taken.append(case["name"])
        except ValueError:
            pass
    return taken


def json_file(all_cases, folder):
    path = os.path.join(folder, "cases.json")
    with open(path, "w") as file:
        json.dump([{**case, "body": base64.b64encode(case["body"]).decode()} for case in all_cases], file)
    return path


def by_node(all_cases, folder):
    command = ["node", f"{HERE}/check.mjs", f"{KIT}/verify-webhook.mjs", json_file(all_cases, folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def by_java(all_cases, folder):
    path = os.path.join(folder, "cases.tsv")
    encoded = lambda text: base64.b64encode(text.encode()).decode()
    with open(path, "w") as file:
        for case in all_cases:
            body, headers = base64.b64encode(case["body"]).decode(), case["headers"]
            if case["kind"] == "standard":
                parts = [case["secret"], headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], body, str(case["now"])]
            elif case["kind"] == "header-hmac":
                parts = [case["secret"], headers["x-signature"], body]
            else:
                message = json.loads(case["body"])
                key = case["secret"] if case["kind"] == "body-hmac-sha256" else encoded(case["pem"])
                parts = [key, encoded(message["payloadAsString"]), message["signature"]]
            file.write("\t".join([case["name"], case["kind"], *parts]) + "\n")
    subprocess.run(["javac", "-d", folder, f"{KIT}/VerifyWebhook.java", f"{HERE}/Check.java"], check=True)
    return subprocess.run(["java", "-cp", folder, "Check", path], check=True, capture_output=True, text=True).stdout.splitlines()


def by_go(all_cases, folder):
    module = os.path.join(folder, "go")
    os.mkdir(module)
    for source in [f"{KIT}/verify_webhook.go", f"{HERE}/check_test.go"]:
        shutil.copy(source, module)
    with open(os.path.join(module, "go.mod"), "w") as file:
        file.write("module webhook\n\ngo 1.18\n")
    taken = os.path.join(folder, "taken")
    environment = {**os.environ, "CASES": json_file(all_cases, folder), "TAKEN": taken, "GOCACHE": os.path.join(folder, "gocache"), "GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "test", "./..."], check=True, cwd=module, env=environment, capture_output=True)
    with open(taken) as file:
        return file.read().splitlines()


LANGUAGES = [("Python", None, by_python), ("JavaScript", "node", by_node), ("Java", "javac", by_java), ("Go", "go", by_go)]


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        expected = list(cases(folder))
        all_cases = [case for case, _ in expected]
        for language, program, run in LANGUAGES:
            if program and not shutil.which(program):
                print(f"{language}: no {program} on this machine, not run")
                continue
            taken = set(run(all_cases, folder))
            wrong = [case["name"] for case, must in expected if (case["name"] in taken) != must]
            for name in wrong:
                print(f"{language}: {name}: {'taken' if name in taken else 'refused'}")
            print(f"{language}: {len(expected) - len(wrong)} of {len(expected)} as they must be")
            passed += len(expected) - len(wrong)
            failed += len(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
