#!/usr/bin/env python3
"""A thousand webhooks of the real binary, verified by the Standard Webhooks library from PyPI.

    tests/interop/run webhooks [path of the binary]

Prints `N passed, N failed`; the exit code says the same.
"""

import json
import os
import sys
import tempfile
import time

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from black_box import PATIENCE, Daemon, Receiver, Tally

EVENTS = 1000
AWKWARD = ["æøå 😀 \u2028", "\\ \" / \b\f\n\r\t", "", "0" * 5000]


def refuses(verify):
    try:
        verify()
    except WebhookVerificationError:
        return True
    return False


def main():
    tally, receiver = Tally(), Receiver()
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(os.path.abspath(sys.argv[1]), folder)
        try:
            made = daemon.post("/api/v1/webhooks/subscriptions", {"url": receiver.url(), "types": ["*"], "profile": "standard"})
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
    for _, headers, body in receiver.hooks:
        identity = headers.get("webhook-id")
        try:
            content = webhook.verify(body, headers)
            tally.check(f"{identity}: the payload", content["data"] == expected.pop(identity, None) and content["type"] == "claim.created")
        except WebhookVerificationError as error:
            tally.check(f"{identity}: {error}", False)
    tally.check(f"{len(expected)} events did not arrive", not expected)
    _, headers, body = receiver.hooks[0]
    tally.check("another secret is refused", refuses(lambda: stranger.verify(body, headers)))
    tally.check("a changed body is refused", refuses(lambda: webhook.verify(body + b" ", headers)))
    tally.check("a changed id is refused", refuses(lambda: webhook.verify(body, {**headers, "webhook-id": "evt_0_1"})))
    tally.end()


main()
