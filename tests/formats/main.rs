//! What earlier builds have sent, as it was: every later build must read it, and mean the same by it.
//!
//! `tests/fixtures/wire-N` hold one file for each thing of `tests/samples`: messages between nodes, each as the version of
//! the protocol that first had it. Files are added (`cargo test --release --test formats -- --ignored add_what_is_new` writes
//! those that are missing) and never changed. The data directories of earlier builds are in `tests/cluster/upgrade.rs`.

#[path = "../samples/mod.rs"]
mod samples;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use entail::causal::codec::ContextCodec;
use entail::causal::context::Context;
use entail::machine::message::{Message, Request, Response};
use entail::machine::sign::{Ping, Served};
use entail::types::{Incarnation, Timestamp};
use entail::wire::convert::{Reader, message_to_proto, ping_from_proto, sign_to_proto, version_of};
use entail::wire::{FORMAT_VERSION, Local, OLDEST_FORMAT_VERSION, proto};
use prost::Message as _;

const CONTEXT_WITH_CLOCK: &str = "context_with_clock.txt";

/// With what pings got later.
const PING_THAT_KNOWS: &str = "ping_that_knows.bin";

const READER: Reader = Reader { partitions: samples::PARTITIONS };

/// Of version 1, but for what came later.
fn path(name: &str) -> PathBuf {
    if [CONTEXT_WITH_CLOCK, PING_THAT_KNOWS].contains(&name) {
        return directory(3).join(name);
    }
    let message = samples::messages().into_iter().find(|(sample, _)| format!("{sample}.bin") == name);
    directory(message.map_or(1, |(_, message)| version_of(&message))).join(name)
}

fn directory(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/wire-{version}"))
}

