//! One run: the hosts, the clients, the faults at their times, and the judgement.

use std::cell::Cell;
use std::net::IpAddr;
use std::panic;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use entail::history::{Outcome, check};
use entail::machine::rules::Rules;
use tokio::time::sleep;
use turmoil::{Builder, Sim};

use crate::node::{Host, name};
use crate::operator::Operator;
use crate::plan::{Fault, Plan, When};
use crate::random::Random;
use crate::sessions::{Session, Shared};
use crate::table::Counts;
use crate::trace::{Listener, Trace};

/// When every simulation begins, in seconds since 1970.
const EPOCH: u64 = 1_800_000_000;

/// The longest that a run may take in virtual time.
const LONGEST: Duration = Duration::from_secs(150);

/// How long a crash waits for something that it can destroy.
const AIM: Duration = Duration::from_millis(500);

/// Room for what waits at a host: what was sent to one that is down is there when it is back.
const QUEUE: usize = 4_096;

thread_local! {
    /// Panics of this thread: most happen in tasks, of whose end nobody hears.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// What came of a run.
pub struct Outcomes {
    pub trace: Vec<String>,
    pub counts: Counts,
    /// What must not be; empty for a good run.
    pub wrong: Vec<String>,
}

/// How a run differs from the one that its seed alone gives.
#[derive(Clone, Copy, Debug)]
pub struct Twist {
    /// The clauses in force.
    pub rules: Rules,
    /// The first session begins so much later.
    pub late: Duration,
    /// Disks say that they have synced, and have not.
    pub lying_disks: bool,
}

impl Twist {
    pub const NONE: Self = Self { rules: Rules::all(), late: Duration::ZERO, lying_disks: false };
}

/// Runs a seed.
pub fn run(seed: u64, twist: Twist) -> Outcomes {
    count_panics();
    let before = PANICS.get();
    let (plan, trace) = (Plan::of(seed), Trace::default());
    trace.at(Duration::ZERO, "plan", format_args!("{plan:?}"));
    let listener = Listener::new(trace.clone());
    let mut outcomes = tracing::subscriber::with_default(listener, || World::new(plan, twist, &trace).run());
    let panics = PANICS.get() - before;
    if panics > 0 {
        outcomes.wrong.push(format!("{panics} panics"));
    }
    outcomes
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            told(info);
        }));
    });
}

struct World<'a> {
    sim: Sim<'a>,
    plan: Plan,
    hosts: Vec<Arc<Host>>,
    addresses: Vec<IpAddr>,
    shared: Rc<Shared>,
    trace: Trace,
    counts: Counts,
}

