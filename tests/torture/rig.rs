//! One cluster with what its fault needs: a network, disks or clocks of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::Settings;
use crate::client::Client;
use crate::disks::Disk;
use crate::harness::{Cluster, Place, machine, wait_until};
use crate::ills::AilingDisk;
use crate::machine::run;
use crate::network::Network;
use crate::random::Random;

/// Nodes of a cluster: three in each of two shards, two in each of three.
pub const NODES: usize = 6;

/// By then, after the fault is over, all nodes are ready and in each other's view, and show the same.
pub const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// A node answers at once whether it is ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a fault needs that loopback and the temporary directory do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Network,
    /// A network that can delay what it passes on.
    Delays,
    Disks,
    /// Disks that can be slow, or fail.
    Fuse,
    Clocks,
}

/// A cluster and what can be done to it.
pub struct Rig {
    pub cluster: Cluster,
    pub network: Option<Network>,
    pub disks: Vec<Disk>,
    pub ailing: Vec<AilingDisk>,
    /// The node with a clock that can be set, and the file that sets it, if there is one.
    clock: Option<(usize, PathBuf)>,
    pub random: Random,
    /// The longest that a fault lasts.
    pub longest: Duration,
    /// What makes the sessions fall silent at the end of a fault, just before it is over, if they shall.
    pub silence: Option<Arc<AtomicBool>>,
    /// How often a node was started again. Each time its logical clock may go ahead.
    pub starts: u32,
    /// What happened that is no failure.
    pub notes: Vec<String>,
}

impl Rig {
    /// Nodes that are ready, with what is needed.
    ///
    /// # Errors
    /// What this machine lacks for that, in words.
    pub fn new(needs: Needs, random: Random, settings: &Settings) -> Result<Self, String> {
        let network = match needs {
            Needs::Network | Needs::Delays => Some(Network::new(NODES, needs == Needs::Delays)?),
            Needs::Nothing | Needs::Disks | Needs::Fuse | Needs::Clocks => None,
        };
        let mut place = Place::loopback();
        // Nobody who is killed leaves nodes behind.
        let mortal = || ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        place.through = (0..NODES).map(|_| mortal()).collect();
        if let Some(network) = &network {
            network.addresses().clone_into(&mut place.network);
            for (node, words) in place.through.iter_mut().enumerate() {
                words.extend(network.through(node));
            }
        }
        let mut extra = vec![("FILL_MIB_S", "1"), ("DEADLINE_MS", "4000")];
        if needs == Needs::Fuse {
            // What was read before shall not stay in memory.
            extra.push(("CACHE_MIB", "1"));
        }
        extra.extend(&settings.nodes);
        let cluster = Cluster::prepare_in(place, NODES, 2, &extra, Some(machine()));
        let mut rig = Self {
            cluster,
            network,
            disks: Vec::new(),
            ailing: Vec::new(),
            clock: None,
            random,
            longest: settings.longest,
            silence: None,
            starts: 0,
            notes: Vec::new(),
        };
        match needs {
            Needs::Disks => {
                for node in 0..NODES {
                    let data = rig.cluster.data_dir(node);
                    rig.disks.push(Disk::new(data.parent().expect("it is below something"))?);
                }
            }
            Needs::Fuse => {
                for node in 0..NODES {
                    let (data, seed) = (rig.cluster.data_dir(node), rig.random.next());
                    rig.ailing.push(AilingDisk::new(data.parent().expect("it is below something"), seed)?);
                }
            }
            Needs::Clocks => rig.start_with_clock()?,
            Needs::Nothing | Needs::Network | Needs::Delays => {}
        }
        rig.cluster.start_all();
        Ok(rig)
    }

    /// Starts a node with a clock that can be set.
    fn start_with_clock(&mut self) -> Result<(), String> {
        let library = "faketime/libfaketimeMT.so.1";
        let below = std::fs::read_dir("/usr/lib").map_err(|error| error.to_string())?;
        let found = below.filter_map(Result::ok).map(|entry| entry.path().join(library)).find(|path| path.exists());
        let library = found.ok_or("libfaketime (package faketime) is not installed")?;
        let file = self.cluster.data_dir(0).with_file_name("clock");
        std::fs::create_dir_all(file.with_file_name("")).map_err(|error| error.to_string())?;
        let node = self.one();
        self.clock = Some((node, file.clone()));
        self.set_clock(0);
        let [library, file] = [library, file].map(|path| path.display().to_string());
        let settings = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        self.cluster.restart_with(node, &settings);
        Ok(())
    }

