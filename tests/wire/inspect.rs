//! What people with grpcurl see. Reflection itself is shown by `tests/e2e/grpc_inspect.py`, with another implementation.

use entail::wire::proto::inspect_client::InspectClient;
use entail::wire::proto::{GetMapRequest, GetPeersRequest, GetVectorsRequest, PeerState};
use prost::Message;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fake::{End, SECRET};

#[tokio::test]
async fn the_map_is_shown_without_its_secret() {
    let node1 = End::serving(5, 10).await;
    let mut client = InspectClient::connect(node1.uri()).await.unwrap();
    let map = client.get_map(GetMapRequest { partition: None }).await.unwrap().into_inner();
    assert_eq!((map.epoch, map.partitions, map.rows.len()), (1, 4, 4));
    assert_eq!(map.cluster_id, format!("{:032x}", 5));
    assert_eq!(map.shards[0].partitions, 4);
    assert_eq!(map.rows[3].peers[0].node, node1.address().as_str());
    assert_eq!(map.rows[3].peers[0].state(), PeerState::Serving);
    let (shown, hex) = (map.encode_to_vec(), u128::from_be_bytes(SECRET));
    assert!(!shown.windows(SECRET.len()).any(|window| window == SECRET));
    assert!(!format!("{map:?}").contains(&format!("{hex:x}")));

    let one = client.get_map(GetMapRequest { partition: Some(2) }).await.unwrap().into_inner();
    assert_eq!(one.rows, [map.rows[2].clone()]);
    let none = client.get_map(GetMapRequest { partition: Some(4) }).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
}

#[tokio::test]
async fn vectors_and_peers_are_shown() {
    let node1 = End::serving(5, 10).await;
    let mut client = InspectClient::connect(node1.uri()).await.unwrap();
    let vectors = client.get_vectors(GetVectorsRequest { partition: None }).await.unwrap().into_inner();
    assert_eq!((vectors.node.as_str(), vectors.partitions.len()), (node1.address().as_str(), 4));
    let one = client.get_vectors(GetVectorsRequest { partition: Some(1) }).await.unwrap().into_inner();
    assert_eq!(one.partitions, [vectors.partitions[1].clone()]);
    let seq = |vector: &Option<entail::wire::proto::VersionVector>| vector.as_ref().unwrap().entries[0].seq;
    let shown = &one.partitions[0];
    assert_eq!((seq(&shown.applied), seq(&shown.durable), seq(&shown.stable)), (30, 20, 10));
    assert_eq!((shown.keys, shown.unapplied, shown.floor, shown.state()), (7, 1, 1, PeerState::Serving));

    let peers = client.get_peers(GetPeersRequest {}).await.unwrap().into_inner().peers;
    assert_eq!((peers[0].node.as_str(), peers[0].up, peers[0].shard, peers[0].lag), ("127.0.0.1:1", true, 1, 3));
}

#[tokio::test]
async fn every_service_is_healthy() {
    let node1 = End::serving(5, 10).await;
    let channel = tonic::transport::Endpoint::from_shared(node1.uri()).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for service in ["", "entail.v1.Replica", "entail.v1.Cluster", "entail.v1.Inspect"] {
        let request = HealthCheckRequest { service: service.into() };
        let health = client.check(request).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(HealthCheckRequest { service: "entail.v1.Nothing".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}
