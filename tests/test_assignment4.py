"""The store as a class would test it: six containers, two shards, 600 keys, a seventh node, and then three shards.

Builds the image kv-img from the project's root, makes the network mynet (10.10.0.0/16), runs node1 to node6 and later
node7 on it, and asks them through the published ports of this machine: Docker, HTTP and nothing else. Run it with
`python3 tests/test_assignment4.py`; it needs Docker and the package `requests`. The tests go in order of their names
and build upon each other. Containers and network are removed before and after; names of others are left alone.
"""

import json
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
# The six that the store begins with, and one that joins it.
PORTS = [8082, 8083, 8084, 8086, 8087, 8088, 8089]
NAMES = [f"node{number}" for number in range(1, 8)]
ADDRESSES = [f"10.10.0.{number}:8085" for number in range(2, 9)]
FIRST = 6
NODE7 = 6
SHARD_COUNT = 2
MORE_SHARDS = 3
KEY_COUNT = 600
READY_WITHIN_S = 30.0
REQUEST_TIMEOUT_S = 15.0
# A change answers when it is done, or when nothing has moved for a minute.
CHANGE_TIMEOUT_S = 120.0
# What the contract gives a node that starts to appear in the view, and the counts to agree after the last write.
VIEW_WITHIN_S = 5.0
COUNTS_WITHIN_S = 2.0


def docker(*arguments, check=True):
    """Runs docker quietly and gives what it printed; on an error, shows what it said."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, text=True, capture_output=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def networks(name):
    return docker("network", "ls", "--quiet", "--no-trunc", "--filter", f"name=^{name}$").split()


def inside(network):
    return json.loads(docker("network", "inspect", "--format", "{{json .Containers}}", network))


def remove_network(name):
    """Removes every network of this name, whoever is still in it: two may share a name, and a run that was cut short
    leaves endpoints. A container with a name of its own loses its place in the network and nothing else. Docker's count
    of endpoints goes wrong at times: a network that has none may stay then, and is used again."""
    for network in networks(name):
        for container, endpoint in inside(network).items():
            # An endpoint without its container is known by its own name.
            known_by = endpoint["Name"] if container.startswith("ep-") else container
            docker("network", "disconnect", "--force", network, known_by)
        try:
            docker("network", "rm", network)
        except RuntimeError as error:
            if "has active endpoints" not in str(error) or inside(network):
                raise
            print(f"the network {name} is empty, and Docker says that it is not: it stays", file=sys.stderr)


def make_network(name, subnet, *options):
    if not networks(name):
        docker("network", "create", *options, f"--subnet={subnet}", name)


def clean_up():
    """Removes what a run leaves; what is not there is no error, and what can't be removed is."""
    docker("rm", "--force", "--volumes", *NAMES, check=False)
    remove_network(NETWORK)


def build_image():
    docker("build", "-t", IMAGE, ".")


def start_node(node, view, *settings):
    """Starts the container of a node, with further settings as docker's own arguments."""
    address = ADDRESSES[node]
    docker(
        "run", "-d", "-p", f"{PORTS[node]}:8085", f"--net={NETWORK}", f"--ip={address.split(':')[0]}",
        f"--name={NAMES[node]}", "-e", f"SOCKET_ADDRESS={address}", "-e", f"VIEW={','.join(view)}", *settings, IMAGE,
    )


def start_nodes():
    make_network(NETWORK, SUBNET)
    for node in range(FIRST):
        start_node(node, ADDRESSES[:FIRST], "-e", f"SHARD_COUNT={SHARD_COUNT}")


def url(node, path):
    return f"http://127.0.0.1:{PORTS[node]}{path}"


