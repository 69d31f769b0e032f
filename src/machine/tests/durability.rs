//! What the disk does to a node: full, restored from a backup, read again after a crash.

use super::*;

#[test]
fn a_restored_backup_ends_the_node_that_has_it() {
    let mut all = Lockstep::new(3, 1);
    all.run_ms(2_000);
    all.put(2, "a", "1", &Context::empty());
    let backup = all.hosts[&node(2)].store.crash(0);
    all.put(2, "a", "2", &Context::empty());
    all.stop(2);
    all.start(2, 3, 1, backup);
    all.connect_all();
    all.run_ms(3_000);
    let Some(StoreError::Damaged(why)) = all.ended.get(&node(2)) else { panic!("{:?}", all.ended) };
    assert!(why.contains("backup") && why.contains("empty"), "{why}");
    assert_eq!(all.ended.len(), 1);
}
