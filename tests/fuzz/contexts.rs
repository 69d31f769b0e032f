//! The text of contexts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entail::causal::codec::{ContextCodec, NotDecoded};
use entail::causal::context::Context;
use entail::types::{ClusterId, ContextSecret, Epoch, PartitionId, StayId, Timestamp};
use siphasher::sip::SipHasher24;

use crate::damage::{damaged, varint};
use crate::random::Random;
use crate::run::{Bound, run};

const PARTITIONS: u32 = 256;
const SECRET: [u8; 16] = [3; 16];
const MAC: usize = 8;

/// A context takes 16 bytes an entry of at least two characters, in a list that doubles; and the bytes of the text.
const BOUND: Bound = Bound { times: 40, more: 256 };

fn codec() -> ContextCodec {
    ContextCodec::new(ClusterId(7), ContextSecret(SECRET), PARTITIONS)
}

fn some_context(random: &mut Random) -> Context {
    let mut context = Context::empty();
    context.raise_epoch(Epoch(random.number()));
    if random.once_in(2) {
        context.raise_clock(Timestamp(random.number()));
    }
    for _ in 0..random.below(12) {
        let partition = random.below(PARTITIONS as usize) as u32;
        let stay = random.number() as u32;
        context.raise(PartitionId(partition), StayId(stay), random.number());
    }
    context
}

/// The text of these bytes under a right authentication code: what only this store could have made.
fn signed(bytes: &[u8]) -> String {
    let mac = SipHasher24::new_with_key(&SECRET).hash(bytes);
    URL_SAFE_NO_PAD.encode([bytes, &mac.to_le_bytes()].concat())
}

/// A few entries as they are written, with numbers of all sizes: most fit together.
fn written(random: &mut Random, head: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.extend(varint(random.number()));
    for _ in 0..random.below(8) {
        let first = if random.once_in(8) { random.number() } else { random.below(64) as u64 };
        bytes.extend(varint(first));
        if first & 3 == 3 {
            bytes.extend(varint(random.number()));
        }
        bytes.extend(varint(random.number()));
    }
    bytes
}

#[test]
fn contexts() {
    let codec = codec();
    let must = ["taken", "refused", "signed and refused"];
    run("contexts", 300, &must, |cases| {
        let whole = codec.encode(&some_context(&mut cases.random));
        let bytes = URL_SAFE_NO_PAD.decode(&whole).expect("it was encoded");
        let body = bytes[..bytes.len().saturating_sub(MAC)].to_vec();
        let kind = cases.random.below(4);
        let text = match kind {
            0 => String::from_utf8_lossy(&damaged(&mut cases.random, &[whole.clone().into_bytes()])).into_owned(),
            1 => signed(&damaged(&mut cases.random, &[body])),
            2 => {
                let head = signed_head(&codec, &mut cases.random);
                signed(&written(&mut cases.random, &head))
            }
            _ => whole.clone(),
        };
        match cases.within(text.len(), BOUND, || codec.decode(&text)) {
            Ok(context) => {
                cases.count("taken");
                assert_eq!(codec.encode(&context), text, "another text for the same");
            }
            Err(NotDecoded::Malformed | NotDecoded::OtherBranch) => {
                cases.count(if kind == 0 { "refused" } else { "signed and refused" });
                assert_ne!(text, whole);
            }
        }
    });
}

/// The version, the check bytes of the store, and perhaps a clock.
fn signed_head(codec: &ContextCodec, random: &mut Random) -> Vec<u8> {
    let mut context = Context::empty();
    context.raise_epoch(Epoch(1));
    let clock = random.once_in(2);
    context.raise_clock(Timestamp(if clock { random.number() | 1 } else { 0 }));
    let bytes = URL_SAFE_NO_PAD.decode(codec.encode(&context)).expect("it was encoded");
    bytes[..if clock { 11 } else { 3 }].to_vec()
}
