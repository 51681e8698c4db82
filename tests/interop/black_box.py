"""What the checks with foreign libraries share: the real binary, a receiver, and a tally."""

import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 60


class Receiver(ThreadingHTTPServer):
    """Takes webhooks at any path, and consents to whoever asks."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        # Path, headers with names in lower case, body.
        self.hooks = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path="/hooks"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.hooks.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def do_OPTIONS(self):
        self.send_response(200)
        self.send_header("WebHook-Allowed-Origin", self.headers["WebHook-Request-Origin"])
        self.send_header("WebHook-Allowed-Rate", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Daemon:
    def __init__(self, binary, folder):
        self.binary, self.data_dir = binary, os.path.join(folder, "data")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTINE_")}
        self.environment.update(LUTINE_ENVIRONMENT="development", LUTINE_SERVER__LISTEN="127.0.0.1:0", LUTINE_LOG__FILTER="warn")
        command = [binary, "serve", "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment, cwd=folder)
        line = self.process.stdout.readline().strip()
        self.url = line.removeprefix("lutine listening on ")
        if not self.url.startswith("http://"):
            raise SystemExit(f"the daemon did not get ready: {line!r}")
        self.command("company", "create", "--slug", "acme")
        self.key = self.command("key", "create", "--company", "acme", "--scope", "admin")["key"]

    def command(self, *arguments):
        command = [self.binary, *arguments, "--output", "json", "--data-dir", self.data_dir]
        return json.loads(subprocess.run(command, check=True, capture_output=True, env=self.environment).stdout)

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"X-Api-Key": self.key})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    def send(self, path, body, headers):
        """Posts bytes; the status and the answer."""
        request = urllib.request.Request(self.url + path, body, {**headers, "X-Api-Key": self.key})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def post(self, path, body):
        """Posts JSON, which must be taken; the answer."""
        status, answer = self.send(path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if status >= 300:
            raise SystemExit(f"{path} answered {status}: {answer}")
        return answer

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, holds):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        if not holds and self.failed <= 10:
            print(f"FAILED: {what}")

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        raise SystemExit(self.failed > 0)
