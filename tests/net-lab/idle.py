#!/usr/bin/env python3
"""Opens COUNT TCP connections over the loopback interface, both ends here, and prints the kernel's bytes for each end."""
import gc
import resource
import socket
import sys
import time

COUNT = int(sys.argv[1])
# A client has so many ports towards one of the server's.
EACH = 20_000


def figure(path, name):
    with open(path) as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":")) * 1024


def used():
    """Memory that is in use, but not this program's own or a file's."""
    kept = sum(figure("/proc/meminfo", name) for name in ("MemFree", "Buffers", "Cached"))
    return figure("/proc/meminfo", "MemTotal") - kept - figure("/proc/self/status", "RssAnon")


resource.setrlimit(resource.RLIMIT_NOFILE, (2 * COUNT + 100, 2 * COUNT + 100))
listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(0, COUNT, EACH)]
ends = []


def open_pairs(count):
    for number in range(count):
        listener = listeners[number // EACH]
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        # Connections that have been of use.
        client.sendall(b"question")
        server.sendall(server.recv(8))
        client.recv(8)
        ends.extend((client, server))


# What grows only once does not belong to the connections.
open_pairs(200)
gc.collect()
before = used()
open_pairs(COUNT - 200)
gc.collect()
time.sleep(1)
print(f"{(used() - before) / (2 * (COUNT - 200)):.0f}")