impl<'a> World<'a> {
    fn new(plan: Plan, twist: Twist, trace: &Trace) -> Self {
        let mut sim = Builder::new()
            .rng_seed(plan.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH))
            .simulation_duration(LONGEST)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .tcp_capacity(QUEUE)
            .build();
        let hosts: Vec<_> = (0..plan.nodes).map(|node| Arc::new(Host::new(&plan, node, twist, trace))).collect();
        for (node, host) in hosts.iter().enumerate() {
            let host = Arc::clone(host);
            sim.host(name(node).as_str(), move || Arc::clone(&host).run());
        }
        let shared = Rc::<Shared>::default();
        sim.client("clients", clients(plan.clone(), Rc::clone(&shared), trace.clone(), twist.late));
        let addresses: Vec<_> = (0..plan.nodes).map(|node| sim.lookup(name(node).as_str())).collect();
        for (a, b, longest) in &plan.slow {
            sim.set_link_max_message_latency(addresses[*a], addresses[*b], *longest);
        }
        Self { sim, plan, hosts, addresses, shared, trace: trace.clone(), counts: Counts::default() }
    }

    fn run(mut self) -> Outcomes {
        let mut wrong = Vec::new();
        let mut next = 0;
        loop {
            while let Some((at, fault)) = self.plan.faults.get(next).cloned()
                && self.is_time(at, &fault)
            {
                next += 1;
                self.bring_about(&fault);
            }
            match self.sim.step() {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    wrong.push(error.to_string());
                    break;
                }
            }
        }
        wrong.extend(self.judge());
        self.counts.virtual_time = self.sim.elapsed();
        self.counts.bytes = self.trace.bytes();
        Outcomes { trace: self.trace.lines(), counts: self.counts, wrong }
    }

    /// Whether a fault's time has come, which it has so many milliseconds after the birth.
    fn is_time(&self, at: u64, fault: &Fault) -> bool {
        let Some(late) =
            self.shared.born.get().and_then(|born| self.sim.elapsed().checked_sub(born + Duration::from_millis(at)))
        else {
            return false;
        };
        match fault {
            Fault::Crash { node, when: When::Unsynced, .. } => late > AIM || self.hosts[*node].unsynced() > 0,
            _ => true,
        }
    }

    fn bring_about(&mut self, fault: &Fault) {
        self.trace.at(self.sim.elapsed(), "faults", format_args!("{fault:?}"));
        let pairs = |links: &[(usize, usize)]| -> Vec<_> {
            links.iter().map(|(a, b)| (self.addresses[*a], self.addresses[*b])).collect()
        };
        match fault {
            Fault::Cut(links) => {
                self.counts.cuts += 1;
                pairs(links).into_iter().for_each(|(a, b)| self.sim.partition(a, b));
            }
            Fault::CutOneWay(links) => {
                self.counts.one_way += 1;
                pairs(links).into_iter().for_each(|(a, b)| self.sim.partition_oneway(a, b));
            }
            Fault::Hold(links) => {
                self.counts.holds += 1;
                pairs(links).into_iter().for_each(|(a, b)| self.sim.hold(a, b));
            }
            // What was held is let go; a link that was cut is mended by that, too.
            Fault::Mend(links) => pairs(links).into_iter().for_each(|(a, b)| self.sim.release(a, b)),
            Fault::Crash { node, keep_percent, .. } => {
                self.hosts[*node].dies();
                self.sim.crash(name(*node).as_str());
                self.counts.crashes += 1;
                let lost = self.hosts[*node].crash(*keep_percent);
                self.counts.batches_lost += lost as u64;
                self.trace.at(self.sim.elapsed(), "faults", format_args!("{lost} batches are lost"));
            }
            Fault::Start(node) => self.sim.bounce(name(*node).as_str()),
        }
    }

    /// What is wrong with what clients saw.
    fn judge(&mut self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.shared.seen.borrow_mut());
        let mut wrong = seen.wrong;
        let of = |outcome| seen.records.iter().filter(|record| record.outcome == outcome).count() as u64;
        self.counts.operations = seen.records.len() as u64;
        self.counts.refused = of(Outcome::Refused);
        self.counts.unknown = of(Outcome::Unknown);
        self.counts.single = seen.single;
        self.counts.reshards = u64::from(seen.resharded);
        self.counts.tries = seen.tries;
        self.counts.agreed_after = seen.agreed_after;
        self.counts.maps =
            self.trace.lines().iter().filter(|line| line.contains("acting under a new map")).count() as u64;
        match check(&seen.records) {
            Ok(report) => {
                wrong.extend(report.violations.iter().map(ToString::to_string));
                wrong.extend(report.account.lost.iter().map(|write| format!("lost: {}", seen.records[*write])));
                self.counts.acknowledged = report.account.acknowledged() as u64;
                self.counts.finals = report.finals as u64;
            }
            Err(error) => wrong.push(error.to_string()),
        }
        wrong
    }
}

/// The clients' host: the sessions and the operator.
async fn clients(plan: Plan, shared: Rc<Shared>, trace: Trace, late: Duration) -> turmoil::Result {
    let mut random = Random::new(plan.seed ^ 0x00c1_1e27);
    let session = Session::new("operator".into(), Random::new(random.next()), &shared, &trace);
    let mut operator = Operator { session, shared: Rc::clone(&shared), plan: plan.clone() };
    operator.wait_for_birth().await;
    let mut sessions = Vec::new();
    for number in 0..plan.sessions {
        let session = Session::new(format!("client{}", number + 1), Random::new(random.next()), &shared, &trace);
        let late = if number == 0 { late } else { Duration::ZERO };
        sessions.push(tokio::task::spawn_local(async move {
            sleep(late).await;
            session.work(plan.nodes, plan.keys).await;
        }));
    }
    let resharding = tokio::task::spawn_local(async move {
        operator.reshard().await;
        operator
    });
    sleep(Duration::from_millis(plan.work_ms)).await;
    shared.over.set(true);
    for session in sessions {
        session.await?;
    }
    let mut operator = resharding.await?;
    operator.settle().await;
    Ok(())
}
