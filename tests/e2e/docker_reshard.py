"""Containers that are cut off or replaced while partitions move: six nodes, two networks as in docker_partition.py.

`Reshard` slows the copying down (FILL_MIB_S) so that a reshard lasts for seconds, and cuts a node off in the middle of
it for over a minute, so that every wait in the store for a node out of reach runs out. What that node acknowledged
alone meanwhile must be there afterwards, with its causal context. Sessions of several clients run all the time, each
read checked against all that its session has seen, what the writers had seen included. `Replaced` takes a container
away with its volume and starts an empty one in its place. Needs the image kv-img and `requests`.

    python3 tests/e2e/docker_reshard.py
"""

import itertools
import pathlib
import random
import sys
import threading
import time
import unittest

import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from docker_partition import (  # noqa: E402
    ADDRESSES, BACK_WITHIN_S, FIRST, GONE_WITHIN_S, NAMES, NETWORK, READY_WITHIN_S,
    ask, cut_off, docker, get, heal, is_ready, put, remove_all, report, start, start_all, view, wait_until,
)

NODES = range(FIRST)
SHARD = "/key-value-store-shard"
# Copied at 1 MiB a second from a node, these take some seconds to move.
KEYS = 500
VALUE = "x" * 48_000
# Longer than a wanted node is waited for (30 s), and a member counts as one (60 s).
CUT_S = 64.0
# A node that is asked for something may need the answer of one that was cut off a moment ago, until it is missed.
NOTICED_S = 6.0
CHANGE_TIMEOUT_S = 120.0
BACK_IN_PLACE_S = 20.0
REPLACED_WITHIN_S = 10.0
COUNTS_WITHIN_S = 2.0

results = []


def note(what, figure):
    results.append((what, figure))


def status(node):
    return ask("GET", node, "/status").json()


def reshard_status(node):
    return ask("GET", node, f"{SHARD}/reshard").json()


def shards(node):
    """The members of every shard, as a node says."""
    ids = ask("GET", node, f"{SHARD}/shard-ids").json()["shard-ids"]
    return [ask("GET", node, f"{SHARD}/shard-id-members/{shard}").json()["shard-id-members"] for shard in ids]


def own_shard(node):
    response = ask("GET", node, f"{SHARD}/node-shard-id")
    return response.json()["shard-id"] if response.status_code == 200 else None


def key_counts(node):
    ids = ask("GET", node, f"{SHARD}/shard-ids").json()["shard-ids"]
    return [ask("GET", node, f"{SHARD}/shard-id-key-count/{shard}").json().get("shard-id-key-count") for shard in ids]


def own_keys(node):
    """How many keys a node itself serves, and how many its shard has."""
    told = status(node)
    return next(entry["keys"] for entry in told["nodes"] if entry["node"] == ADDRESSES[node])


def heal_again(node):
    """Connects a node that a test which failed has left cut off."""
    names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    if NETWORK not in docker("inspect", "--format", names, NAMES[node]).split():
        heal(node)


class Change(threading.Thread):
    """A reshard that is on its way."""

    def __init__(self, node, count):
        super().__init__(daemon=True)
        self.node, self.count, self.answer = node, count, None
        self.start()

    def run(self):
        body = {"shard-count": self.count}
        self.answer = ask("PUT", self.node, f"{SHARD}/reshard", timeout_s=CHANGE_TIMEOUT_S, json=body)
        self.answered_at = time.monotonic()

    def done(self):
        self.join(CHANGE_TIMEOUT_S)
        return self.answer


