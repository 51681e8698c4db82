#!/usr/bin/env python3
"""A thousand webhooks of the real binary, verified by the Standard Webhooks library from PyPI.

    tests/interop/run webhooks [path of the binary]

Prints `N passed, N failed`; the exit code says the same.
"""

import json
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from daemon import PATIENCE, Daemon
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

EVENTS = 1000
AWKWARD = ["æøå 😀 \u2028", "\\ \" / \b\f\n\r\t", "", "0" * 5000]


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.hooks = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.hooks.append((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def refuses(verify):
    try:
        verify()
    except WebhookVerificationError:
        return True
    return False


def main():
    binary = os.path.abspath(sys.argv[1])
    passed = failed = 0

    def check(what, holds):
        nonlocal passed, failed
        passed, failed = passed + bool(holds), failed + (not holds)
        if not holds and failed <= 10:
            print(f"FAILED: {what}")

    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(binary, folder)
        try:
            daemon.command("company", "create", "--slug", "acme")
            daemon.key = daemon.command("key", "create", "--company", "acme", "--scope", "admin")["key"]
            url = f"http://127.0.0.1:{receiver.server_port}/hooks"
            made = daemon.post("/api/v1/webhooks/subscriptions", {"url": url, "types": ["*"], "profile": "standard"})
            expected = {}
            for start in range(0, EVENTS, 100):
                payloads = [{"number": number, "text": AWKWARD[number % len(AWKWARD)]} for number in range(start, start + 100)]
                batch = [{"type": "claim.created", "payload": json.dumps(payload, ensure_ascii=number % 2 == 0)} for number, payload in enumerate(payloads)]
                results = daemon.post("/api/v1/events/batch", batch)["results"]
                expected.update((f"evt_{result['id']}_{made['id']}", payload) for result, payload in zip(results, payloads))
            deadline = time.monotonic() + PATIENCE
            while len(receiver.hooks) < EVENTS and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            daemon.stop()

    webhook, stranger = Webhook(made["secret"]), Webhook("whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    for headers, body in receiver.hooks:
        headers = {name.lower(): value for name, value in headers.items()}
        identity = headers.get("webhook-id")
        try:
            content = webhook.verify(body, headers)
            check(f"{identity}: the payload", content["data"] == expected.pop(identity, None) and content["type"] == "claim.created")
        except WebhookVerificationError as error:
            check(f"{identity}: {error}", False)
    check(f"{len(expected)} events did not arrive", not expected)
    headers, body = receiver.hooks[0]
    headers = {name.lower(): value for name, value in headers.items()}
    check("another secret is refused", refuses(lambda: stranger.verify(body, headers)))
    check("a changed body is refused", refuses(lambda: webhook.verify(body + b" ", headers)))
    check("a changed id is refused", refuses(lambda: webhook.verify(body, {**headers, "webhook-id": "evt_0_1"})))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
