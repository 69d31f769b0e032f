//! What ails a disk, told by the test and felt by the file system in `fuse`.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::random::Random;

/// One thing that can ail a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ill {
    #[default]
    Nothing,
    /// Each write and each sync takes so many milliseconds longer, from the first to the second.
    Slow(u64, u64),
    /// So many syncs fail from now on. What was written is there to be read all the same.
    SyncsFail(u64),
    /// Of a thousand reads, of files and of directories, so many fail.
    ReadsFail(u64),
}

/// What ails one disk now.
pub struct Ills(Mutex<State>);

struct State {
    ill: Ill,
    /// How often it was felt.
    felt: u64,
    random: Random,
}

impl Ills {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State { ill: Ill::Nothing, felt: 0, random: Random::new(seed) }))
    }

    /// This ails it from now on; how often what did before was felt.
    pub fn set(&self, ill: Ill) -> u64 {
        let mut state = self.state();
        state.ill = ill;
        std::mem::take(&mut state.felt)
    }

    /// How often it was felt so far.
    pub fn felt(&self) -> u64 {
        self.state().felt
    }

    /// Before something is written.
    pub fn on_write(&self) {
        let time = self.state().slowness();
        std::thread::sleep(time);
    }

    /// Before something is made durable.
    ///
    /// # Errors
    /// It is not.
    pub fn on_sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Ill::SyncsFail(left) = &mut state.ill
            && *left > 0
        {
            *left -= 1;
            return state.fail();
        }
        let time = state.slowness();
        drop(state);
        std::thread::sleep(time);
        Ok(())
    }

    /// Before something is read.
    ///
    /// # Errors
    /// It can't be read this time.
    pub fn on_read(&self) -> io::Result<()> {
        let mut state = self.state();
        let Ill::ReadsFail(share) = state.ill else { return Ok(()) };
        if state.random.within(1, 1_000) <= share { state.fail() } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slowness(&mut self) -> Duration {
        let Ill::Slow(least, most) = self.ill else { return Duration::ZERO };
        self.felt += 1;
        Duration::from_millis(self.random.within(least, most))
    }

    fn fail(&mut self) -> io::Result<()> {
        self.felt += 1;
        Err(Errno::IO.into())
    }
}
