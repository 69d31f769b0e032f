//! Contexts as text: the `causal-metadata` string.
//!
//! The empty context, at epoch 0 and without a clock, is the empty text. Any other is, in base64url without padding:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1, or 2 on a branch that a recovery by force began; 3 and 4 are the same with a clock |
//! | 2 | check bytes of the cluster id: tells another store's context from a damaged one, to a reader of bytes |
//! | 4 | with versions 2 and 4, the branch: the lower half of its id, little-endian |
//! | 8 | with versions 3 and 4, the clock, little-endian; never zero |
//! | 1 to 10 | epoch, a varint |
//! | 2 and more, each | entries, ascending by partition, then stay |
//! | 8 | SipHash-2-4 (Aumasson, Bernstein, 2012) of all before, under the store's secret, little-endian |
//!
//! An entry is written against a place, the least partition and stay that can come next: `(0, 0)` first, `(p, s + 1)`
//! after an entry `(p, s)`. It is a varint of `partition delta << 2 | min(stay delta, 3)`; if these two bits are 3, a
//! varint of `stay delta − 3`; and a varint of `seq − 1`. The stay delta counts from 0 where the partition moves on.
//! So an entry that is out of order, named twice, or zero can't be written down at all, and low stay numbers of nearby
//! partitions take two bytes with their seq. Varints are LEB128 and minimal: a context has one text, and
//! [`ContextCodec::decode`] takes no other.
//!
//! The authentication code is what keeps made-up entries out: a session that carried one would wait for a write that
//! does not exist, and so would every reader of what it wrote.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher24;

use super::context::Context;
use crate::types::{BranchId, ClusterId, ContextSecret, Epoch, PartitionId, Seq, StayId, Timestamp};

/// The layout's version byte.
const VERSION: u8 = 1;
/// The same, with a branch.
const BRANCH_VERSION: u8 = 2;
/// What either is raised by where there is a clock.
const CLOCK: u8 = 2;
/// Bytes of the clock.
const CLOCK_BYTES: usize = 8;
/// Bytes of the cluster id's check.
const CHECK_BYTES: usize = 2;
/// Bytes of the branch.
const BRANCH_BYTES: usize = 4;
/// Bytes before the epoch or the branch: the version and the cluster's check bytes.
const HEAD_BYTES: usize = 1 + CHECK_BYTES;
/// Bytes of the authentication code at the end.
const MAC_BYTES: usize = 8;
/// The stay delta that says "and a varint follows".
const STAY_ESCAPE: u64 = 3;

/// Why a string is not one of this store's contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecoded {
    /// This store never made it.
    #[error("not a context of this store")]
    Malformed,
    /// A branch made it that this node's maps do not come of: a newer one, or one that was recovered apart from it.
    #[error("a context of another branch of this store")]
    OtherBranch,
}
use NotDecoded::Malformed;

/// Turns contexts of one store into text and back.
#[derive(Clone, Debug)]
pub struct ContextCodec {
    check: [u8; CHECK_BYTES],
    /// The branches that its maps come of, the present one last.
    branches: Vec<BranchId>,
    secret: ContextSecret,
    partitions: u32,
    tells_clocks: bool,
}

impl ContextCodec {
    /// The codec of a store.
    pub fn new(cluster_id: ClusterId, secret: ContextSecret, partitions: u32) -> Self {
        let check = xxhash_rust::xxh3::xxh3_64(&cluster_id.0.to_be_bytes());
        let check = [check as u8, (check >> 8) as u8];
        Self { check, branches: Vec::new(), secret, partitions, tells_clocks: true }
    }

    /// The same that leaves clocks out of texts, or not: nodes of builds before them take no text that has one.
    #[must_use]
    pub fn telling_clocks(self, tells_clocks: bool) -> Self {
        Self { tells_clocks, ..self }
    }

    /// The same on the last of these branches; what the others made is read, too.
    #[must_use]
    pub fn on_branches(self, branches: Vec<BranchId>) -> Self {
        Self { branches, ..self }
    }

