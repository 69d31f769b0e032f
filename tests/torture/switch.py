"""A switch in user space that delays what it passes on: kernels without netem have nothing for that.

    switch.py NODES

Makes a TAP device for each node (port0, port1, …) and one for clients (clients), says "ready", and passes frames between
them until its input ends; whoever started it moves the devices to where they belong. Each line of input is a number of
milliseconds and one for the spread: so long, and by chance up to that much longer, every frame between two nodes takes
from then on. So frames may overtake each other. Frames from and to clients are passed on at once.
"""

import fcntl
import heapq
import os
import random
import selectors
import struct
import sys
import time

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000
# A frame beyond this many under way is lost, as in any switch.
MOST = 20_000


def tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), TAP_WITHOUT_HEADER))
    return device


def send(port, frame):
    try:
        os.write(port, frame)
    except OSError:
        pass  # Full, or not up: the frame is lost.


def main():
    nodes = int(sys.argv[1])
    ports = [tap(f"port{n}") for n in range(nodes)] + [tap("clients")]
    clients = ports[-1]
    wait = selectors.DefaultSelector()
    for port in ports:
        wait.register(port, selectors.EVENT_READ)
    wait.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    delay = spread = 0.0
    where, waiting, number = {}, [], 0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in wait.select(timeout):
            if key.fileobj is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    return
                delay, spread = (float(ms) / 1000 for ms in line.split())
                continue
            source = key.fd
            for _ in range(64):
                try:
                    frame = os.read(source, 65536)
                except OSError:
                    break
                where[frame[6:12]] = source
                known = where.get(frame[0:6])
                for target in [known] if known is not None else ports:
                    if target == source:
                        continue
                    if delay == 0 or clients in (source, target):
                        send(target, frame)
                    elif len(waiting) < MOST:
                        number += 1
                        due = time.monotonic() + delay + random.random() * spread
                        heapq.heappush(waiting, (due, number, target, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(waiting)
            send(target, frame)


main()
