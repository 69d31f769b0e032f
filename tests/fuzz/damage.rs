//! Bytes that were good, damaged.

use crate::random::Random;

/// The longest input that damage makes, in bytes.
const MOST: usize = 64 << 10;

/// Nothing but chance, or a few strokes of damage to one of these.
pub fn damaged(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.once_in(16) {
        let length = random.below(200);
        return random.bytes(length);
    }
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..1 + random.below(4) {
        strike(random, &mut bytes, seeds);
    }
    bytes.truncate(MOST);
    bytes
}

fn strike(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let (from, until) = range(random, bytes);
    match random.below(9) {
        0 if from < bytes.len() => bytes[from] ^= 1 << random.below(8),
        1 if from < bytes.len() => bytes[from] = random.next() as u8,
        2 => bytes.truncate(from),
        3 => drop(bytes.drain(from..until)),
        4 => {
            let length = random.below(12);
            let new = random.bytes(length);
            bytes.splice(from..from, new);
        }
        5 => {
            // Repeated: a little often, or a lot a few times.
            let part = bytes[from..until].to_vec();
            let times = 1 + random.below(64 + 1024 / (1 + part.len()));
            bytes.splice(until..until, part.repeat(times));
        }
        6 => {
            let other = random.pick(seeds);
            let (begin, end) = range(random, other);
            bytes.splice(from..until, other[begin..end].iter().copied());
        }
        // A length, a count or a number blown up: over what stands there, or before it.
        7 => {
            let number = varint(random.number());
            let until = (from + number.len()).min(bytes.len());
            bytes.splice(from..until, number);
        }
        _ => {
            let number = varint(random.number());
            bytes.splice(from..from, number);
        }
    }
}

fn range(random: &mut Random, bytes: &[u8]) -> (usize, usize) {
    let (a, b) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
    // Most are short.
    let (from, until) = (a.min(b), a.max(b));
    if random.once_in(3) { (from, until) } else { (from, until.min(from + 1 + random.below(8)).max(from)) }
}

/// LEB128, as protobuf, postcard and contexts have it.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
