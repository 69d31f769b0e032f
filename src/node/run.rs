//! The loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::effects::Hands;
use super::error::NodeError;
use super::handle::{Asked, AskedChange, Handle, Look, Published};
use super::pace::Pace;
use super::surroundings::{Clock, Driver, Surroundings, Work};
use super::sync::{Own, Syncer};
use crate::machine::message::{Effect, Input};
use crate::machine::sign::Ping;
use crate::machine::{Config, Machine, TICK_MS};
use crate::store::Store;
use crate::types::Now;
use crate::wire::{Inputs, Local, Peers};

/// Signs of life that wait: a few from every node.
const SIGNS: usize = 1_024;

/// Inputs in the network lane.
const NETWORK_LANE: usize = 4_096;

/// Requests in the client lane; more are refused.
const CLIENT_LANE: usize = 8_192;

/// Wishes for changes that wait for the loop; more are refused.
const CHANGES: usize = 64;

/// Looks from outside that wait.
const LOOKS: usize = 64;

/// Steps between two batches at the most, so that none grows without bound.
const MOST_STEPS: usize = 1_024;

/// Bytes of a batch after which no further step is taken, so that none takes long to write and to sync.
const MOST_BYTES: usize = 256 << 10;

/// Of so many steps one is a client's, if there is any.
const CLIENT_STEP: usize = 4;

/// How often the disk's free space is looked at, and the sign of life renewed.
const CARE_PERIOD: Duration = Duration::from_millis(500);

/// A disk with less free space than this, in bytes, takes no more values. Deletes may still use what is above the
/// reserve that the store itself keeps for its upkeep.
const RESERVE_BYTES: u64 = 384 << 20;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine's settings.
    pub machine: Config,
    /// gRPC port = REST port + this.
    pub grpc_port_offset: u16,
}

/// A node's disk.
pub struct Disk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The free bytes of its file system, where that can be told.
    pub free_bytes: Box<dyn Fn() -> Option<u64> + Send>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    handle: Handle,
    local: Arc<Local>,
    stop: watch::Sender<bool>,
    work: Work<Result<(), NodeError>>,
    ended: watch::Receiver<bool>,
}

impl Node {
    /// Starts a node on its disk. Must be called within a tokio runtime: connections to peers run there.
    ///
    /// # Errors
    /// What the store fails with, and a failure to start the loop's thread.
    pub fn start(options: Options, disk: Disk, surroundings: Surroundings) -> Result<Self, NodeError> {
        // What a crash left may be read back before it is on the disk; the machine counts it as durable.
        disk.store.sync()?;
        let Surroundings { clock, dialler, driver } = surroundings;
        let clock = WallAndMono::new(clock);
        let machine = Machine::open(options.machine.clone(), disk.store.as_ref(), clock.now())?;
        let (signs, sign_lane) = mpsc::channel(SIGNS);
        let (network, network_lane) = mpsc::channel(NETWORK_LANE);
        let inputs = Inputs { signs, network };
        let (clients, client_lane) = mpsc::channel(CLIENT_LANE);
        let (changes, change_lane) = mpsc::channel(CHANGES);
        let (looks, look_lane) = mpsc::channel(LOOKS);
        let (stop, stopped) = watch::channel(false);
        let (published, map) = watch::channel(Published::of(machine.map(), machine.tells_clocks()));
        let (life_now, life) = watch::channel(machine.sign_of_life(clock.now()));
        let (address, incarnation) = (options.machine.address.clone(), machine.incarnation());
        let settings_hash = machine.settings_hash();
        let handle = Handle {
            address: address.clone(),
            incarnation,
            settings_hash,
            inputs: inputs.clone(),
            clients,
            gate: Arc::default(),
            changes,
            looks,
            published: map,
            life,
            clock: Arc::clone(&clock.wall),
        };
        let cluster_id = machine.map().cluster_id;
        let offset = options.grpc_port_offset;
        let local = Arc::new(Local::new(address, incarnation, cluster_id, settings_hash, offset));
        local.set_map(cluster_id, machine.map().standing());
        let met = options.machine.view.into_iter().collect();
        let nodes: Vec<_> = machine.map().nodes.keys().chain(&met).cloned().collect();
        let peers = Peers::start(local.clone(), dialler, nodes, inputs, stopped.clone());
        let (waiting, changing) = (HashMap::new(), HashMap::new());
        let hands = Hands { peers, local: local.clone(), published, waiting, changing, met };
        let (ended_now, ended) = watch::channel(false);
        let (signs, network, clients) = (sign_lane, network_lane, client_lane);
        let inbox = Inbox { signs, network, clients, changes: change_lane, looks: look_lane, stopped };
        let on = driver.clone();
        let node = async move {
            let done = match Loop::start(machine, disk, hands, clock, life_now, &on) {
                Ok(it) => it.run(inbox).await,
                Err(error) => Err(error),
            };
            ended_now.send_replace(true);
            done
        };
        let work = driver.begin("node", node).map_err(NodeError::Thread)?;
        Ok(Self { handle, local, stop, work, ended })
    }

