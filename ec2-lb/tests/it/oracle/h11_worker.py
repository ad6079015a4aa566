"""The independent reader of `tests/it/oracle.rs`: h11, as a worker and as a judge of the client's bytes.

It listens on a port of its own, prints the port, and then answers commands, one line of JSON each:

    {"view": "<hex>"}   what h11 makes of these bytes, sent by a client on one connection
    {"take": true}      what h11 has made of the load balancer's bytes since the last time

It ends when its standard input does, and with it the test.

h11 reads as it always does, with two additions, both named in the table of `tests/it/oracle.rs`: empty
lines before a request are skipped, and a connection of HTTP/1.0 may be kept alive.
"""

import json
import socket
import sys
import threading
import time

import h11

PATIENCE_SECONDS = 10


def text(data):
    return bytes(data).decode("latin-1")


def lines(headers):
    return [[text(name), text(value)] for name, value in headers]


class Reading:
    """One request as h11 reads it, whole or not."""

    def __init__(self):
        self.request = None
        self.body = bytearray()
        self.trailers = []

    def take(self, event):
        """Whether the request is whole now."""
        if isinstance(event, h11.Request):
            self.request = event
        elif isinstance(event, h11.Data):
            self.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self.trailers = lines(event.headers)
            return True
        return False

    def told(self, raw=b""):
        if self.request is None:
            return None
        return {
            "method": text(self.request.method),
            "target": text(self.request.target),
            "version": text(self.request.http_version),
            "headers": lines(self.request.headers),
            "body": text(self.body),
            "trailers": self.trailers,
            "raw": text(raw),
        }


def connection_options(request):
    values = [value for name, value in request.headers if name == b"connection"]
    return [option.strip().lower() for value in values for option in value.split(b",")]


def goes_on(connection, request):
    """Whether another request may follow on the client's connection."""
    is_old = request.http_version < b"1.1"
    if is_old and b"close" not in connection_options(request):
        return b"keep-alive" in connection_options(request)
    return connection.their_state is not h11.MUST_CLOSE


def view(data):
    """All requests in the bytes of one connection, and how they end."""
    told = {"requests": [], "end": "whole", "error": None, "begun": None}
    while data:
        if data.startswith(b"\r\n"):
            data = data[2:]
            continue
        connection, reading = h11.Connection(h11.SERVER), Reading()
        connection.receive_data(data)
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    told.update(end="unfinished", begun=reading.told(data))
                    return told
                if reading.take(event):
                    break
        except h11.RemoteProtocolError as error:
            told.update(end="error", error=str(error), begun=reading.told(data))
            return told
        rest, _ = connection.trailing_data
        told["requests"].append(reading.told(data[: len(data) - len(rest)]))
        if not goes_on(connection, reading.request):
            told["end"] = "closed"
            return told
        data = bytes(rest)
    return told


class Worker:
    def __init__(self):
        self.changed = threading.Condition()
        # Connections in the middle of a request.
        self.busy = set()
        self.clear()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def clear(self):
        self.requests, self.unfinished, self.errors = [], [], []

    def run(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def take(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.changed:
            while self.busy and time.monotonic() < deadline:
                self.changed.wait(deadline - time.monotonic())
            told = {"requests": self.requests, "unfinished": self.unfinished, "errors": self.errors}
            if self.busy:
                told["errors"] = self.errors + ["a request neither ends nor is broken off"]
            self.clear()
            return told

    def serve(self, stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = h11.Connection(h11.SERVER)
        with stream:
            try:
                while self.one(stream, connection):
                    connection.start_next_cycle()
            except OSError:
                # The load balancer has gone; what it left behind has been told.
                pass
        self.is_busy(stream, False)

    def one(self, stream, connection):
        """Reads and answers one request; whether another may follow."""
        reading, has_ended, got = Reading(), False, bytearray()
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                with self.changed:
                    if has_ended:
                        self.unfinished.append(reading.told(got))
                    else:
                        self.errors.append(f"{error}, in {text(got)!r}")
                return False
            if isinstance(event, h11.ConnectionClosed):
                return False
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    stream.sendall(connection.send(go_on))
                data = self.receive(stream)
                has_ended = not data
                got += data
                connection.receive_data(data)
                if data:
                    self.is_busy(stream, True)
            elif reading.take(event):
                break
        return self.answer(stream, connection, reading, got)

    def receive(self, stream):
        try:
            return stream.recv(65536)
        except ConnectionResetError:
            return b""

    def answer(self, stream, connection, reading, got):
        request = reading.request
        content = request.method + b" " + request.target
        if request.target != b"/healthcheck":
            with self.changed:
                self.requests.append(reading.told(got))
        self.is_busy(stream, bool(connection.trailing_data[0]))
        length = str(len(content)).encode()
        answer = connection.send(h11.Response(status_code=200, headers=[("Content-Length", length)]))
        if request.method != b"HEAD":
            answer += connection.send(h11.Data(data=content))
        answer += connection.send(h11.EndOfMessage())
        stream.sendall(answer)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def is_busy(self, stream, is_busy):
        with self.changed:
            (self.busy.add if is_busy else self.busy.discard)(id(stream))
            self.changed.notify_all()


def main():
    worker = Worker()
    threading.Thread(target=worker.run, daemon=True).start()
    print(worker.listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        told = view(bytes.fromhex(command["view"])) if "view" in command else worker.take()
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
