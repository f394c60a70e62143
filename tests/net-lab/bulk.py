#!/usr/bin/env python3
"""Moves bytes over TCP and looks at every one of them.

serve PORT                               answers whoever connects
put HOST PORT CONTROL SECONDS [SAMPLES]  sends for so long; prints bytes, seconds
get HOST PORT CONTROL SECONDS [SAMPLES]  has the server send for so long; prints the same
crowd HOST PORT COUNT                    opens so many connections, uses each, then closes them

SAMPLES is a file for lines of seconds, window in segments, round-trip time in milliseconds, as TCP_INFO of who sends here tells them.
"""
import random
import resource
import select
import socket
import struct
import sys
import threading
import time

# The stream is these bytes over and over: a displaced or changed byte shows.
PERIOD = 1_000_003
PATTERN = random.Random(5).randbytes(PERIOD)
DOUBLE = memoryview(PATTERN + PATTERN)
CHUNK = 64 * 1024
# A side that hears nothing for so long gives up.
PATIENCE = 120


def line_of(connection):
    """A line, byte by byte: what comes after it is not for us."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError(line)
        line += byte
    return line.decode().split()


def send_for(connection, control, seconds, samples=None):
    """Sends the stream for so long and returns how many bytes that was."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
    done = threading.Event()
    sampler = threading.Thread(target=sample, args=(connection, samples, done))
    if samples:
        sampler.start()
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        at = sent % PERIOD
        sent += connection.send(DOUBLE[at:at + CHUNK])
    connection.shutdown(socket.SHUT_WR)
    done.set()
    if samples:
        sampler.join()
    return sent


def receive(connection):
    """Takes the stream to its end and returns how many bytes that was; raises where one is wrong."""
    got, buffer = 0, bytearray(CHUNK)
    view = memoryview(buffer)
    while count := connection.recv_into(buffer):
        at = got % PERIOD
        if view[:count] != DOUBLE[at:at + count]:
            wrong = next(i for i in range(count) if buffer[i] != DOUBLE[at + i])
            raise ValueError(f"byte {got + wrong} is wrong")
        got += count
    return got


def sample(connection, path, done):
    began = time.monotonic()
    with open(path, "w") as out:
        while not done.wait(0.05):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            # struct tcp_info: eight single bytes, then words; tcpi_rtt is the 16th of them, tcpi_snd_cwnd the 19th.
            words = struct.unpack_from("24I", info, 8)
            print(f"{time.monotonic() - began:.3f} {words[18]} {words[15] / 1000:.3f}", file=out)


def answer(connection):
    with connection:
        connection.settimeout(PATIENCE)
        match line_of(connection):
            case ["put"]:
                try:
                    connection.sendall(f"{receive(connection)}\n".encode())
                except ValueError as wrong:
                    connection.sendall(f"{wrong}\n".encode())
            case ["get", control, seconds]:
                send_for(connection, control, float(seconds))
                connection.recv(1)
            case ["echo"]:
                while data := connection.recv(CHUNK):
                    connection.sendall(data)


def serve(port):
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    # The crowd's connections are answered by one thread, which knows them by their first word.
    crowd = select.poll()
    members = {}

    def attend():
        while True:
            for number, _ in crowd.poll(100):
                connection = members[number]
                try:
                    data = connection.recv(64)
                    if data:
                        connection.sendall(data)
                        continue
                except OSError:
                    pass
                crowd.unregister(number)
                members.pop(number).close()

    threading.Thread(target=attend, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        if connection.recv(1, socket.MSG_PEEK) == b"c":
            members[connection.fileno()] = connection
            crowd.register(connection, select.POLLIN)
        else:
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def connect(host, port):
    connection = socket.create_connection((host, port), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def put(host, port, control, seconds, samples=None):
    with connect(host, port) as connection:
        connection.sendall(b"put\n")
        began = time.monotonic()
        sent = send_for(connection, control, float(seconds), samples)
        said = " ".join(line_of(connection))
        took = time.monotonic() - began
    if said != str(sent):
        sys.exit(f"{sent} bytes sent, and the other side says: {said}")
    print(sent, f"{took:.3f}")


def get(host, port, control, seconds):
    with connect(host, port) as connection:
        began = time.monotonic()
        connection.sendall(f"get {control} {seconds}\n".encode())
        got = receive(connection)
        print(got, f"{time.monotonic() - began:.3f}")


def crowd(host, port, count):
    count, began = int(count), time.monotonic()
    members = []
    for number in range(count):
        member = connect(host, port)
        member.sendall(b"c%07d" % number)
        members.append(member)
    for number, member in enumerate(members):
        member.sendall(b"x%07d" % number)
    for number, member in enumerate(members):
        said = b""
        while len(said) < 16:
            part = member.recv(16 - len(said))
            if not part:
                sys.exit(f"connection {number} ended after {said}")
            said += part
        if said != b"c%07dx%07d" % (number, number):
            sys.exit(f"connection {number} says {said}")
    for member in members:
        member.close()
    print(count, "connections in", f"{time.monotonic() - began:.1f}", "s")


resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
what, *rest = sys.argv[1:]
if what == "serve":
    serve(int(rest[0]))
else:
    {"put": put, "get": get, "crowd": crowd}[what](rest[0], int(rest[1]), *rest[2:])
