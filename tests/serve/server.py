# SPDX-License-Identifier: Apache-2.0
"""Starts `cachalot serve` for tests and talks to it with nothing but the standard library."""
import contextlib
import http.client
import json
import os
import signal
import subprocess
import time


class Server:
    """A server on a free port; `with Server(binary, "--api-key", "k") as server:`."""

    def __init__(self, binary, *flags, log=None):
        self.log = open(log or os.devnull, "w")
        self.process = subprocess.Popen(
            [binary, "serve", "--port", "0", "--threads", "2", *flags],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if "listening on" not in line:
            self.process.kill()
            raise RuntimeError(f"the server did not start: {line!r}")
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def end(self, timeout=30):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def connect(self, timeout=1200):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(self, method, path, body=None, headers=None):
        """(status, headers, body as bytes) of one request on its own connection."""
        connection = self.connect()
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        result = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return result

    def post(self, path, body, headers=None):
        """The JSON answer to a request that must succeed."""
        status, _, data = self.call("POST", path, body, headers)
        assert status == 200, (status, data)
        return json.loads(data)

    def get(self, path):
        status, _, data = self.call("GET", path)
        assert status == 200, (status, data)
        return json.loads(data)

    def stream(self, path, body):
        """The events of a streamed answer, parsed; without [DONE]."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", path, json.dumps({**body, "stream": True}))
            response = connection.getresponse()
            assert response.status == 200, (response.status, response.read())
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])

    def metric(self, name):
        for line in self.call("GET", "/metrics")[2].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def wait_for(self, name, value, seconds=30):
        """Waits until a metric has a value: true, or false when the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.metric(name) == value:
                return True
            time.sleep(0.02)
        return False

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0
