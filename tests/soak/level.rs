//! Whether what is watched has levelled off.
//!
//! By node and measure, the last third of the time is held against the middle third: the first is for caches to fill. Of
//! memory, handles and files it is the median, since journals grow and go, and a node that was killed begins anew; of what
//! is kept for those who are down, the least (`sample`). Over a third, since what grows without end grows from one third to
//! the next by as much as in the whole third before.

use std::fmt::Write;
use std::time::Duration;

use crate::sample::{MEASURES, Measure, Row};

/// What is not level, in words.
pub fn judge(rows: &[Row], length: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, measure) in MEASURES.iter().enumerate() {
        for node in 1..=nodes(rows) {
            let (Some(middle), Some(last)) = (third(rows, length, node, at, 1), third(rows, length, node, at, 2))
            else {
                wrong.push(format!("node{node}: {} was not told", measure.words));
                continue;
            };
            if last > measure.most(middle, length) {
                wrong.push(format!("node{node}: {} went from {middle:.1} to {last:.1}", measure.words));
            }
        }
    }
    wrong
}

/// What stands for each of the three thirds, the largest of all nodes, as a table.
pub fn table(rows: &[Row], length: Duration) -> String {
    let mut text = "| | first third | middle | last | most |\n|---|--:|--:|--:|--:|\n".to_owned();
    for (at, measure) in MEASURES.iter().enumerate() {
        let most = |of: &dyn Fn(usize) -> Option<f64>| (1..=nodes(rows)).filter_map(of).fold(0.0, f64::max);
        let of = |number| most(&|node| third(rows, length, node, at, number));
        let peak = rows.iter().filter_map(|row| row.values[at]).fold(0.0, f64::max);
        let (first, middle, last) = (of(0), of(1), of(2));
        writeln!(text, "| {} | {first:.0} | {middle:.0} | {last:.0} | {peak:.0} |", measure.words).expect("memory");
    }
    text
}

fn nodes(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.node).max().unwrap_or_default()
}

/// What stands for one third of the time of a node's measure.
fn third(rows: &[Row], length: Duration, node: usize, measure: usize, number: u32) -> Option<f64> {
    let length = length.as_secs_f64() / 3.0;
    let within = f64::from(number) * length..f64::from(number + 1) * length;
    let of_node = rows.iter().filter(|row| row.node == node && within.contains(&row.seconds));
    let mut values: Vec<f64> = of_node.filter_map(|row| row.values[measure]).collect();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * MEASURES[measure].quantile) as usize;
    values.get(rank).copied()
}

#[test]
fn what_grows_is_not_level_and_what_goes_up_and_down_is() {
    let length = Duration::from_secs(1_800);
    let rows = |of: &dyn Fn(f64) -> f64| -> Vec<Row> {
        let row = |turn: u32| {
            let seconds = f64::from(turn) * 5.0;
            // In a tenth of the time the node does not run.
            let value = (turn % 20 > 1).then(|| of(seconds));
            Row { seconds, node: 1, shards: 2, resharding: false, values: vec![value; MEASURES.len()] }
        };
        (0..360).map(row).collect()
    };
    let wrong = |of: &dyn Fn(f64) -> f64| judge(&rows(of), length).len();
    assert_eq!(wrong(&|_| 1_000.0), 0);
    assert_eq!(wrong(&|seconds| 10_000.0 * seconds.min(500.0)), 0, "grows at first");
    assert_eq!(wrong(&|seconds| 40.0 + 0.3 * (seconds % 180.0)), 0, "goes up and down, as journals do");
    assert_eq!(wrong(&|seconds| 10_000.0 * seconds), MEASURES.len(), "grows without end");
    // A leak of some 80 bytes an operation, at 600 operations a second: 3 MiB a minute.
    let leaks = judge(&rows(&|seconds| 150.0 + seconds * 3.0 / 60.0), length);
    assert!(leaks.first().is_some_and(|text| text.contains("resident memory")), "{leaks:?}");
    // A minute in which a node is down half of the time, and what is kept for it grows and goes.
    let minute = Duration::from_secs(60);
    let kept = |of: &dyn Fn(f64) -> f64| -> Vec<String> {
        let row = |second: u32| {
            let seconds = f64::from(second);
            let for_it = 3_000.0 * (seconds % 15.0 - 7.5).max(0.0);
            let value = |measure: &Measure| Some(if measure.quantile > 0.0 { 10.0 } else { of(seconds) + for_it });
            Row { seconds, node: 1, shards: 2, resharding: false, values: MEASURES.iter().map(value).collect() }
        };
        judge(&(0..60).map(row).collect::<Vec<_>>(), minute)
    };
    assert_eq!(kept(&|_| 40.0), [""; 0], "goes when it is back");
    let stays = kept(&|seconds| 40.0 * seconds);
    assert!(stays.iter().any(|text| text.contains("operations in logs")), "{stays:?}");
    let silent = Row { seconds: 0.0, node: 1, shards: 2, resharding: false, values: vec![None; MEASURES.len()] };
    assert_eq!(judge(&[silent], length).len(), MEASURES.len(), "nothing was told");
}
