"""A network partition of a shard, with containers: both sides go on, sessions stay right, and all agree after the heal.

Six nodes in two shards on the network of the store; each sits on a second network, too, where its clients are. Two of
them are cut off from the store's network alone, so that clients still reach them. Needs the image kv-img and `requests`.

    python3 tests/e2e/docker_partition.py
"""

import pathlib
import sys
import time
import unittest

import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from test_assignment4 import (  # noqa: E402
    ADDRESSES, FIRST, IMAGE, NAMES, NETWORK, SHARD_COUNT, SUBNET, clean_up, docker, make_network,
    remove_network, report,
)

CLIENTS = "mynet-clients"
CLIENTS_SUBNET = "10.11.0.0/16"
DEADLINE_MS = 2000
READY_WITHIN_S = 30.0
GONE_WITHIN_S = 5.0
AGREE_WITHIN_S = 2.0
BACK_WITHIN_S = 5.0


def remove_all():
    clean_up()
    remove_network(CLIENTS)


def client_host(node):
    """Where the clients reach a node, whatever happens to the store's network."""
    return f"10.11.0.{node + 2}"


def start(node, *settings):
    """Starts the container of a node on both networks, with further settings as docker's own arguments."""
    name, address = NAMES[node], ADDRESSES[node]
    docker(
        "run", "-d", f"--net={NETWORK}", f"--ip={address.split(':')[0]}", f"--name={name}",
        "-e", f"SOCKET_ADDRESS={address}", "-e", f"VIEW={','.join(ADDRESSES[:FIRST])}",
        "-e", f"SHARD_COUNT={SHARD_COUNT}", "-e", f"DEADLINE_MS={DEADLINE_MS}", *settings, IMAGE,
    )
    docker("network", "connect", "--ip", client_host(node), CLIENTS, name)


def start_all(*settings):
    """Makes the networks, starts all nodes and waits until they are ready."""
    make_network(NETWORK, SUBNET)
    # Internal: no gateway, so that no packet finds its way around the cut.
    make_network(CLIENTS, CLIENTS_SUBNET, "--internal")
    for node in range(FIRST):
        start(node, *settings)
    for node in range(FIRST):
        wait_until(f"{NAMES[node]} is ready", READY_WITHIN_S, lambda node=node: is_ready(node))


def ask(method, node, path, context="", timeout_s=DEADLINE_MS / 1000 + 5, **options):
    headers = {"X-Causal-Metadata": context} if context else {}
    url = f"http://{client_host(node)}:8085{path}"
    return requests.request(method, url, headers=headers, timeout=timeout_s, **options)


def is_ready(node):
    try:
        return ask("GET", node, "/readyz").status_code == 200
    except requests.exceptions.RequestException:
        return False


def view(node):
    return ask("GET", node, "/key-value-store-view").json()["view"]


def put(node, key, value, context=""):
    return ask("PUT", node, f"/key-value-store/{key}", json={"value": value, "causal-metadata": context})


def get(node, key, context=""):
    return ask("GET", node, f"/key-value-store/{key}", context)


def cut_off(node):
    docker("network", "disconnect", NETWORK, NAMES[node])


def heal(node):
    docker("network", "connect", "--ip", ADDRESSES[node].split(":")[0], NETWORK, NAMES[node])


def wait_until(what, within_s, is_true):
    """Polls; gives how long it took."""
    begin = time.monotonic()
    while not is_true():
        if time.monotonic() - begin > within_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - begin


class Partition(unittest.TestCase):
    """One cluster, cut and healed."""

    @classmethod
    def setUpClass(cls):
        remove_all()
        cls.addClassCleanup(remove_all)
        start_all()

    def done(self, response):
        self.assertIn(response.status_code, (200, 201), response.text)
        return response.json()["causal-metadata"]

    def key_of_shard(self, shard, stem):
        """A key that belongs to the shard: the first of a series."""
        for number in range(100):
            key = f"{stem}{number}"
            response = put(0, key, "before")
            self.done(response)
            if response.json()["shard-id"] == shard:
                return key
        self.fail(f"no key of shard {shard} among a hundred")

    def test_both_sides_go_on_and_agree_after_the_heal(self):
        members = ask("GET", 0, "/key-value-store-shard/shard-id-members/1").json()["shard-id-members"]
        inside, outside, other = (ADDRESSES.index(member) for member in members[:3])
        shared, theirs, ours = (self.key_of_shard(1, stem) for stem in ("shared", "theirs", "ours"))
        before = {node: get(node, shared).json()["value"] for node in range(FIRST)}
        self.assertEqual(set(before.values()), {"before"})

        cut_off(outside)
        cut_off(other)
        cut = [ADDRESSES[outside], ADDRESSES[other]]
        left = [node for node in range(FIRST) if ADDRESSES[node] not in cut]
        wait_until("the cut nodes leave the view", GONE_WITHIN_S, lambda: not any(set(cut) & set(view(n)) for n in left))
        wait_until("each cut node is alone", 1, lambda: all(view(n) == [ADDRESSES[n]] for n in (outside, other)))

        # Both sides take writes, of the same key and of others.
        here = self.done(put(inside, ours, "ours", self.done(put(inside, shared, "here"))))
        there = self.done(put(outside, theirs, "theirs", self.done(put(outside, shared, "there"))))
        self.assertEqual(get(inside, shared).json()["value"], "here")
        self.assertEqual(get(outside, shared).json()["value"], "there")

        # A session that crosses sides gets what it depends on, or 503 at the deadline; never anything older.
        for node, key, context in ((inside, theirs, there), (outside, ours, here), (inside, shared, there)):
            begin = time.monotonic()
            response = get(node, key, context)
            self.assertEqual(response.status_code, 503, f"{NAMES[node]}: {response.text}")
            self.assertIn("Causal dependencies not satisfied", response.text)
            self.assertIn("Retry-After", response.headers)
            self.assertLess(time.monotonic() - begin, DEADLINE_MS / 1000 + 1)

        heal(outside)
        heal(other)
        # Once the nodes hear each other again, two seconds are enough.
        wait_until("all are back in the view", BACK_WITHIN_S, lambda: all(
            view(node) == sorted(ADDRESSES[:FIRST]) for node in range(FIRST)
        ))
        took = self.agreed(shared, ours, theirs)
        print(f"agreed {took:.2f} s after the heal")
        for node in range(FIRST):
            self.assertEqual(get(node, theirs, there).json().get("value"), "theirs", NAMES[node])
            self.assertEqual(get(node, ours, here).json().get("value"), "ours", NAMES[node])

    def agreed(self, shared, ours, theirs):
        """Waits until every node shows the same winner, and what either side wrote alone; gives how long it took."""
        begin = time.monotonic()
        while True:
            shown = {name: [get(node, key).json().get("value") for key in (shared, ours, theirs)]
                     for node, name in enumerate(NAMES[:FIRST])}
            took = time.monotonic() - begin
            if all(values in (["here", "ours", "theirs"], ["there", "ours", "theirs"]) for values in shown.values()):
                if len({values[0] for values in shown.values()}) == 1:
                    return took
            if took > AGREE_WITHIN_S:
                logs = "\n".join(f"{name}:\n{docker('logs', '--tail', '15', name, check=False)}" for name in NAMES[:FIRST])
                self.fail(f"the replicas do not agree {took:.1f} s after the heal: {shown}\n{logs}")
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(report(Partition))