    /// The longest text that is looked at, in characters: 64 KiB, or 64 for each partition where that is more, so that
    /// a context with several writers in every partition fits.
    pub fn max_chars(&self) -> usize {
        (64 * 1024).max(64 * self.partitions as usize)
    }

    /// The context's canonical text. Its partitions are the store's: [`ContextCodec::decode`] refuses others.
    pub fn encode(&self, context: &Context) -> String {
        let clock = if self.tells_clocks { context.clock() } else { Timestamp(0) };
        if context.is_empty() && context.epoch() == Epoch(0) && clock == Timestamp(0) {
            return String::new();
        }
        let most = HEAD_BYTES + BRANCH_BYTES + CLOCK_BYTES + 2 + 4 * context.len() + MAC_BYTES;
        let mut bytes = Vec::with_capacity(most);
        let version = if self.branches.is_empty() { VERSION } else { BRANCH_VERSION };
        bytes.push(if clock == Timestamp(0) { version } else { version + CLOCK });
        bytes.extend_from_slice(&self.check);
        if let Some(branch) = self.branches.last() {
            bytes.extend_from_slice(&branch_bytes(*branch));
        }
        if clock != Timestamp(0) {
            bytes.extend_from_slice(&clock.0.to_le_bytes());
        }
        put_varint(&mut bytes, context.epoch().0);
        let mut place = Place::default();
        for (partition, stay, seq) in context.iter() {
            place.put(&mut bytes, partition, stay, seq);
        }
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The context of a text that [`ContextCodec::encode`] of this very store made; the empty text is the empty one.
    ///
    /// # Errors
    /// [`NotDecoded`] for any other text.
    pub fn decode(&self, text: &str) -> Result<Context, NotDecoded> {
        if text.is_empty() {
            return Ok(Context::empty());
        }
        if text.len() > self.max_chars() {
            return Err(Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed)?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(Malformed)?;
        // Two words are compared as one, so the time it takes tells nothing of how far a guess was right.
        if u64::from_le_bytes(*mac) != self.mac(signed) {
            return Err(Malformed);
        }
        let (version, rest) = signed.split_first().ok_or(Malformed)?;
        let body = rest.strip_prefix(&self.check).ok_or(Malformed)?;
        let (version, has_clock) = match version.checked_sub(CLOCK) {
            Some(plain @ (VERSION | BRANCH_VERSION)) => (plain, true),
            _ => (*version, false),
        };
        match version {
            VERSION => self.decode_body(body, has_clock),
            BRANCH_VERSION => {
                let (branch, body) = body.split_first_chunk::<BRANCH_BYTES>().ok_or(Malformed)?;
                let known = self.branches.iter().any(|known| branch_bytes(*known) == *branch);
                if known { self.decode_body(body, has_clock) } else { Err(NotDecoded::OtherBranch) }
            }
            _ => Err(Malformed),
        }
    }

    /// Clock, epoch and entries. Their order, and that no seq is zero, is in the layout itself.
    fn decode_body(&self, mut body: &[u8], has_clock: bool) -> Result<Context, NotDecoded> {
        let mut context = Context::empty();
        if has_clock {
            let (clock, rest) = body.split_first_chunk::<CLOCK_BYTES>().ok_or(Malformed)?;
            context.raise_clock(Timestamp(u64::from_le_bytes(*clock)));
            if context.clock() == Timestamp(0) {
                return Err(Malformed);
            }
            body = rest;
        }
        context.raise_epoch(Epoch(take_varint(&mut body)?));
        let mut place = Place::default();
        while !body.is_empty() {
            let (partition, stay, seq) = place.take(&mut body)?;
            if partition.0 >= self.partitions {
                return Err(Malformed);
            }
            context.raise(partition, stay, seq);
        }
        // The empty context has the empty text, and no other.
        if context == Context::empty() { Err(Malformed) } else { Ok(context) }
    }

    fn mac(&self, signed: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.secret.0).hash(signed)
    }
}

fn branch_bytes(branch: BranchId) -> [u8; BRANCH_BYTES] {
    (branch.0 as u32).to_le_bytes()
}

/// The least partition and, within it, stay that the next entry can name.
#[derive(Default)]
struct Place {
    partition: u64,
    stay: u64,
}

impl Place {
    fn put(&mut self, bytes: &mut Vec<u8>, partition: PartitionId, stay: StayId, seq: Seq) {
        let partition_delta = u64::from(partition.0) - self.partition;
        let stay_delta = u64::from(stay.0) - self.least_stay(partition_delta);
        put_varint(bytes, partition_delta << 2 | stay_delta.min(STAY_ESCAPE));
        if let Some(rest) = stay_delta.checked_sub(STAY_ESCAPE) {
            put_varint(bytes, rest);
        }
        put_varint(bytes, seq - 1);
        self.move_past(partition, stay);
    }