    /// The clock that can be set is so many seconds ahead from now on; whose it is.
    pub fn set_clock(&self, seconds: i32) -> usize {
        let (node, file) = self.clock.as_ref().expect("there is such a clock");
        // Nobody shall read half of it.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("it can be written");
        std::fs::rename(&new, file).expect("it can be renamed");
        *node
    }

    /// Whether a program with the settings of the one whose clock can be set, which runs on that clock, sees it so.
    pub fn clock_shows(&self, seconds: i32) -> bool {
        let (node, _) = self.clock.as_ref().expect("there is such a clock");
        let of = |what| std::fs::read(format!("/proc/{}/{what}", self.cluster.pid(*node))).expect("it runs");
        let settings = String::from_utf8_lossy(&of("environ")).replace('\0', " ");
        // What is shared with the process is its own.
        let wanted = |setting: &&str| setting.starts_with("LD_PRELOAD") || setting.starts_with("FAKETIME_TIMESTAMP");
        let settings: Vec<_> = settings.split(' ').filter(wanted).collect();
        let told = run(&format!("env {} date +%s", settings.join(" "))).expect("it tells the time");
        let told: i64 = told.trim().parse().expect("it is a number");
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs() as i64;
        let on_it = String::from_utf8_lossy(&of("maps")).contains("libfaketime");
        on_it && (told - now - i64::from(seconds)).abs() < 60
    }

    /// So many nodes by chance, no two the same.
    pub fn random_nodes(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..NODES).collect();
        (0..count).map(|_| all.swap_remove(self.random.index(all.len()))).collect()
    }

    pub fn one(&mut self) -> usize {
        self.random.index(NODES)
    }

    /// Starts a node again that does not run.
    pub fn restart(&mut self, node: usize) {
        self.starts += 1;
        self.cluster.restart(node);
    }

    /// The fault lasts for a while.
    pub fn hold(&mut self) {
        let time = self.lasting();
        std::thread::sleep(time);
        self.fall_silent();
    }

    /// The same, and this is done again and again meanwhile, once at least.
    pub fn hold_doing(&mut self, mut act: impl FnMut(&mut Self)) {
        let until = Instant::now() + self.lasting();
        act(self);
        while Instant::now() < until {
            act(self);
        }
        self.fall_silent();
    }

    fn lasting(&mut self) -> Duration {
        let most = self.longest.as_millis() as u64;
        Duration::from_millis(self.random.within(most.min(1_000), most))
    }

    fn fall_silent(&self) {
        if let Some(silence) = &self.silence {
            silence.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until all nodes are ready, and in the view of all; gives how long that took from when the fault was over.
    pub fn whole(&mut self, healed: Instant) -> Duration {
        for node in 0..NODES {
            let name = self.cluster.nodes[node].clone();
            let within = AGREED_WITHIN.saturating_sub(healed.elapsed());
            wait_until(&format!("{name} is ready, and everybody in its view"), within, || {
                let ended = self.cluster.ended(node);
                assert!(ended.is_none(), "{name} ended by itself: {ended:?}");
                let mut client = Client::waiting(ANSWER_WITHIN);
                let ready = client.ask(&name, "/readyz").is_ok_and(|answer| answer.status == 200);
                let view = client.ask(&name, "/key-value-store-view").map(|answer| answer.json["view"].clone());
                ready && view.is_ok_and(|view| view.as_array().is_some_and(|view| view.len() == NODES))
            });
        }
        let whole = healed.elapsed();
        // A look may itself take long.
        assert!(whole <= AGREED_WITHIN, "whole only after {whole:?}");
        whole
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Whoever is stopped, or waits for a disk, is ended too; then nobody uses the disks.
        for disk in &self.disks {
            disk.release();
        }
        for disk in &self.ailing {
            disk.heal();
        }
        self.cluster.kill_all();
        self.disks.clear();
        self.ailing.clear();
    }
}
