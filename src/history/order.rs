//! Directed graphs of operations: topological order, cycles, and vector clocks over chains.

use std::collections::VecDeque;

/// Operations by number; an edge leads from what comes first to what follows.
pub struct Graph {
    /// Where each node's successors begin in `to`; one more at the end.
    from: Vec<u32>,
    to: Vec<u32>,
}

impl Graph {
    /// A graph of so many nodes.
    pub fn new(nodes: usize, edges: &[(u32, u32)]) -> Self {
        let mut from = vec![0_u32; nodes + 1];
        for (a, _) in edges {
            from[*a as usize + 1] += 1;
        }
        for i in 0..nodes {
            from[i + 1] += from[i];
        }
        let mut at = from.clone();
        let mut to = vec![0; edges.len()];
        for (a, b) in edges {
            to[at[*a as usize] as usize] = *b;
            at[*a as usize] += 1;
        }
        Self { from, to }
    }

    fn nodes(&self) -> usize {
        self.from.len() - 1
    }

    /// What follows a node directly.
    pub fn next(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.to[self.from[node] as usize..self.from[node + 1] as usize]
    }

    /// Every node after all that lead to it.
    ///
    /// # Errors
    /// A cycle, when there is one: the shortest through one of its nodes.
    pub fn sorted(&self) -> Result<Vec<u32>, Vec<u32>> {
        let mut waits = vec![0_u32; self.nodes()];
        for b in &self.to {
            waits[*b as usize] += 1;
        }
        let mut sorted: Vec<u32> = (0..self.nodes() as u32).filter(|n| waits[*n as usize] == 0).collect();
        let mut done = 0;
        while done < sorted.len() {
            for b in self.next(sorted[done]) {
                waits[*b as usize] -= 1;
                if waits[*b as usize] == 0 {
                    sorted.push(*b);
                }
            }
            done += 1;
        }
        if done == self.nodes() { Ok(sorted) } else { Err(self.cycle(&waits)) }
    }

    /// A cycle among the nodes that still wait. Each of them waits for another one, so whoever goes back from one to the
    /// next for long enough is on a cycle.
    fn cycle(&self, waits: &[u32]) -> Vec<u32> {
        let waiting = |n: u32| waits[n as usize] > 0;
        let mut before = vec![u32::MAX; self.nodes()];
        for a in (0..self.nodes() as u32).filter(|a| waiting(*a)) {
            for b in self.next(a) {
                before[*b as usize] = a;
            }
        }
        let mut on = (0..self.nodes() as u32).find(|n| waiting(*n)).expect("some node waits");
        for _ in 0..self.nodes() {
            on = before[on as usize];
        }
        self.shortest(on, &waiting)
    }

    /// The shortest way from a node back to itself.
    fn shortest(&self, start: u32, allowed: &impl Fn(u32) -> bool) -> Vec<u32> {
        let mut before = vec![u32::MAX; self.nodes()];
        let mut queue = VecDeque::from([start]);
        while let Some(a) = queue.pop_front() {
            for b in self.next(a).iter().copied().filter(|b| allowed(*b)) {
                if b == start {
                    let mut way = vec![a];
                    while *way.last().expect("it begins with one") != start {
                        way.push(before[way[way.len() - 1] as usize]);
                    }
                    way.reverse();
                    return way;
                }
                if before[b as usize] == u32::MAX {
                    before[b as usize] = a;
                    queue.push_back(b);
                }
            }
        }
        unreachable!("the node is on a cycle")
    }
}

/// Where an operation stands: the `at`-th, from 1, of an unbranched line of operations that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub chain: u32,
    pub at: u32,
}

/// For each operation, how many of each chain are in its causal past, itself included (Fidge 1988, Mattern 1989).
pub struct Clocks {
    chains: usize,
    seen: Vec<u32>,
}

impl Clocks {
    /// No operation knows any yet.
    pub fn new(operations: usize, chains: usize) -> Self {
        Self { chains, seen: vec![0; operations * chains] }
    }

    /// What an operation knows.
    pub fn of(&self, operation: usize) -> &[u32] {
        &self.seen[operation * self.chains..][..self.chains]
    }

    /// Takes what another knows into what an operation knows.
    pub fn join(&mut self, operation: usize, other: usize) {
        if operation == other {
            return;
        }
        let n = self.chains;
        let (low, high) = self.seen.split_at_mut(operation.max(other) * n);
        let (mine, theirs) = if operation < other {
            (&mut low[operation * n..][..n], &high[..n])
        } else {
            (&mut high[..n], &low[other * n..][..n])
        };
        for (mine, theirs) in mine.iter_mut().zip(theirs) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// An operation knows itself.
    pub fn put(&mut self, operation: usize, place: Place) {
        self.seen[operation * self.chains + place.chain as usize] = place.at;
    }
}

/// True when what stands at this place is known.
pub fn knows(clock: &[u32], place: Place) -> bool {
    clock[place.chain as usize] >= place.at
}
