//! Numbers that follow from a seed alone.

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of case `number` of a target.
    pub fn new(seed: u64, target: &str, number: u64) -> Self {
        let name = target.bytes().fold(seed, |sum, byte| mixed(sum ^ u64::from(byte)));
        Self(mixed(name ^ mixed(number)))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Any number, most often one at which something begins or ends.
    pub fn number(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        let end = 1u64.checked_shl(bits).unwrap_or(0);
        match self.below(6) {
            0 => self.below(8) as u64,
            1 => end,
            2 => end.wrapping_sub(1),
            3 => end.wrapping_add(1),
            4 => u64::MAX - self.below(3) as u64,
            _ => self.next() >> (bits % 64),
        }
    }
}

fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
