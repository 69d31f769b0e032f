//! Temporary.
use crate::types::NodeAddr;
use std::collections::BTreeMap;
/// Temporary.
#[derive(Debug)]
pub struct Detector {
    last: BTreeMap<NodeAddr, Option<u64>>,
}
#[allow(missing_docs)]
impl Detector {
    pub fn new(now: u64, peers: impl IntoIterator<Item = NodeAddr>) -> Self {
        Self { last: peers.into_iter().map(|p| (p, Some(now))).collect() }
    }
    pub fn heard(&mut self, now: u64, p: &NodeAddr) {
        if let Some(l) = self.last.get_mut(p) {
            *l = Some(now);
        }
    }
    pub fn told(&mut self, _now: u64, _p: &NodeAddr, _wall: u64, _hears: &[NodeAddr]) {}
    pub fn connected(&mut self, now: u64, p: &NodeAddr) {
        self.heard(now, p)
    }
    pub fn refused(&mut self, p: &NodeAddr) {
        if let Some(l) = self.last.get_mut(p) {
            *l = None;
        }
    }
    pub fn is_live(&self, now: u64, p: &NodeAddr) -> bool {
        self.last.get(p).copied().flatten().is_some_and(|l| now < l + 3000)
    }
    pub fn clock_is_ahead(&self, _wall: u64, _now: u64) -> bool {
        false
    }
}