    /// What the APIs are given.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Comes back when the loop has ended by itself: something is wrong, and [`Node::stop`] tells what.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            // The sender is gone only when the loop is.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// What the node says of itself to others.
    pub fn local(&self) -> Arc<Local> {
        self.local.clone()
    }

    /// Stops the node: what was taken is made durable, then the loop and the syncer end.
    ///
    /// # Errors
    /// What had ended the node before.
    pub async fn stop(self) -> Result<(), NodeError> {
        self.stop.send_replace(true);
        // A thread that has ended, or is about to, is joined at once.
        self.ended().await;
        self.work.done().await?
    }
}

/// The lanes, in order of precedence.
struct Inbox {
    signs: mpsc::Receiver<Input>,
    network: mpsc::Receiver<Input>,
    clients: mpsc::Receiver<Asked>,
    changes: mpsc::Receiver<AskedChange>,
    looks: mpsc::Receiver<Look>,
    stopped: watch::Receiver<bool>,
}

struct Loop {
    machine: Machine,
    disk: Disk,
    hands: Hands,
    clock: WallAndMono,
    effects: Vec<Effect>,
    syncer: Syncer,
    own: mpsc::UnboundedReceiver<Own>,
    /// What a ping is answered with, without asking the loop.
    life: watch::Sender<Ping>,
    next_request: u64,
    disk_full: bool,
    pace: Pace,
}

impl Loop {
    fn start(
        machine: Machine,
        disk: Disk,
        hands: Hands,
        clock: WallAndMono,
        life: watch::Sender<Ping>,
        driver: &Driver,
    ) -> Result<Self, NodeError> {
        // Unbounded, but the syncer has one message under way at a time.
        let (done, own) = mpsc::unbounded_channel();
        let syncer = Syncer::start(driver, disk.store.clone(), done).map_err(NodeError::Thread)?;
        let pace = Pace::new(Arc::clone(&clock.wall));
        let (effects, next_request, disk_full) = (Vec::new(), 0, false);
        Ok(Self { machine, disk, hands, clock, effects, syncer, own, life, next_request, disk_full, pace })
    }

    async fn run(mut self, mut inbox: Inbox) -> Result<(), NodeError> {
        let ended = self.turn(&mut inbox).await;
        // The last batches become durable before the process may end.
        let synced = self.syncer.finish().await;
        ended?;
        synced
    }

