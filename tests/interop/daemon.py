"""The real binary for the checks beside this file: started in a directory of its own, asked over HTTP and by its command line."""

import json
import os
import subprocess
import urllib.error
import urllib.request

PATIENCE = 60


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
        self.key = None

    def command(self, *arguments):
        command = [self.binary, *arguments, "--output", "json", "--data-dir", self.data_dir]
        return json.loads(subprocess.run(command, check=True, capture_output=True, env=self.environment).stdout)

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

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"X-Api-Key": self.key})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
