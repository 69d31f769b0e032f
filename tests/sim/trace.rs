//! What happened, as a hash (two runs of a seed are byte-identical) and, when asked for, as lines to read.

use std::fmt::{self, Debug, Write};

/// Takes note of every input and effect.
#[derive(Debug)]
pub struct Trace {
    print: bool,
    hash: Option<Fnv>,
}

/// FNV-1a over all that is written to it.
#[derive(Debug)]
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Ok(())
    }
}

impl Trace {
    /// A trace that prints, hashes, or neither (a sweep's, for speed).
    pub fn new(print: bool, hash: bool) -> Self {
        Self { print, hash: hash.then_some(Fnv(0xCBF2_9CE4_8422_2325)) }
    }

    /// True when somebody looks: what is costly to say need not be said otherwise.
    pub fn wanted(&self) -> bool {
        self.print || self.hash.is_some()
    }

    /// Takes note of one thing at one node.
    pub fn note(&mut self, now_ms: u64, node: usize, what: &str, detail: &dyn Debug) {
        if let Some(hash) = &mut self.hash {
            writeln!(hash, "{now_ms} {node} {what} {detail:?}").expect("hashing never fails");
        }
        if self.print {
            println!("{now_ms:>7} node{} {what} {detail:?}", node + 1);
        }
    }

    /// Takes note of something that the world did.
    pub fn say(&mut self, now_ms: u64, text: impl FnOnce() -> String) {
        if self.wanted() {
            let text = text();
            if let Some(hash) = &mut self.hash {
                writeln!(hash, "{now_ms} {text}").expect("hashing never fails");
            }
            if self.print {
                println!("{now_ms:>7} {text}");
            }
        }
    }

    /// The hash of all so far; 0 when none is kept.
    pub fn hash(&self) -> u64 {
        self.hash.as_ref().map_or(0, |hash| hash.0)
    }
}
