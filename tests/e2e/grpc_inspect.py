#!/usr/bin/env python3
"""Looks at a node the way grpcurl does: by gRPC reflection alone, without any generated code.

Lists and describes every service, checks its health, and calls entail.v1.Inspect on the messages that the node itself
describes. Exits with 1 when something is not as it must be.

    pip install grpcio grpcio-reflection
    python3 tests/e2e/grpc_inspect.py 127.0.0.1:9085 [--quiet]
"""

import argparse
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

OURS = ["entail.v1.Cluster", "entail.v1.Inspect", "entail.v1.Replica"]
STANDARD = ["grpc.health.v1.Health"]
DEADLINE_S = 5


class Node:
    """A node's services, as it describes them."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        grpc.channel_ready_future(self.channel).result(timeout=DEADLINE_S)
        self.reflected = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.reflected)

    def services(self):
        """The names of all services."""
        return sorted(self.reflected.get_services())

    def describe(self, service):
        """The service as text, like `grpcurl describe`."""
        lines = [f"service {service} {{"]
        for method in self.pool.FindServiceByName(service).methods:
            streams = ["stream " if on else "" for on in (method.client_streaming, method.server_streaming)]
            lines.append(
                f"  rpc {method.name} ({streams[0]}{method.input_type.full_name})"
                f" returns ({streams[1]}{method.output_type.full_name});"
            )
        return "\n".join(lines + ["}"])

    def call(self, service, method, fields=None):
        """Calls a unary method with messages built from reflection."""
        found = self.pool.FindServiceByName(service).FindMethodByName(method)
        request = GetMessageClass(found.input_type)(**(fields or {}))
        stub = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return stub(request, timeout=DEADLINE_S)


def main():
    """Looks at the node named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port of the node's gRPC side")
    parser.add_argument("--quiet", action="store_true", help="print only what was checked")
    arguments = parser.parse_args()
    show = (lambda *_: None) if arguments.quiet else print

    node = Node(arguments.target)
    check_services(node, show)
    check_health(node)
    born_map = check_map(node, show)
    check_vectors(node, born_map, show)
    check_peers(node, born_map, show)
    print("all as it must be")


def check_services(node, show):
    """Every service is listed and described; so are all messages that nodes exchange."""
    services = node.services()
    for wanted in OURS + STANDARD:
        assert wanted in services, f"{wanted} is not among {services}"
    assert any(name.startswith("grpc.reflection.v1.") for name in services), services
    assert any(name.startswith("grpc.reflection.v1alpha.") for name in services), services
    for service in services:
        show(node.describe(service))
    exchange = node.pool.FindServiceByName("entail.v1.Replica").FindMethodByName("Exchange")
    assert exchange.client_streaming and exchange.server_streaming
    kinds = node.pool.FindMessageTypeByName("entail.v1.Message").oneofs_by_name["kind"].fields
    assert {"operations", "fill_chunk", "paxos", "map_push"} <= {field.name for field in kinds}
    print(f"{len(services)} services listed and described")


def check_health(node):
    """The node as a whole and each of our services is serving."""
    for service in [""] + OURS:
        status = node.call("grpc.health.v1.Health", "Check", {"service": service}).status
        assert status == 1, f"{service or 'the node'} is not serving: {status}"
    print("all services are healthy")


def check_map(node, show):
    """The map holds together, and shows no secret."""
    cluster_map = node.call("entail.v1.Inspect", "GetMap")
    show(json_format.MessageToJson(cluster_map, preserving_proto_field_name=True))
    assert "secret" not in cluster_map.DESCRIPTOR.fields_by_name
    assert cluster_map.partitions > 0 and len(cluster_map.rows) == cluster_map.partitions
    assert sum(shard.partitions for shard in cluster_map.shards) == cluster_map.partitions
    addresses = {known.address for known in cluster_map.nodes}
    assert {member for shard in cluster_map.shards for member in shard.nodes} <= addresses
    for number, row in enumerate(cluster_map.rows):
        assert row.partition == number and row.version <= cluster_map.epoch
        assert all(peer.stay < row.next_stay for peer in row.peers)
    one = node.call("entail.v1.Inspect", "GetMap", {"partition": 0})
    assert [row.partition for row in one.rows] == [0]
    try:
        node.call("entail.v1.Inspect", "GetMap", {"partition": cluster_map.partitions})
        raise AssertionError("a partition that is not there was shown")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print(f"map {cluster_map.epoch}: {len(cluster_map.shards)} shards, {cluster_map.partitions} partitions")
    return cluster_map


def check_vectors(node, cluster_map, show):
    """What the node holds is what the map gives it; stable ≤ durable ≤ applied."""
    vectors = node.call("entail.v1.Inspect", "GetVectors")
    if vectors.partitions:
        one = node.call("entail.v1.Inspect", "GetVectors", {"partition": vectors.partitions[0].partition})
        show(json_format.MessageToJson(one, preserving_proto_field_name=True))
        assert len(one.partitions) == 1
    for held in vectors.partitions:
        stays = {peer.stay: peer for peer in cluster_map.rows[held.partition].peers}
        if held.version == cluster_map.rows[held.partition].version:
            assert stays[held.stay].incarnation == vectors.incarnation, held
        applied, durable = ({e.stay: e.seq for e in v.entries} for v in (held.applied, held.durable))
        assert all(seq <= applied.get(stay, 0) for stay, seq in durable.items()), held
    print(f"{vectors.node} holds {len(vectors.partitions)} partitions, {sum(p.keys for p in vectors.partitions)} keys")


def check_peers(node, cluster_map, show):
    """The node's peers; each that is up says which incarnation it is."""
    peers = node.call("entail.v1.Inspect", "GetPeers")
    show(json_format.MessageToJson(peers, preserving_proto_field_name=True))
    shards = len(cluster_map.shards)
    for peer in peers.peers:
        assert peer.node != peers.node and peer.shard <= shards, peer
    print(f"{peers.node} has {len(peers.peers)} peers, {sum(peer.up for peer in peers.peers)} of them up")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, grpc.RpcError, grpc.FutureTimeoutError) as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
