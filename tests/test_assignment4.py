"""The store as a class would test it: six containers, two shards, 600 keys; Docker, HTTP and nothing else.

Builds the image kv-img from the project's root, makes the network mynet (10.10.0.0/16), runs node1 to node6 on it,
and asks them through the published ports of this machine. Run it with `python3 tests/test_assignment4.py`; it needs
Docker and the package `requests`. The tests are numbered and build upon each other. Containers and network are
removed before and after; names of others are left alone.
"""

import pathlib
import subprocess
import sys
import time
import unittest

import requests

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGE = "kv-img"
NETWORK = "mynet"
SUBNET = "10.10.0.0/16"
PORTS = [8082, 8083, 8084, 8086, 8087, 8088]
NAMES = [f"node{number}" for number in range(1, 7)]
ADDRESSES = [f"10.10.0.{number}:8085" for number in range(2, 8)]
SHARD_COUNT = 2
KEY_COUNT = 600
READY_WITHIN_S = 30.0
REQUEST_TIMEOUT_S = 15.0


def docker(*arguments, check=True):
    """Runs docker quietly and gives what it printed; on an error, shows what it said."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, text=True, capture_output=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def clean_up():
    """Removes what a run leaves; what is not there is no error."""
    docker("rm", "--force", "--volumes", *NAMES, check=False)
    docker("network", "rm", NETWORK, check=False)


def build_image():
    docker("build", "-t", IMAGE, ".")


def start_nodes():
    docker("network", "create", f"--subnet={SUBNET}", NETWORK)
    for name, address, port in zip(NAMES, ADDRESSES, PORTS):
        docker(
            "run", "-d", "-p", f"{port}:8085", f"--net={NETWORK}", f"--ip={address.split(':')[0]}", f"--name={name}",
            "-e", f"SOCKET_ADDRESS={address}", "-e", f"VIEW={','.join(ADDRESSES)}",
            "-e", f"SHARD_COUNT={SHARD_COUNT}", IMAGE,
        )


def url(node, path):
    return f"http://127.0.0.1:{PORTS[node]}{path}"


def wait_until_ready():
    """Polls every node until it says that it can serve."""
    until = time.monotonic() + READY_WITHIN_S
    for node, name in enumerate(NAMES):
        state = "no answer"
        while True:
            try:
                response = requests.get(url(node, "/readyz"), timeout=REQUEST_TIMEOUT_S)
                if response.status_code == 200:
                    break
                state = response.text
            except requests.exceptions.RequestException as error:
                state = str(error)
            if time.monotonic() > until:
                raise RuntimeError(f"{name} is not ready: {state}\n{docker('logs', name, check=False)}")
            time.sleep(0.2)


class Assignment4(unittest.TestCase):
    """Views, shards, and keys that go in anywhere and come out everywhere."""

    members = {}
    counts = {}
    last_write_at = 0.0

    @classmethod
    def setUpClass(cls):
        clean_up()
        cls.addClassCleanup(clean_up)
        build_image()
        start_nodes()
        wait_until_ready()

    def ask(self, node, path, status=200):
        """GETs a path from a node, checks the status, gives the JSON."""
        response = requests.get(url(node, path), timeout=REQUEST_TIMEOUT_S)
        self.assertEqual(response.status_code, status, f"{NAMES[node]} {path}: {response.text}")
        return response.json()

    def ask_all(self, path):
        """What every node answers to a path, which must be the same."""
        answers = [self.ask(node, path) for node in range(len(NAMES))]
        for name, answer in zip(NAMES, answers):
            self.assertEqual(answer, answers[0], f"{name} differs from node1 at {path}")
        return answers[0]

    def test_a_every_node_has_the_whole_view(self):
        answer = self.ask_all("/key-value-store-view")
        self.assertEqual(answer["message"], "View retrieved successfully")
        self.assertEqual(answer["view"], sorted(ADDRESSES))

    def test_b_every_node_knows_the_shard_ids(self):
        answer = self.ask_all("/key-value-store-shard/shard-ids")
        self.assertEqual(answer["message"], "Shard IDs retrieved successfully")
        self.assertEqual(answer["shard-ids"], [1, 2])

    def test_c_the_members_of_the_shards_part_the_nodes(self):
        for shard in (1, 2):
            answer = self.ask_all(f"/key-value-store-shard/shard-id-members/{shard}")
            self.assertEqual(answer["message"], "Members of shard ID retrieved successfully")
            self.assertGreaterEqual(len(answer["shard-id-members"]), 2)
            self.members[shard] = answer["shard-id-members"]
        self.assertEqual(sorted(self.members[1] + self.members[2]), sorted(ADDRESSES))

    def test_d_every_node_knows_its_own_shard(self):
        for node, address in enumerate(ADDRESSES):
            answer = self.ask(node, "/key-value-store-shard/node-shard-id")
            self.assertEqual(answer["message"], "Shard ID of the node retrieved successfully")
            self.assertIn(address, self.members[answer["shard-id"]])

    def test_e_there_is_no_third_shard(self):
        for question in ("shard-id-members", "shard-id-key-count"):
            answer = self.ask(0, f"/key-value-store-shard/{question}/3", status=404)
            self.assertEqual(answer, {"error": "Shard ID does not exist", "message": "Error in GET"})

    def test_f_keys_are_written_round_robin_by_one_session(self):
        context = ""
        for number in range(KEY_COUNT):
            response = requests.put(
                url(number % len(NAMES), f"/key-value-store/key{number}"),
                json={"value": f"value{number}", "causal-metadata": context},
                timeout=REQUEST_TIMEOUT_S,
            )
            self.assertEqual(response.status_code, 201, f"key{number}: {response.text}")
            answer = response.json()
            self.assertEqual(answer["message"], "Added successfully")
            self.assertIn(answer["shard-id"], (1, 2))
            context = answer["causal-metadata"]
            self.assertIsInstance(context, str)
            self.assertNotEqual(context, "")
            self.counts[answer["shard-id"]] = self.counts.get(answer["shard-id"], 0) + 1
        type(self).last_write_at = time.monotonic()

    def test_g_every_key_is_read_at_another_node_without_any_context(self):
        # The contract gives the replicas two seconds after the last write.
        time.sleep(max(0.0, 2.0 - (time.monotonic() - self.last_write_at)))
        for number in range(KEY_COUNT):
            node = (number + 1) % len(NAMES)
            response = requests.get(url(node, f"/key-value-store/key{number}"), timeout=REQUEST_TIMEOUT_S)
            self.assertEqual(response.status_code, 200, f"key{number} at {NAMES[node]}: {response.text}")
            answer = response.json()
            self.assertEqual(answer["message"], "Retrieved successfully")
            self.assertEqual(answer["value"], f"value{number}")

    def test_h_the_key_counts_are_the_same_from_all_and_even(self):
        counts = {}
        for shard in (1, 2):
            answer = self.ask_all(f"/key-value-store-shard/shard-id-key-count/{shard}")
            self.assertEqual(answer["message"], "Key count of shard ID retrieved successfully")
            counts[shard] = answer["shard-id-key-count"]
        self.assertEqual(counts, self.counts, "the shards count what the writes' answers said")
        self.assertEqual(sum(counts.values()), KEY_COUNT)
        share = KEY_COUNT / SHARD_COUNT
        for shard, count in counts.items():
            self.assertLessEqual(abs(count - share), 0.25 * share, f"shard {shard} has {count} keys")


def report(case):
    """Runs a test case, prints the plain closing line, gives the exit status."""
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(case)
    )
    failed = len(result.failures) + len(result.errors)
    print(f"{max(0, result.testsRun - failed)} passed, {failed} failed")
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(report(Assignment4))
