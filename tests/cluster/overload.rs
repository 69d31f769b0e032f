//! More clients than the nodes can serve.

use std::time::Duration;

use crate::crowd::{Came, Group, What, run};
use crate::harness::{Cluster, Place, machine};

fn env(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit is allowed");
}

fn crowd(nodes: &[String], groups: &[Group], first: usize) -> Came {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(nodes, groups, env("BYTES", 100), first))
}

fn share(waits: &[Duration], of: f64) -> Duration {
    waits.get(((waits.len() as f64 * of) as usize).min(waits.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[test]
#[ignore = "measures"]
fn overload() {
    raise_file_limit();
    let mut place = Place::loopback();
    if let Ok(words) = std::env::var("THROUGH") {
        place.through = (0..6).map(|_| words.split(' ').map(str::to_owned).collect()).collect();
    }
    let mut cluster = Cluster::prepare_in(place, 6, 2, &[], Some(machine()));
    cluster.start_all();
    let second = Duration::from_secs(1);
    let mut first = 0;
    for clients in [64, 512, 1024, 2048] {
        let group = Group { clients, from: Duration::ZERO, until: 3 * second, pushy: false };
        let came = crowd(&cluster.nodes, &[group], first);
        first += clients;
        let waits = came.waits(What::Done, second, 3 * second);
        println!(
            "{clients} clients: {:.0}/s p50 {:?} p99 {:?} max {:?} odd {:?}",
            came.rate(What::Done, second, 3 * second),
            share(&waits, 0.5),
            share(&waits, 0.99),
            share(&waits, 1.0),
            came.odd.first()
        );
    }
    let steady = Group { clients: 32, from: Duration::ZERO, until: 24 * second, pushy: false };
    let flood =
        Group { clients: env("FLOOD", 12_000), from: 4 * second, until: 14 * second, pushy: env("PUSHY", 0) == 1 };
    let came = crowd(&cluster.nodes, &[steady, flood], first);
    println!("odd {} {:?}", came.odd.len(), came.odd.first());
    for at in 0..30 {
        let (from, until) = (at * second, (at + 1) * second);
        let done = came.waits(What::Done, from, until);
        let refused = came.waits(What::Refused, from, until);
        println!(
            "{at} s: done {} p50 {:?} p99 {:?} max {:?}; refused {} p50 {:?} p99 {:?} max {:?}; unknown {}",
            done.len(),
            share(&done, 0.5),
            share(&done, 0.99),
            share(&done, 1.0),
            refused.len(),
            share(&refused, 0.5),
            share(&refused, 0.99),
            share(&refused, 1.0),
            came.waits(What::Unknown, from, until).len()
        );
    }
    for node in 0..6 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(node))).unwrap();
        let lines: Vec<_> = status.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS")).collect();
        println!("{node} {lines:?}");
        let said = cluster.said(node);
        println!("{}", said.lines().filter(|l| l.contains("WARN")).take(5).collect::<Vec<_>>().join("\n"));
    }
}
