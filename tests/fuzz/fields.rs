//! Protobuf that was good, damaged field by field: what comes out has right lengths, so the damage reaches the fields.

use crate::damage::{damaged, varint};
use crate::random::Random;

/// How deep messages are looked for within messages.
const DEPTH: usize = 8;

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

/// One of these messages with a few of its fields damaged.
pub fn damaged_fields(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let seed: &Vec<u8> = random.pick(seeds);
    let Some(mut fields) = parsed(seed, DEPTH) else { return damaged(random, seeds) };
    for _ in 0..1 + random.below(3) {
        strike(random, &mut fields, seeds);
    }
    let mut bytes = Vec::new();
    write(&fields, &mut bytes);
    bytes
}

fn strike(random: &mut Random, fields: &mut Vec<Field>, seeds: &[Vec<u8>]) {
    if fields.is_empty() {
        return;
    }
    let at = random.below(fields.len());
    if !random.once_in(4)
        && let Value::Message(inner) = &mut fields[at].value
    {
        return strike(random, inner, seeds);
    }
    match random.below(8) {
        0 => drop(fields.remove(at)),
        1 => {
            let other = random.below(fields.len());
            fields.swap(at, other);
        }
        2 => {
            let field = fields[at].clone();
            let most = if random.once_in(8) { 200 } else { 3 };
            let times = 1 + random.below(most);
            fields.splice(at..at, std::iter::repeat_n(field, times));
        }
        3 => fields[at].number = 1 + random.below(16) as u64,
        4 => fields[at].value = Value::Message(Vec::new()),
        _ => strike_value(random, &mut fields[at].value, seeds),
    }
}

fn strike_value(random: &mut Random, value: &mut Value, seeds: &[Vec<u8>]) {
    match value {
        Value::Number(number) if random.once_in(2) => {
            *number = number.wrapping_add(random.below(5) as u64).wrapping_sub(2)
        }
        Value::Number(number) => *number = random.number(),
        Value::Fixed(bytes) => {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        Value::Bytes(bytes) => *bytes = damaged(random, std::slice::from_ref(bytes)),
        Value::Message(_) => *value = Value::Bytes(damaged(random, seeds)),
    }
}

/// The fields of a message; of bytes that could be a message, it is taken for one.
fn parsed(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            1 => Value::Fixed(bytes.split_off(..8)?.to_vec()),
            5 => Value::Fixed(bytes.split_off(..4)?.to_vec()),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let inner = bytes.split_off(..length)?;
                let message = if depth > 0 && !inner.is_empty() { parsed(inner, depth - 1) } else { None };
                message.map_or_else(|| Value::Bytes(inner.to_vec()), Value::Message)
            }
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value });
    }
    Some(fields)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn write(fields: &[Field], bytes: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let mut tag = |kind: u64| bytes.extend(varint(number << 3 | kind));
        match value {
            Value::Number(value) => {
                tag(0);
                bytes.extend(varint(*value));
            }
            Value::Fixed(fixed) => {
                tag(if fixed.len() == 8 { 1 } else { 5 });
                bytes.extend(fixed);
            }
            Value::Bytes(inner) => {
                tag(2);
                bytes.extend(varint(inner.len() as u64));
                bytes.extend(inner);
            }
            Value::Message(inner) => {
                let mut message = Vec::new();
                write(inner, &mut message);
                tag(2);
                bytes.extend(varint(message.len() as u64));
                bytes.extend(message);
            }
        }
    }
}
