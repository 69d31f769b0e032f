//! How often each interesting thing happened: a sweep in which nothing went wrong proves nothing if nothing happened.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Counters by name.
#[derive(Clone, Debug, Default)]
pub struct Coverage(HashMap<Cow<'static, str>, u64>);

impl Coverage {
    /// Counts one more.
    pub fn hit(&mut self, what: impl Into<Cow<'static, str>>) {
        self.add(what, 1);
    }

    /// Counts some more.
    pub fn add(&mut self, what: impl Into<Cow<'static, str>>, count: u64) {
        *self.0.entry(what.into()).or_default() += count;
    }

    /// Keeps the greatest.
    pub fn most(&mut self, what: impl Into<Cow<'static, str>>, count: u64) {
        let entry = self.0.entry(what.into()).or_default();
        *entry = count.max(*entry);
    }

    /// How often it happened.
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Takes in another run's; names that begin with `most ` keep the greatest.
    pub fn join(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            if what.starts_with("most ") {
                self.most(what.clone(), *count);
            } else {
                self.add(what.clone(), *count);
            }
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.0.iter().filter(|(what, _)| !what.starts_with("met: ") && !what.starts_with("row: "));
        for (what, count) in listed.collect::<BTreeMap<_, _>>() {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}