def wait_until_ready(nodes):
    """Polls these nodes until each says that it can serve."""
    until = time.monotonic() + READY_WITHIN_S
    for node in nodes:
        name = NAMES[node]
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
    # What the session that wrote all keys has seen.
    context = ""

    @classmethod
    def setUpClass(cls):
        clean_up()
        cls.addClassCleanup(clean_up)
        build_image()
        start_nodes()
        wait_until_ready(range(FIRST))

    def ask(self, node, path, status=200):
        """GETs a path from a node, checks the status, gives the JSON."""
        response = requests.get(url(node, path), timeout=REQUEST_TIMEOUT_S)
        self.assertEqual(response.status_code, status, f"{NAMES[node]} {path}: {response.text}")
        return response.json()

    def ask_all(self, path, nodes=range(FIRST)):
        """What each of these nodes answers to a path, which must be the same."""
        answers = [self.ask(node, path) for node in nodes]
        for node, answer in zip(nodes, answers):
            self.assertEqual(answer, answers[0], f"{NAMES[node]} differs from node1 at {path}")
        return answers[0]

    def change(self, node, path, body, status=200):
        """PUTs a change at a node, checks the status, gives the JSON."""
        response = requests.put(url(node, path), json=body, timeout=CHANGE_TIMEOUT_S)
        self.assertEqual(response.status_code, status, f"{NAMES[node]} {path}: {response.text}")
        return response.json()

    def agree(self, path, field, wanted, within_s):
        """Waits until all seven nodes answer so: who was not asked for a change hears of it a moment later."""
        until = time.monotonic() + within_s
        for node, name in enumerate(NAMES):
            while (told := self.ask(node, path)[field]) != wanted:
                self.assertLess(time.monotonic(), until, f"{name} says {told} at {path}, not {wanted}")
                time.sleep(0.05)

    def count(self, node, shard):
        """How many keys a shard has, as a node says."""
        return self.ask(node, f"/key-value-store-shard/shard-id-key-count/{shard}")["shard-id-key-count"]

    def read_all(self, nodes, context=None):
        """Reads every key at another of so many nodes than it was written at; in a session when there is a context."""
        for number in range(KEY_COUNT):
            node = (number % FIRST + 1) % nodes
            headers = {} if context is None else {"X-Causal-Metadata": context}
            response = requests.get(
                url(node, f"/key-value-store/key{number}"), headers=headers, timeout=REQUEST_TIMEOUT_S
            )
            self.assertEqual(response.status_code, 200, f"key{number} at {NAMES[node]}: {response.text}")
            answer = response.json()
            self.assertEqual(answer["message"], "Retrieved successfully")
            self.assertEqual(answer["value"], f"value{number}")
            if context is not None:
                context = answer["causal-metadata"]

    def test_a_every_node_has_the_whole_view(self):
        answer = self.ask_all("/key-value-store-view")
        self.assertEqual(answer["message"], "View retrieved successfully")
        self.assertEqual(answer["view"], sorted(ADDRESSES[:FIRST]))

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
        self.assertEqual(sorted(self.members[1] + self.members[2]), sorted(ADDRESSES[:FIRST]))

    def test_d_every_node_knows_its_own_shard(self):
        for node, address in enumerate(ADDRESSES[:FIRST]):
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
                url(number % FIRST, f"/key-value-store/key{number}"),
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
        type(self).context = context

    def test_g_every_key_is_read_at_another_node_without_any_context(self):
        # The contract gives the replicas two seconds after the last write.
        time.sleep(max(0.0, COUNTS_WITHIN_S - (time.monotonic() - self.last_write_at)))
        self.read_all(FIRST)

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

    def test_i_a_seventh_node_starts_and_is_in_the_view(self):
        # Without SHARD_COUNT: it joins the store that the others of its view belong to.
        start_node(NODE7, ADDRESSES)
        wait_until_ready([NODE7])
        self.agree("/key-value-store-view", "view", sorted(ADDRESSES), VIEW_WITHIN_S)

    def test_j_the_seventh_node_is_in_no_shard(self):
        answer = self.ask(NODE7, "/key-value-store-shard/node-shard-id", status=404)
        self.assertEqual(answer, {"error": "Node is not assigned to a shard", "message": "Error in GET"})
        self.assertEqual(self.ask(NODE7, "/key-value-store-shard/shard-ids")["shard-ids"], [1, 2])
        response = requests.get(url(NODE7, "/key-value-store/key0"), timeout=REQUEST_TIMEOUT_S)
        self.assertEqual((response.status_code, response.json()["value"]), (200, "value0"), "it forwards")

    def test_k_the_seventh_node_is_added_to_the_second_shard(self):
        body = {"socket-address": ADDRESSES[NODE7]}
        answer = self.change(2, "/key-value-store-shard/add-member/2", body)
        self.assertEqual(answer, {"message": "Member added to shard successfully"})
        members = sorted([*self.members[2], ADDRESSES[NODE7]])
        self.agree("/key-value-store-shard/shard-id-members/2", "shard-id-members", members, COUNTS_WITHIN_S)
        answer = self.ask(NODE7, "/key-value-store-shard/node-shard-id")
        self.assertEqual(answer["shard-id"], 2)

    def test_l_the_seventh_node_counts_as_many_keys_as_its_peers(self):
        peer = ADDRESSES.index(self.members[2][0])
        self.assertEqual(self.count(NODE7, 2), self.count(peer, 2))
        self.assertEqual(self.count(NODE7, 2), self.counts[2])
        self.assertEqual(self.count(NODE7, 1), self.counts[1])

    def test_m_seven_nodes_are_too_few_for_ten_shards(self):
        answer = self.change(1, "/key-value-store-shard/reshard", {"shard-count": 10}, status=400)
        text = "Not enough nodes to provide fault-tolerance with the given shard count!"
        self.assertEqual(answer, {"message": text})
        self.assertEqual(self.ask_all("/key-value-store-shard/shard-ids", range(len(NAMES)))["shard-ids"], [1, 2])

    def test_n_the_store_is_resharded_to_three_shards(self):
        answer = self.change(3, "/key-value-store-shard/reshard", {"shard-count": MORE_SHARDS})
        self.assertEqual(answer, {"message": "Resharding done successfully"})
        self.agree("/key-value-store-shard/shard-ids", "shard-ids", [1, 2, 3], COUNTS_WITHIN_S)

    def test_o_every_shard_has_two_nodes_and_every_node_one_shard(self):
        members = []
        for shard in range(1, MORE_SHARDS + 1):
            path = f"/key-value-store-shard/shard-id-members/{shard}"
            of_shard = self.ask_all(path, range(len(NAMES)))["shard-id-members"]
            self.assertGreaterEqual(len(of_shard), 2, f"shard {shard} has {of_shard}")
            members += of_shard
        self.assertEqual(sorted(members), sorted(ADDRESSES))

    def test_p_all_keys_are_counted_and_even(self):
        counts = {}
        for shard in range(1, MORE_SHARDS + 1):
            path = f"/key-value-store-shard/shard-id-key-count/{shard}"
            counts[shard] = self.ask_all(path, range(len(NAMES)))["shard-id-key-count"]
        self.assertEqual(sum(counts.values()), KEY_COUNT, counts)
        share = KEY_COUNT / MORE_SHARDS
        for shard, count in counts.items():
            self.assertLessEqual(abs(count - share), 0.25 * share, f"shard {shard} has {count} keys: {counts}")

    def test_q_every_key_is_read_at_another_node_without_any_context(self):
        self.read_all(len(NAMES))

    def test_r_every_key_is_read_at_another_node_by_the_session_that_wrote_it(self):
        self.read_all(len(NAMES), self.context)

    def test_s_the_last_reshard_is_shown(self):
        answer = self.ask(3, "/key-value-store-shard/reshard")
        self.assertEqual((answer["state"], answer["shard-count"]), ("done", MORE_SHARDS))


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
