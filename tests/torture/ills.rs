//! Disks that can be ill: what ails one is told by the test, and felt by the file system in `fuse`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use fuser::{BackgroundSession, Config, MountOption, spawn_mount};
use rustix::io::Errno;

use crate::disks::clear_what_others_left;
use crate::fuse::PassThrough;
use crate::machine::perhaps;
use crate::random::Random;

/// As many requests are served at a time: more than a node has threads that use its disk.
const THREADS: usize = 12;

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

/// The disk of one node; taken away when it is dropped.
pub struct AilingDisk {
    mounted: PathBuf,
    /// Where the files truly are.
    pub backing: PathBuf,
    ills: Arc<Ills>,
    session: Option<BackgroundSession>,
}

impl AilingDisk {
    /// A new one, mounted here; nothing ails it.
    ///
    /// # Errors
    /// What this machine lacks for that, in words.
    pub fn new(mounted: &Path, seed: u64) -> Result<Self, String> {
        clear_what_others_left();
        let backing = mounted.with_extension("backing");
        for path in [&backing, &mounted.to_owned()] {
            fs::create_dir_all(path).map_err(|error| error.to_string())?;
        }
        let ills = Arc::new(Ills::new(seed));
        let passing = PassThrough::new(&backing, Arc::clone(&ills));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("entail-torture".to_owned()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        let session = spawn_mount(passing, mounted, &config).map_err(|error| format!("FUSE: {error}"))?;
        Ok(Self { mounted: mounted.to_owned(), backing, ills, session: Some(session) })
    }

    /// This ails it from now on.
    pub fn ail(&self, ill: Ill) {
        self.ills.set(ill);
    }

    /// How often a node has felt so far what ails its disk.
    pub fn felt(&self) -> u64 {
        self.ills.felt()
    }

    /// Nothing ails it any more; how often a node has felt what did.
    pub fn heal(&self) -> u64 {
        self.ills.set(Ill::Nothing)
    }
}

impl Drop for AilingDisk {
    fn drop(&mut self) {
        self.heal();
        let ended = self.session.take().is_some_and(|session| session.umount_and_join().is_ok());
        if !ended {
            // Somebody who can't be ended still uses it. Its threads end when nobody does any more.
            perhaps(&format!("umount -l {}", self.mounted.display()));
        }
    }
}
