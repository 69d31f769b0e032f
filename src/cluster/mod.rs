//! Who holds what, how that is agreed, how it gets where it should be.

pub mod change;
pub mod check;
pub mod delta;
pub mod detector;
pub mod layout;
pub mod line;
pub mod map;
pub mod paxos;
pub mod plan;
pub mod reconcile;
pub mod recover;
pub mod voters;
