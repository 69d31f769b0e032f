//! What nodes say to each other.

use bytes::Bytes;
use entail::types::{ClusterId, Incarnation};
use entail::wire::convert::{
    Reader, cluster_id_to_proto, line_to_proto, message_to_proto, ping_from_proto, sign_to_proto,
};
use entail::wire::{Local, Refusal, proto};
use prost::Message as _;
use tonic::Status;

use crate::damage::damaged;
use crate::fields::damaged_fields;
use crate::run::{Bound, Cases, run};
use crate::samples;

/// An element of a list takes two bytes at the least, and stands for a few hundred in memory: as protobuf, in a list
/// that doubles, and then as what it means.
const BOUND: Bound = Bound { times: 600, more: 4096 };

fn damaged_somehow(cases: &mut Cases, seeds: &[Vec<u8>]) -> Bytes {
    let by_fields = !cases.random.once_in(3);
    let random = &mut cases.random;
    Bytes::from(if by_fields { damaged_fields(random, seeds) } else { damaged(random, seeds) })
}

#[test]
fn messages() {
    let encoded = |message| message_to_proto(message).expect("it goes over a stream").encode_to_vec();
    let seeds: Vec<_> = samples::messages().iter().map(|(_, message)| encoded(message)).collect();
    run("messages", 350, &["taken", "refused", "no protobuf"], |cases| {
        let bytes = damaged_somehow(cases, &seeds);
        let reader = Reader { partitions: samples::PARTITIONS + cases.random.below(2) as u32 };
        let read = |bytes: Bytes| proto::Message::decode(bytes).map(|decoded| reader.message(decoded));
        match cases.within(bytes.len(), BOUND, || read(bytes.clone())) {
            Err(_) => cases.count("no protobuf"),
            Ok(Err(error)) => {
                cases.count("refused");
                assert!(!error.to_string().is_empty());
            }
            Ok(Ok(message)) => {
                cases.count("taken");
                let again = message_to_proto(&message).expect("it came over a stream");
                assert_eq!(reader.message(again), Ok(message));
            }
        }
    });
}

#[test]
fn hellos() {
    let local = |number| {
        let address = samples::node(number);
        let map = samples::changed();
        let local = Local::new(address, Incarnation(u128::from(number)), ClusterId(0), 77, 1000);
        local.set_map(map.cluster_id, map.standing());
        local
    };
    let (node1, node2) = (local(1), local(2));
    let hello = node2.hello(&node1.address);
    let sign = sign_to_proto(&samples::ping());
    let request = proto::PingRequest { hello: Some(hello.clone()), sign: Some(sign) };
    let frame = proto::Frame { number: 1, hello: Some(hello), ..Default::default() };
    let seeds = [request.encode_to_vec(), frame.encode_to_vec()];
    run("hellos", 80, &["taken", "refused", "no protobuf", "pings"], |cases| {
        let bytes = damaged_somehow(cases, &seeds);
        let Ok(decoded) = cases.within(bytes.len(), BOUND, || proto::PingRequest::decode(bytes.clone())) else {
            return cases.count("no protobuf");
        };
        // A frame is read as a ping, too: the fields have other types then.
        let (hello, sign) = (decoded.hello.unwrap_or_default(), decoded.sign.unwrap_or_default());
        match cases.within(bytes.len(), BOUND, || node1.accept(&hello)) {
            Ok(remote) => {
                cases.count("taken");
                assert_eq!(
                    (hello.address.as_str(), hello.to.as_str()),
                    (remote.address.as_str(), node1.address.as_str())
                );
            }
            Err(refusal) => {
                cases.count("refused");
                let status = Status::from(refusal);
                assert!(Refusal::reason_of(&status).is_some() && !status.message().is_empty(), "{status}");
            }
        }
        if let Ok(ping) = cases.within(bytes.len(), BOUND, || ping_from_proto(&hello, sign)) {
            cases.count("pings");
            let (cluster_id, line) = (cluster_id_to_proto(ping.cluster_id), line_to_proto(&ping.line));
            let (settings_hash, format_version) = (ping.settings_hash, ping.speaks);
            let again = proto::Hello { cluster_id, line, settings_hash, format_version, ..Default::default() };
            assert_eq!(ping_from_proto(&again, sign_to_proto(&ping)), Ok(ping));
        }
    });
}