    async fn turn(&mut self, inbox: &mut Inbox) -> Result<(), NodeError> {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut care = tokio::time::interval(CARE_PERIOD);
        care.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = inbox.stopped.wait_for(|stop| *stop) => return Ok(()),
                own = self.own.recv() => match own {
                    Some(own) => self.on_own(own)?,
                    // The syncer has ended without a word.
                    None => return Err(NodeError::Panicked),
                },
                _ = tick.tick() => self.step(Input::Tick)?,
                // Before the lanes that can be full all the time: one look in a turn holds up nobody.
                _ = care.tick() => self.take_care()?,
                Some(look) = inbox.looks.recv() => look(&self.machine, self.clock.now()),
                Some(asked) = inbox.changes.recv() => self.change(asked)?,
                Some(input) = inbox.signs.recv() => self.step(input)?,
                Some(input) = inbox.network.recv() => self.step(input)?,
                Some(asked) = inbox.clients.recv() => self.ask(asked)?,
            }
            self.drain(inbox)?;
            self.flush()?;
        }
    }

    /// Takes what else is there, so that one batch, and one sync, serve many. Other nodes go first, with their
    /// signs of life before all else, but where they always have something every fourth step is a client's all the same.
    fn drain(&mut self, inbox: &mut Inbox) -> Result<(), NodeError> {
        for step in 1..=MOST_STEPS {
            if self.machine.gathered_bytes() >= MOST_BYTES {
                break;
            }
            if let Ok(own) = self.own.try_recv() {
                self.on_own(own)?;
            } else if step.is_multiple_of(CLIENT_STEP)
                && let Ok(asked) = inbox.clients.try_recv()
            {
                self.ask(asked)?;
            } else if let Ok(input) = inbox.signs.try_recv() {
                self.step(input)?;
            } else if let Ok(input) = inbox.network.try_recv() {
                self.step(input)?;
            } else if let Ok(asked) = inbox.clients.try_recv() {
                self.ask(asked)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn on_own(&mut self, own: Own) -> Result<(), NodeError> {
        match own {
            Own::Synced(batch) => self.step(Input::Synced(batch)),
            Own::SyncFailed(error) => Err(error.into()),
        }
    }

    fn ask(&mut self, asked: Asked) -> Result<(), NodeError> {
        self.next_request += 1;
        let id = self.next_request;
        if asked.answer.is_closed() {
            return Ok(());
        }
        self.hands.waiting.insert(id, asked.answer);
        self.step(Input::Request { id, request: asked.request, budget_ms: millis(asked.budget) })
    }

    /// Takes a change, also when nobody waits for it any more.
    fn change(&mut self, asked: AskedChange) -> Result<(), NodeError> {
        self.next_request += 1;
        let id = self.next_request;
        self.hands.changing.insert(id, asked.answer);
        self.step(Input::Change { id, wanted: asked.wanted, budget_ms: millis(asked.budget) })
    }

    fn step(&mut self, input: Input) -> Result<(), NodeError> {
        self.pace.step(&input);
        self.machine.step(self.clock.now(), input, self.disk.store.as_ref(), &mut self.effects);
        self.carry_out()
    }

    fn flush(&mut self) -> Result<(), NodeError> {
        let worked = self.machine.has_worked();
        if let Some(batch) = self.machine.flush(self.disk.store.as_ref(), &mut self.effects) {
            self.syncer.take(batch);
        }
        self.carry_out()?;
        if let Some(rest) = self.pace.end_turn(worked) {
            self.machine.rest(self.clock.now().mono_ms + millis(rest));
        }
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), NodeError> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                if let Some(id) = self.hands.carry_out(effect)? {
                    let input = Input::NotSent { id };
                    self.machine.step(self.clock.now(), input, self.disk.store.as_ref(), &mut self.effects);
                }
            }
        }
        Ok(())
    }

    fn take_care(&mut self) -> Result<(), NodeError> {
        self.life.send_replace(self.machine.sign_of_life(self.clock.now()));
        let full = (self.disk.free_bytes)().is_some_and(|free| free < RESERVE_BYTES);
        if full == self.disk_full {
            return Ok(());
        }
        self.disk_full = full;
        if full {
            tracing::warn!("the disk is full: writes are refused until DATA_DIR has more free space");
        } else {
            tracing::info!("the disk has room again");
        }
        self.step(Input::DiskFull(full))
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The two clocks, from one origin.
#[derive(Clone, Debug)]
struct WallAndMono {
    origin: Instant,
    wall: Arc<dyn Clock>,
}

impl WallAndMono {
    fn new(wall: Arc<dyn Clock>) -> Self {
        Self { origin: Instant::now(), wall }
    }

    fn now(&self) -> Now {
        // The origin is not 0, so that times before the start can be told.
        Now { mono_ms: 1 + self.origin.elapsed().as_millis() as u64, wall_ms: self.wall.wall_ms() }
    }
}