class Session(threading.Thread):
    """A client that writes keys of its own and reads those of all, and checks each read against what it has seen.

    A value carries what its writer had seen, so that a read brings the past of the write into the session's own.
    `nodes` is where it goes, and may be changed at any time; `reads` are keys of others, `writes` gets its own.
    """

    def __init__(self, number, nodes, reads, writes):
        super().__init__(daemon=True)
        self.random = random.Random(number)
        self.number, self.nodes, self.reads, self.writes = number, nodes, reads, writes
        self.context, self.seen = "", {}
        self.requests, self.failures, self.violations = 0, [], []
        self.longest = (0.0, "")
        self.names = itertools.count()
        self.own = [next(self.names) for _ in range(3)]
        self.counter = 0
        # Where it is at this moment.
        self.node = None
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.is_set():
            node = self.node = self.random.choice(self.nodes)
            begin = time.monotonic()
            what = self.write(node) if self.random.random() < 0.4 else self.read(node)
            took = time.monotonic() - begin
            self.longest = max(self.longest, (took, what))
            time.sleep(0.01)

    def stop(self):
        self.stopped.set()
        self.join(30)

    def failed(self, what, node, outcome):
        self.failures.append((time.monotonic(), f"{what} at {NAMES[node]}: {outcome}"))

    def write(self, node):
        at = self.random.randrange(len(self.own))
        key = f"session{self.number}-{self.own[at]}"
        self.counter += 1
        self.requests += 1
        try:
            response = put(node, key, {"n": self.counter, "seen": self.seen}, self.context)
            outcome = response.status_code
        except requests.exceptions.RequestException as error:
            outcome = error
        if outcome in (200, 201):
            self.context = response.json()["causal-metadata"]
            self.seen = {**self.seen, key: self.counter}
            self.writes.add(key)
            return f"PUT at {NAMES[node]}"
        self.failed(f"PUT {key}", node, response.text if outcome == 503 else outcome)
        if outcome not in (503, 507):
            # It may be done at any time now, concurrently with later ones: the key is left alone.
            self.own[at] = next(self.names)
        return f"PUT at {NAMES[node]}: {outcome}"

    def read(self, node):
        keys = [*self.reads, *self.writes]
        if not keys:
            return "nothing to read"
        key = self.random.choice(keys)
        self.requests += 1
        try:
            response = get(node, key, self.context)
            outcome = response.status_code
        except requests.exceptions.RequestException as error:
            outcome = error
        if outcome not in (200, 404):
            self.failed(f"GET {key}", node, response.text if outcome == 503 else outcome)
            return f"GET at {NAMES[node]}: {outcome}"
        answer = response.json()
        value = answer.get("value") or {"n": 0, "seen": {}}
        if value["n"] < self.seen.get(key, 0):
            self.violations.append(f"{key} is {value['n']} at {NAMES[node]}, but {self.seen[key]} was seen before")
        self.context = answer["causal-metadata"]
        merged = dict(self.seen)
        for other, n in [*value["seen"].items(), (key, value["n"])]:
            merged[other] = max(merged.get(other, 0), n)
        self.seen = merged
        return f"GET at {NAMES[node]}"