    fn take(&mut self, bytes: &mut &[u8]) -> Result<(PartitionId, StayId, Seq), NotDecoded> {
        let first = take_varint(bytes)?;
        let partition_delta = first >> 2;
        let mut stay_delta = first & STAY_ESCAPE;
        if stay_delta == STAY_ESCAPE {
            stay_delta = stay_delta.checked_add(take_varint(bytes)?).ok_or(Malformed)?;
        }
        let partition = add(self.partition, partition_delta)?;
        let stay = add(self.least_stay(partition_delta), stay_delta)?;
        let seq = take_varint(bytes)?.checked_add(1).ok_or(Malformed)?;
        self.move_past(PartitionId(partition), StayId(stay));
        Ok((PartitionId(partition), StayId(stay), seq))
    }

    fn least_stay(&self, partition_delta: u64) -> u64 {
        if partition_delta == 0 { self.stay } else { 0 }
    }

    fn move_past(&mut self, partition: PartitionId, stay: StayId) {
        *self = Self { partition: u64::from(partition.0), stay: u64::from(stay.0) + 1 };
    }
}

/// A sum that still is a partition's or stay's number.
fn add(base: u64, delta: u64) -> Result<u32, NotDecoded> {
    base.checked_add(delta).and_then(|sum| u32::try_from(sum).ok()).ok_or(Malformed)
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a minimal LEB128 number of at most 64 bits off the front.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, NotDecoded> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(Malformed);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let minimal = byte != 0 || shift == 0;
            return if minimal { Ok(number) } else { Err(Malformed) };
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTITIONS: u32 = 256;

    fn codec() -> ContextCodec {
        ContextCodec::new(ClusterId(7), ContextSecret([3; 16]), PARTITIONS)
    }

    fn context_of(epoch: u64, entries: &[(u32, u32, u64)]) -> Context {
        let mut context = Context::empty();
        context.raise_epoch(Epoch(epoch));
        for &(partition, stay, seq) in entries {
            context.raise(PartitionId(partition), StayId(stay), seq);
        }
        context
    }

    /// Contexts with plausible numbers, and with numbers from the whole of their space.
    fn context() -> impl Strategy<Value = Context> {
        let number = || prop_oneof![4 => 0u64..20, 2 => 100u64..70_000, 1 => any::<u64>(), 1 => Just(u64::MAX)];
        let stay = prop_oneof![4 => 0u32..8, 1 => any::<u32>(), 1 => Just(u32::MAX)];
        let entry = (0..PARTITIONS, stay, number());
        (number(), number(), prop::collection::vec(entry, 0..40)).prop_map(|(epoch, clock, entries)| {
            let mut context = context_of(epoch, &entries);
            context.raise_clock(Timestamp(clock));
            context
        })
    }

    /// The text of these bytes with a right authentication code: what only this store could have made.
    fn signed(bytes: &[u8]) -> String {
        signed_as(VERSION, bytes)
    }

    fn signed_as(version: u8, bytes: &[u8]) -> String {
        let mut all = vec![version];
        all.extend_from_slice(&codec().check);
        all.extend_from_slice(bytes);
        let mac = codec().mac(&all);
        all.extend_from_slice(&mac.to_le_bytes());
        URL_SAFE_NO_PAD.encode(all)
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same(context in context()) {
            prop_assert_eq!(codec().decode(&codec().encode(&context)), Ok(context));
        }

        #[test]
        fn one_context_has_one_text(
            version in 0u8..6,
            body in prop::collection::vec(prop_oneof![0u8..9, any::<u8>()], 0..24),
        ) {
            let text = signed_as(version, &body);
            if let Ok(context) = codec().decode(&text) {
                prop_assert_eq!(codec().encode(&context), text);
            }
        }

        #[test]
        fn garbage_is_refused(text in "\\PC{1,80}", word in "[A-Za-z0-9_-]{1,200}") {
            prop_assert_eq!(codec().decode(&text), Err(Malformed));
            prop_assert_eq!(codec().decode(&word), Err(Malformed));
        }

        #[test]
        fn another_stores_text_is_refused(context in context()) {
            let text = codec().encode(&context);
            prop_assume!(!text.is_empty());
            let other_secret = ContextCodec::new(ClusterId(7), ContextSecret([4; 16]), PARTITIONS);
            let other_id = ContextCodec::new(ClusterId(8), ContextSecret([3; 16]), PARTITIONS);
            prop_assert_eq!(other_secret.decode(&text), Err(Malformed));
            prop_assert_eq!(other_id.decode(&text), Err(Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_change_cut_and_extension_is_refused(context in context()) {
            let text = codec().encode(&context);
            for at in 0..text.len() {
                if at > 0 {
                    prop_assert_eq!(codec().decode(&text[..at]), Err(Malformed));
                }
                for letter in "AZaz09-_=+/. é".chars().filter(|l| !text[at..].starts_with(*l)) {
                    let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
                    prop_assert_eq!(codec().decode(&changed), Err(Malformed));
                    let longer = format!("{}{letter}{}", &text[..at], &text[at..]);
                    prop_assert_eq!(codec().decode(&longer), Err(Malformed));
                }
            }
            for tail in ["A", "AA", "AAAA", "=", "==", "\n", " "] {
                prop_assert_eq!(codec().decode(&format!("{text}{tail}")), Err(Malformed));
            }
        }
    }

    #[test]
    fn a_branch_reads_what_it_comes_of_and_nothing_else() {
        let on = |branches: &[u64]| codec().on_branches(branches.iter().copied().map(BranchId).collect());
        let (context, codecs) = (context_of(2, &[(0, 0, 1)]), [on(&[]), on(&[7]), on(&[7, 8]), on(&[9])]);
        let read = |by: &ContextCodec| codecs.each_ref().map(|codec| by.decode(&codec.encode(&context)));
        let (ok, other) = (Ok(context.clone()), Err(NotDecoded::OtherBranch));
        assert_eq!(read(&codecs[0]), [ok.clone(), other.clone(), other.clone(), other.clone()]);
        assert_eq!(read(&codecs[2]), [ok.clone(), ok.clone(), ok.clone(), other.clone()]);
        assert_eq!(read(&codecs[3]), [ok.clone(), other.clone(), other, ok]);
        let text = codecs[1].encode(&context);
        for at in 1..text.len() {
            assert_eq!(codecs[1].decode(&text[..at]), Err(Malformed));
        }
    }

    #[test]
    fn clocks_are_left_out_where_a_build_does_not_take_them() {
        let plain = codec().telling_clocks(false);
        let (without, mut with) = (context_of(2, &[(0, 0, 1)]), context_of(2, &[(0, 0, 1)]));
        with.raise_clock(Timestamp(1 << 40));
        assert_eq!(plain.encode(&with), codec().encode(&without), "as builds before clocks have it");
        assert_eq!(plain.decode(&codec().encode(&with)), Ok(with.clone()), "it is read all the same");
        assert!(codec().encode(&with).len() <= codec().encode(&without).len() + 11);
        let mut alone = Context::empty();
        alone.raise_clock(Timestamp(1));
        assert_eq!((plain.encode(&alone), codec().decode(&codec().encode(&alone))), (String::new(), Ok(alone)));
        let on_branch = codec().on_branches(vec![BranchId(7)]);
        assert_eq!(on_branch.decode(&on_branch.encode(&with)), Ok(with));
        assert_eq!(codec().decode(&signed_as(VERSION + CLOCK, &[0, 0, 0, 0, 0, 0, 0, 0, 2])), Err(Malformed));
        assert_eq!(codec().decode(&signed_as(VERSION + CLOCK, &[1, 0, 0])), Err(Malformed), "cut in its clock");
    }

    #[test]
    fn the_empty_context_is_the_empty_text() {
        assert_eq!(codec().encode(&Context::empty()), "");
        assert_eq!(codec().decode(""), Ok(Context::empty()));
        let with_epoch = context_of(5, &[]);
        assert_eq!(codec().decode(&codec().encode(&with_epoch)), Ok(with_epoch));
        assert_eq!(codec().decode(&signed(&[0])), Err(Malformed), "the empty context in long");
    }

    #[test]
    fn what_the_layout_could_write_twice_or_not_mean_is_refused_though_signed() {
        assert_eq!(codec().decode(&signed(&[1, 8, 4])), Ok(context_of(1, &[(2, 0, 5)])));
        let refused: [(&str, &[u8]); 9] = [
            ("no epoch", &[]),
            ("an epoch of two bytes that fits in one", &[0x81, 0]),
            ("an epoch beyond 64 bits", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            ("an epoch without an end", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            ("an entry without its seq", &[1, 8]),
            ("a seq in long", &[1, 8, 0x84, 0]),
            ("a seq beyond 64 bits", &[1, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            ("a stay beyond 32 bits", &[1, 3, 0xfd, 0xff, 0xff, 0xff, 0x0f, 0]),
            ("a partition that the store does not have", &[1, 0x80, 8, 4]),
        ];
        for (what, body) in refused {
            assert_eq!(codec().decode(&signed(body)), Err(Malformed), "{what}");
        }
    }

    #[test]
    fn texts_stay_short_and_their_layout_stays_the_same() {
        let spread: Vec<_> = (0..12).map(|i| (i * 21, i % 3, 3 + u64::from(i))).collect();
        let late: Vec<_> = spread.iter().map(|&(partition, stay, seq)| (partition, stay, 10_000 + seq)).collect();
        let all: Vec<_> = (0..PARTITIONS).flat_map(|p| [(p, 0, 3), (p, 1, 90)]).collect();
        let length = |entries: &[_]| codec().encode(&context_of(300, entries)).len();
        assert_eq!([length(&spread), length(&late), length(&all)], [50, 66, 1383]);
        // A fixed point: a text handed out yesterday is read tomorrow.
        assert_eq!(
            codec().encode(&context_of(2, &[(0, 0, 1), (0, 5, 300), (9, 1, 128)])),
            "AZB6AgAAAwGrAiV_nNtXYgdZquw"
        );
    }

    #[test]
    fn the_longest_context_of_a_store_fits_and_longer_text_is_not_looked_at() {
        let many = ContextCodec::new(ClusterId(7), ContextSecret([3; 16]), 65_536);
        let entries: Vec<_> = (0..65_536).flat_map(|p| (0..4).map(move |stay| (p, stay, 1 << 40))).collect();
        let context = context_of(1 << 40, &entries);
        assert_eq!(many.decode(&many.encode(&context)), Ok(context));
        assert_eq!(codec().decode(&"A".repeat(codec().max_chars() + 1)), Err(Malformed));
    }
}
