//! That the judge sees what is lost: a node takes writes alone, and its disk is lost before anybody else has them. No store
//! survives that, and none claims to: those answers said that the write is on one disk.

use std::time::{Duration, Instant};

use crate::faults::links;
use crate::harness::wait_until;
use crate::random::Random;
use crate::recorder::{held, write_all};
use crate::rig::{Needs, Rig};
use crate::round::judge;
use crate::{Settings, kept};

/// The contract: who is cut off is out of the view by then, and so are the others for it.
const VIEW_WITHIN: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs root; a stage of its own in .ci/run"]
fn what_must_be_lost_is_found() {
    let settings = Settings::read();
    let rig = Rig::new(Needs::Network, Random::new(settings.seed), &settings);
    let mut rig = rig.unwrap_or_else(|lacking| panic!("not had: {lacking}"));
    let node = rig.one();
    let (name, nodes) = (rig.cluster.nodes[node].clone(), rig.cluster.nodes.clone());
    rig.network.as_ref().expect("it was asked for").cut(&links(|a, _| a == node));
    wait_until("the node is alone", VIEW_WITHIN, || rig.cluster.view(node).is_ok_and(|view| view.len() == 1));
    let recorded = write_all(&name);
    assert!(recorded.single > 0, "it serves some of the keys");
    let single = recorded.single as usize;
    rig.cluster.kill(node);
    std::fs::remove_dir_all(rig.cluster.data_dir(node)).expect("a node that ran has data");
    rig.network.as_ref().expect("it was asked for").heal();
    rig.restart(node);
    rig.whole(Instant::now());
    let finals = held(&nodes).expect("all nodes tell");
    let outcomes = judge(recorded, finals, &kept("what-is-lost"), Needs::Network, 1);
    assert_eq!(outcomes.account.lost.len(), single, "{outcomes:?}");
    // Each is told once by its loss; each node that shows nothing is one that is wrong.
    assert!(outcomes.wrong.iter().any(|line| line.starts_with("StaleAbsence")), "{outcomes:?}");
}
