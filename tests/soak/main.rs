//! A soak: real nodes at half load for as long as one likes, with churn, and everything that could grow is watched.
//!
//! Six nodes in two shards serve sessions that overwrite, delete and read a fixed number of keys (`sessions`), at half of
//! the rate that the same sessions reach without a pause. Meanwhile nodes are killed and started again, the store is
//! resharded to three shards and back, connections come and go (`churn`). Every few seconds memory, handles, threads,
//! bytes on disk, journals, tombstones, logs and what waits are taken down for every node (`sample`). At the end each of
//! them must have levelled off (`level`), and all that was acknowledged must be there, at every node. The samples go to
//! a CSV, and a plot of them to an SVG beside it (`plot`). Two nodes are never killed: what leaks shows there.
//!
//! ```console
//! ENTAIL_SOAK_MINUTES=30 cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `ENTAIL_SOAK_MINUTES` | how long; 1. A node is killed each minute, or four times in all where that is more |
//! | `ENTAIL_SOAK_CACHE_MIB` | `CACHE_MIB` of the nodes; 16, so that it is full soon. Blocks of tables that were rewritten stay in it until others need the room, so it fills, however little there is to read |
//! | `ENTAIL_SOAK_OUT` | where the results go: this path, with `.csv` and `.svg`; `target/tmp/soak` |

mod churn;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/client.rs"]
mod client;
#[expect(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/harness.rs"]
mod harness;
mod level;
mod plot;
#[expect(dead_code, reason = "tests/sim uses more of it")]
#[path = "../sim/random.rs"]
mod random;
mod sample;
mod sessions;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use churn::Churn;
use harness::{Cluster, Place, machine};
use sample::Samples;
use sessions::Sessions;

const NODES: usize = 6;

/// Between two samples, at most; a short soak is looked at more often, as all that happens in it is closer together.
const PERIOD: Duration = Duration::from_secs(5);

/// How long the sessions show what they can do without a pause.
const TRIAL: Duration = Duration::from_secs(10);

fn minutes() -> f64 {
    std::env::var("ENTAIL_SOAK_MINUTES").map_or(1.0, |text| text.parse().expect("ENTAIL_SOAK_MINUTES is a number"))
}

fn cache_mib() -> String {
    std::env::var("ENTAIL_SOAK_CACHE_MIB").unwrap_or_else(|_| "16".to_owned())
}

fn results() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak");
    std::env::var_os("ENTAIL_SOAK_OUT").map_or_else(default, PathBuf::from)
}

#[test]
#[ignore = "takes as long as it is told to"]
fn everything_levels_off() {
    let length = Duration::from_secs_f64(minutes() * 60.0);
    let mut place = Place::loopback();
    // Nobody who is killed leaves nodes behind.
    place.through = (0..NODES).map(|_| ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec()).collect();
    let mut cluster = Cluster::prepare_in(place, NODES, 2, &[("CACHE_MIB", &cache_mib())], Some(machine()));
    cluster.start_all();
    let sessions = Sessions::start(&cluster.nodes);
    std::thread::sleep(TRIAL);
    let most = sessions.halve(TRIAL);
    println!("{most:.0} operations a second without a pause; half of that from here on");

    let (begin, done) = (Instant::now(), sessions.done());
    let mut samples = Samples::new(&results().with_extension("csv"));
    let mut churn = Churn::new(&cluster.nodes, length);
    let period = PERIOD.min(length / 60);
    for turn in 1.. {
        let now = begin.elapsed();
        if now >= length {
            break;
        }
        churn.act(&mut cluster, now);
        samples.take(&cluster, now, churn.shards(), churn.is_resharding());
        std::thread::sleep((begin + period * turn).saturating_duration_since(Instant::now()));
    }
    let rate = (sessions.done() - done) as f64 / begin.elapsed().as_secs_f64();
    let (kills, reshards) = churn.end(&mut cluster);
    let account = sessions.stop();
    println!("{rate:.0} operations a second, {kills} nodes killed, {reshards} reshards; {account}");
    account.check(&cluster.nodes);

    let svg = plot::svg(&samples.rows);
    std::fs::write(results().with_extension("svg"), svg).expect("the plot can be written");
    let wrong = level::judge(&samples.rows, length);
    print!("{}", level::table(&samples.rows, length));
    assert!(wrong.is_empty(), "not level:\n{}", wrong.join("\n"));
    assert!(kills > 0 && reshards > 0, "no churn");
}