fn read(name: &str) -> Bytes {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

fn local(number: u32) -> Local {
    let map = samples::changed();
    let incarnation = Incarnation(u128::from(number) << 80);
    let local = Local::new(samples::node(number), incarnation, map.cluster_id, 77, 1000);
    local.set_map(map.cluster_id, map.standing());
    local
}

fn codec() -> ContextCodec {
    let map = samples::changed();
    let codec = ContextCodec::new(map.cluster_id, map.secret, samples::PARTITIONS);
    codec.on_branches(map.line.forks().iter().map(|fork| fork.branch).collect())
}

/// As version 3 of the protocol has it.
fn context_with_clock() -> Context {
    let mut context = samples::context();
    context.raise_clock(Timestamp(1_700_000_000_000 << 16 | 5));
    context
}

/// The same.
fn ping_that_knows() -> Ping {
    let served = Served { partitions: 3, keys: 70_000, bytes: 1 << 33 };
    Ping { speaks: 3, tells_clocks: true, served, ..samples::ping() }
}

/// Everything, as this build writes it.
fn written() -> BTreeMap<String, Vec<u8>> {
    let file = |(name, message): (String, Message)| {
        (format!("{name}.bin"), message_to_proto(&message).expect("it goes over a stream").encode_to_vec())
    };
    let mut all: BTreeMap<_, _> = samples::messages().into_iter().map(file).collect();
    let hello = local(2).hello(&samples::node(1));
    let sign = sign_to_proto(&samples::ping());
    let frame = proto::Frame { number: 0, hello: Some(hello.clone()), ..Default::default() };
    let ack = proto::FrameAck { kind: Some(proto::frame_ack::Kind::Number(1 << 40)) };
    all.insert("hello_frame.bin".to_owned(), frame.encode_to_vec());
    all.insert("frame_ack.bin".to_owned(), ack.encode_to_vec());
    let later = proto::PingRequest { hello: Some(hello.clone()), sign: Some(sign_to_proto(&ping_that_knows())) };
    all.insert(PING_THAT_KNOWS.to_owned(), later.encode_to_vec());
    all.insert(
        "ping_request.bin".to_owned(),
        proto::PingRequest { hello: Some(hello), sign: Some(sign) }.encode_to_vec(),
    );
    all.insert("context.txt".to_owned(), codec().encode(&samples::context()).into_bytes());
    all.insert(CONTEXT_WITH_CLOCK.to_owned(), codec().encode(&context_with_clock()).into_bytes());
    all
}

#[test]
#[ignore = "writes the files that are missing in tests/fixtures"]
fn add_what_is_new() {
    for (name, bytes) in written() {
        let path = path(&name);
        if !path.exists() {
            fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        }
    }
}

#[test]
fn every_sample_has_its_file() {
    let of = |version| fs::read_dir(directory(version)).expect("it is committed");
    let mut files: Vec<_> = (1..=FORMAT_VERSION).flat_map(of).map(|entry| entry.expect("an entry").path()).collect();
    let mut wanted: Vec<_> = written().into_keys().map(|name| path(&name)).collect();
    files.sort();
    wanted.sort();
    assert_eq!(files, wanted);
}

#[test]
fn messages_of_all_versions_are_read() {
    for (name, message) in samples::messages() {
        let decoded =
            proto::Message::decode(read(&format!("{name}.bin"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(READER.message(decoded), Ok(message), "{name}");
    }
}

#[test]
fn the_first_words_of_version_1_are_read() {
    assert!((OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&1), "what was said in version 1 is not spoken any more");
    let frame = proto::Frame::decode(read("hello_frame.bin")).expect("a frame");
    let remote = local(1).accept(&frame.hello.expect("a hello")).expect("it is of this store");
    assert_eq!((remote.address, remote.incarnation), (samples::node(2), Incarnation(2 << 80)));
    assert_eq!(remote.format_version, 1);
    let ack = proto::FrameAck::decode(read("frame_ack.bin")).expect("an acknowledgement");
    assert_eq!(ack.kind, Some(proto::frame_ack::Kind::Number(1 << 40)));
    for (name, ping) in [("ping_request.bin", samples::ping()), (PING_THAT_KNOWS, ping_that_knows())] {
        let request = proto::PingRequest::decode(read(name)).expect("a ping");
        let hello = proto::Hello { settings_hash: ping.settings_hash, ..request.hello.expect("a hello") };
        assert_eq!(ping_from_proto(&hello, request.sign.expect("a sign")), Ok(ping), "{name}");
    }
}

#[test]
fn contexts_that_were_handed_out_are_read() {
    for (name, context) in [("context.txt", samples::context()), (CONTEXT_WITH_CLOCK, context_with_clock())] {
        let text = String::from_utf8(read(name).to_vec()).expect("ASCII");
        assert_eq!(codec().decode(&text), Ok(context), "{name}");
    }
}

/// The samples are all there is: a new message does not compile here until it has a name, and a sample by that name.
#[test]
fn no_kind_of_message_is_left_out() {
    let kinds: Vec<_> = samples::messages().iter().map(|(_, message)| kind(message)).collect();
    for kind in [
        "operations",
        "report",
        "stability",
        "fill request",
        "fill chunk",
        "fill next",
        "get",
        "put",
        "delete",
        "key count",
        "count of",
        "written",
        "value",
        "missing",
        "counted",
        "error",
        "refused",
        "words",
        "asked",
        "answered",
        "paxos",
        "loss asked",
        "loss told",
        "recovery asked",
        "recovery answered",
        "map pull",
        "map push",
        "map deltas",
    ] {
        assert!(kinds.contains(&kind), "{kind}");
    }
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Ping(_) | Message::Pong(_) => "ping",
        Message::Operations { .. } => "operations",
        Message::Report(_) => "report",
        Message::Stability(_) => "stability",
        Message::FillRequest { .. } => "fill request",
        Message::FillChunk(_) => "fill chunk",
        Message::FillNext { .. } => "fill next",
        Message::Forward { request, .. } => match request {
            Request::Get { .. } => "get",
            Request::Put { .. } => "put",
            Request::Delete { .. } => "delete",
            Request::KeyCount { .. } => "key count",
            Request::CountOf { .. } => "count of",
        },
        Message::ForwardReply { response, .. } => match response {
            Response::Written { .. } => "written",
            Response::Value { .. } => "value",
            Response::Missing { .. } => "missing",
            Response::KeyCount(_) => "counted",
            Response::Error(_) => "error",
        },
        Message::ForwardRefused { .. } => "refused",
        Message::Words(_) => "words",
        Message::ChangeAsked { .. } => "asked",
        Message::ChangeAnswered { .. } => "answered",
        Message::Paxos(_) => "paxos",
        Message::LossAsked { .. } => "loss asked",
        Message::LossTold { .. } => "loss told",
        Message::RecoveryAsked { .. } => "recovery asked",
        Message::RecoveryAnswered { .. } => "recovery answered",
        Message::MapPull { .. } => "map pull",
        Message::MapPush(_) => "map push",
        Message::MapDeltas(_) => "map deltas",
    }
}
