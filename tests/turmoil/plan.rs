//! What is done in a run, drawn from its seed alone.

use std::time::Duration;

use crate::random::Random;

/// A run: its store, its network, its clients and its faults. Times are milliseconds after the store's birth.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub shards: u32,
    pub partitions: u32,
    /// The shortest and the longest time that a message takes.
    pub latency: (Duration, Duration),
    /// The longest time over single links that are worse.
    pub slow: Vec<(usize, usize, Duration)>,
    /// How far each node's clock is ahead.
    pub ahead_ms: Vec<u64>,
    pub sessions: usize,
    pub keys: usize,
    pub work_ms: u64,
    pub reshard: (u64, u32),
    pub faults: Vec<(u64, Fault)>,
}

/// Something that is done to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// These links lose everything, and what was under way, so that their connections are of no use any more.
    Cut(Vec<(usize, usize)>),
    /// From each first to each second everything is lost.
    CutOneWay(Vec<(usize, usize)>),
    /// These links keep everything back, and give it when they are mended, as TCP does with what it sends again.
    Hold(Vec<(usize, usize)>),
    /// Links are mended.
    Mend(Vec<(usize, usize)>),
    /// A process ends at once; of the batches that it had not synced so many of a hundred are kept, the oldest.
    Crash { node: usize, keep_percent: u64, when: When },
    /// It is started again.
    Start(usize),
}

/// When exactly a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    AtOnce,
    /// As soon as it has something that is not synced, or half a second later.
    Unsynced,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = random.within(4, 6) as usize;
        let most = nodes as u32 / 2;
        let shards = random.within(1, most.into()) as u32;
        let others: Vec<u32> = (1..=most).filter(|count| *count != shards).collect();
        let longest = random.pick(&[8, 20, 50, 120]);
        let latency = (Duration::from_millis(random.within(0, 3)), Duration::from_millis(longest));
        let slow = (0..random.within(0, 2)).map(|_| link(&mut random, nodes));
        let slow: Vec<_> = slow.collect();
        let slow =
            slow.into_iter().map(|(a, b)| (a, b, Duration::from_millis(longest * random.within(2, 4)))).collect();
        let mut plan = Self {
            seed,
            nodes,
            shards,
            partitions: random.pick(&[4, 8, 16]),
            latency,
            slow,
            ahead_ms: (0..nodes).map(|_| random.pick(&[0, 0, 300, 2_000])).collect(),
            sessions: random.within(3, 5) as usize,
            keys: random.within(6, 16) as usize,
            work_ms: 0,
            reshard: (random.within(100, 2_500), random.pick(&others)),
            faults: Vec::new(),
        };
        plan.cut_links(&mut random);
        plan.crash(&mut random);
        plan.faults.sort_by_key(|(at, _)| *at);
        plan.work_ms = plan.faults.last().map_or(0, |(at, _)| *at) + random.within(300, 1_000);
        plan
    }

    /// One or two partitions, one after the other.
    fn cut_links(&mut self, random: &mut Random) {
        let mut at = random.within(100, 1_500);
        for _ in 0..random.within(1, 2) {
            let links = self.links(random);
            let cut = match random.weighted(&[5, 3, 2]) {
                0 => Fault::Cut(links.clone()),
                1 => Fault::Hold(links.clone()),
                _ => Fault::CutOneWay(links.clone()),
            };
            self.faults.push((at, cut));
            at += random.within(200, 2_500);
            self.faults.push((at, Fault::Mend(links)));
            at += random.within(100, 1_000);
        }
    }

    /// The links of a partition: of one node, between two halves, or a single one.
    fn links(&self, random: &mut Random) -> Vec<(usize, usize)> {
        let aside: Vec<bool> = match random.weighted(&[4, 3, 2]) {
            0 => {
                let one = random.index(self.nodes);
                (0..self.nodes).map(|node| node == one).collect()
            }
            1 => (0..self.nodes).map(|node| node < self.nodes / 2).collect(),
            _ => return vec![link(random, self.nodes)],
        };
        let pairs = (0..self.nodes).flat_map(|a| (0..self.nodes).map(move |b| (a, b)));
        pairs.filter(|(a, b)| aside[*a] && !aside[*b]).collect()
    }

    /// One or two crashes, one after the other.
    fn crash(&mut self, random: &mut Random) {
        let mut at = random.within(100, 2_500);
        for _ in 0..random.within(1, 2) {
            let node = random.index(self.nodes);
            let (keep_percent, when) = (random.pick(&[0, 0, 50, 100]), random.pick(&[When::AtOnce, When::Unsynced]));
            self.faults.push((at, Fault::Crash { node, keep_percent, when }));
            at += random.within(100, 2_500);
            self.faults.push((at, Fault::Start(node)));
            at += random.within(50, 1_000);
        }
    }
}

/// Any link between two nodes.
fn link(random: &mut Random, nodes: usize) -> (usize, usize) {
    let a = random.index(nodes);
    (a, (a + 1 + random.index(nodes - 1)) % nodes)
}