class Reshard(unittest.TestCase):
    """One cluster, resharded three times; the tests go in order of their names and build upon each other."""

    sessions = []
    written = {}

    @classmethod
    def setUpClass(cls):
        remove_all()
        cls.addClassCleanup(remove_all)
        start_all("-e", "FILL_MIB_S=1")
        for number in range(KEYS):
            response = put(number % len(NODES), f"key{number}", {"n": number, "rest": VALUE})
            assert response.status_code == 201, response.text
        cls.everywhere = list(NODES)
        common = set()
        cls.sessions = [Session(number, cls.everywhere, common, common) for number in range(1, 5)]
        # Goes to the node that is cut off, too, and carries what it saw there elsewhere. Nobody else reads its keys:
        # who has seen what only that node has can read little elsewhere until it is back.
        cls.roaming = Session(0, list(NODES), common, set())
        cls.addClassCleanup(lambda: [session.stop() for session in [*cls.sessions, cls.roaming]])
        for session in [*cls.sessions, cls.roaming]:
            session.start()

    def setUp(self):
        self.begin = time.monotonic()

    def all_agree(self, what, of, within_s, nodes=NODES):
        """Waits until these nodes all tell the same; gives it."""
        wait_until(f"all nodes tell the same {what}", within_s, lambda: all(of(n) == of(nodes[0]) for n in nodes))
        return of(nodes[0])

    def under_way(self, node):
        """Waits until some partitions have moved and others are being filled; gives how many of how many."""
        told = {}

        def moves():
            told.update(reshard_status(node)["partitions"])
            return told["joining"] > 0 and told["moved"] >= told["to-move"] / 8

        wait_until("partitions move", 20, moves)
        return f"{told['moved']} of {told['to-move']}"

    def no_session_failed(self, since, until=float("inf")):
        failures = [failure for session in self.sessions for failure in session.failures]
        late = [f"after {at - since:.1f} s: {text}" for at, text in failures if since < at < until]
        self.assertEqual(late, [], "requests that failed")
        violations = [text for session in [*self.sessions, self.roaming] for text in session.violations]
        self.assertEqual(violations, [], "reads of something older than what the session had seen")

    def cut(self, node):
        """Cuts a node off. All sessions but the roaming one have left it: who saw what only it has would have to wait."""
        self.everywhere[:] = [other for other in NODES if other != node]
        wait_until("the sessions have left it", 10, lambda: all(session.node != node for session in self.sessions))
        cut_off(node)
        self.addCleanup(heal_again, node)
        at = time.monotonic()
        wait_until(f"{NAMES[node]} is alone", GONE_WITHIN_S, lambda: view(node) == [ADDRESSES[node]])
        return at

    def written_alone(self, node):
        """A session that knows only the node that is cut off: what was acknowledged there, in causal order."""
        session, acknowledged = "", []
        for number in range(24):
            key = f"alone-{NAMES[node]}-{number}"
            response = put(node, key, number, session)
            if response.status_code in (200, 201):
                self.assertEqual(response.headers["X-Entail-Copies"], "1", key)
                session = response.json()["causal-metadata"]
                acknowledged.append((key, number))
            else:
                # A key of another shard, or of a partition that it does not serve any more.
                self.assertEqual(response.status_code, 503, response.text)
        self.assertNotEqual(acknowledged, [], "a node that is cut off serves what it has")
        last, _ = acknowledged[-1]
        elsewhere = next(other for other in NODES if other != node)
        response = get(elsewhere, last, session)
        self.assertEqual(response.status_code, 503, f"only {NAMES[node]} has it: {response.text}")
        return session, acknowledged

    def back(self, node):
        """Connects a node again; gives when."""
        heal(node)
        at = time.monotonic()
        everybody = sorted(ADDRESSES[:FIRST])
        wait_until("all are back in the view", BACK_WITHIN_S, lambda: all(view(n) == everybody for n in NODES))
        self.everywhere[:] = list(NODES)
        return at

    def is_there(self, node, session, acknowledged):
        """What a node had alone is shown by all, to who has seen it and to who has not; gives how long that took."""
        def shown():
            return all(
                get(other, key, context).json().get("value") == value
                for other in NODES for key, value in acknowledged for context in ("", session)
            )
        return wait_until(f"what only {NAMES[node]} had is there", BACK_IN_PLACE_S, shown)

    def in_its_place(self, node, members):
        """Waits until a node serves what its place in the shards says: as many keys as its peers."""
        peers = members[own_shard(node) - 1]
        peer = next(ADDRESSES.index(member) for member in peers if member != ADDRESSES[node])
        wait_until("it serves what its peer serves", BACK_IN_PLACE_S, lambda: own_keys(node) == own_keys(peer) > 0)

    def every_key_is_there(self):
        for number in range(KEYS):
            response = get((number + 1) % len(NODES), f"key{number}")
            self.assertEqual(response.status_code, 200, f"key{number}: {response.text}")
            self.assertEqual(response.json()["value"]["n"], number)

    def test_a_of_two_reshards_at_once_one_is_done(self):
        changes = [Change(1, 3), Change(4, 3)]
        answers = [change.done() for change in changes]
        self.assertEqual(sorted(answer.status_code for answer in answers), [200, 409])
        for answer in answers:
            wanted = {"message": "Resharding done successfully"} if answer.status_code == 200 else {
                "error": "Resharding is already in progress", "message": "Error in PUT"}
            self.assertEqual(answer.json(), wanted)
        members = self.all_agree("shards", shards, COUNTS_WITHIN_S)
        self.assertEqual([len(of) for of in members], [2, 2, 2])
        self.all_agree("state", lambda node: reshard_status(node)["state"], COUNTS_WITHIN_S)
        self.no_session_failed(self.begin)
        note("two reshards at once: 200 and 409, one outcome at six nodes", f"{time.monotonic() - self.begin:.1f} s")

    def cut_off_during(self, count, cut, asked):
        """A reshard with a node cut off in the middle of it and back a minute later."""
        self.assertEqual(len(self.all_agree("shards", shards, COUNTS_WITHIN_S)), 5 - count)
        change = Change(asked, count)
        moved = self.under_way(asked)
        at = self.cut(cut)
        note(f"{5 - count} → {count} shards, {NAMES[cut]} cut off with partitions moved", moved)
        session, acknowledged = self.written_alone(cut)
        answer = change.done()
        self.assertEqual((answer.status_code, answer.json()), (200, {"message": "Resharding done successfully"}))
        note("  … done without it, after the cut", f"{change.answered_at - at:.1f} s")
        time.sleep(max(0.0, CUT_S - (time.monotonic() - at)))
        self.no_session_failed(at + NOTICED_S)

        back_at = self.back(cut)
        self.is_there(cut, session, acknowledged)
        note(f"  … its {len(acknowledged)} writes shown by all, after the heal", f"{time.monotonic() - back_at:.1f} s")
        members = self.all_agree("shards", shards, COUNTS_WITHIN_S)
        self.in_its_place(cut, members)
        note(f"  … serving all of shard {own_shard(cut)}, after the heal", f"{time.monotonic() - back_at:.1f} s")
        self.assertEqual([len(of) for of in members], [len(NODES) // count] * count)
        for node in NODES:
            self.assertTrue(is_ready(node), NAMES[node])
        self.no_session_failed(back_at + NOTICED_S)
        self.every_key_is_there()

    def test_b_a_member_is_cut_off_while_three_shards_become_two(self):
        """It is to be filled. That is given up in the end; when it is back it is filled as the map wants it."""
        cut = ADDRESSES.index(shards(0)[2][1])
        self.cut_off_during(2, cut, asked=next(node for node in NODES if node != cut))

    def test_c_the_proposer_is_cut_off_while_two_shards_become_three(self):
        """It gives what moves, and is not needed for that: the reshard ends without it."""
        self.cut_off_during(3, cut=0, asked=3)

    def test_d_the_sessions_were_right_all_the_time(self):
        for session in [*self.sessions, self.roaming]:
            session.stop()
        self.no_session_failed(float("inf"))
        requests_in_all = sum(session.requests for session in [*self.sessions, self.roaming])
        failed = sum(len(session.failures) for session in self.sessions)
        roaming = len(self.roaming.failures)
        self.assertGreater(requests_in_all, 1_000)
        note("requests of sessions; none was answered with anything older than its past", requests_in_all)
        note("  … failed at nodes not cut off, all within 6 s of a cut or heal", failed)
        note("  … failed in the session that went to the node cut off, too", roaming)
        counts = self.all_agree("key counts", key_counts, COUNTS_WITHIN_S)
        written = self.sessions[0].writes | self.roaming.writes
        self.assertGreaterEqual(sum(counts), KEYS + len(written))


class Replaced(unittest.TestCase):
    """A container that is removed with its volume, and another that starts in its place."""

    @classmethod
    def setUpClass(cls):
        remove_all()
        cls.addClassCleanup(remove_all)
        start_all()

    def test_a_node_without_its_disk_is_refilled_by_itself(self):
        for number in range(KEYS):
            response = put(number % len(NODES), f"key{number}", {"n": number, "rest": VALUE})
            self.assertEqual(response.status_code, 201, response.text)
        lost = ADDRESSES.index(shards(0)[1][0])
        peers = [ADDRESSES.index(member) for member in shards(0)[1][1:]]
        members = [lost, *peers]
        wait_until("all hold the same", COUNTS_WITHIN_S, lambda: len({own_keys(member) for member in members}) == 1)
        docker("rm", "--force", "--volumes", NAMES[lost])
        begin = time.monotonic()
        start(lost)
        ready = wait_until("it is ready", READY_WITHIN_S, lambda: is_ready(lost))
        wait_until("it serves what its peers do", READY_WITHIN_S, lambda: own_keys(lost) == own_keys(peers[0]))
        took = time.monotonic() - begin
        self.assertEqual(own_keys(peers[0]), own_keys(peers[1]))
        self.assertLess(took, REPLACED_WITHIN_S)
        note("a container replaced by an empty one: ready after its start", f"{ready:.1f} s")
        note("  … serving as many keys as its peers", f"{took:.1f} s")
        counts = key_counts(lost)
        self.assertEqual(sum(counts), KEYS)
        self.assertEqual(counts, key_counts(peers[0]))
        for number in range(KEYS):
            self.assertEqual(get(lost, f"key{number}").json()["value"]["n"], number)


def main():
    failed = report(Reshard) + report(Replaced)
    print()
    for what, figure in results:
        print(f"{what:<80} {figure:>10}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
