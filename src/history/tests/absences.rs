//! Absences each of which is explained only once another one is: in small, against rounds over everything, and by the
//! hundred thousand.

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// Session `a` finds nothing of one key after another. Session `c` had deleted and written each, which `a` learns with the
/// delete of `b` that explains its read before; then only the delete of `b` explains this one.
fn forward(links: usize) -> [Vec<String>; 3] {
    let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
    for i in 0..links {
        a.extend([format!("a w k{i} a{i}"), format!("a r k{i}")]);
        if i > 0 {
            c.extend([format!("c d k{i}"), format!("c w k{i} c{i}")]);
            b.push(format!("b r k{i} c{i}"));
        }
        b.push(format!("b d k{i}"));
    }
    // Each delete of `b` follows what `c` did to the next key.
    (1..links).for_each(|i| b.swap(2 * i - 2, 2 * i - 1));
    // What only the last delete of all tells of.
    b.insert(b.len() - 1, "b w last 1".to_owned());
    a.push("a r last".to_owned());
    [a, b, c]
}

/// The same with readers that hand on what they know, through so many sessions.
fn across(links: usize, sessions: usize) -> Vec<String> {
    let [a, b, c] = forward(links);
    let mut handed = Vec::new();
    for (i, pair) in a.chunks(2).enumerate() {
        let session = format!("a{}", i % sessions);
        if i > 0 {
            handed.push(format!("{session} r on{0} {0}", i - 1));
        }
        handed.extend(pair.iter().map(|line| line.replacen('a', &session, 1)));
        handed.push(format!("{session} w on{i} {i}"));
    }
    [handed, b, c].concat()
}

/// Of the deletes that can explain a read one follows the read, which shows only once the read after it is explained.
fn backward(links: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for i in 0..links {
        let session = if i % 2 == 0 { "a" } else { "b" };
        lines.extend([format!("{session} w k{i} {i}"), format!("{session} r k{i}")]);
        if i + 1 < links {
            lines.push(format!("{session} d k{}", i + 1));
        }
        if i > 0 {
            lines.push(format!("{session} d k{}", i - 1));
        }
    }
    lines.extend(["c w last 1", "c d k0", "a r last"].map(str::to_owned));
    lines
}

/// Of the deletes that can explain a read one is overwritten, which shows only once the read before it is explained,
/// although the reader comes to know no more.
fn overwritten(links: usize) -> Vec<String> {
    let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
    for i in 0..links {
        a.push(format!("a w k{i} {i}"));
        if i > 0 {
            c.extend([format!("c d k{i}"), format!("c w c{i} {i}")]);
            a.push(format!("a r b{i} {i}"));
        }
        a.push(format!("a r k{i}"));
        if i + 1 < links {
            b.push(format!("b r c{0} {0}", i + 1));
        } else {
            b.push("b w last 1".to_owned());
        }
        b.extend([format!("b d k{i}"), format!("b w b{0} {0}", i + 1)]);
    }
    a.push("a r last".to_owned());
    [a, b, c].concat()
}

/// Reads explained at once by deletes that come to know more one after the other, and a long tail behind them, which the
/// first order has before those deletes.
fn late(links: usize) -> Vec<String> {
    let tail = 6 * links;
    let mut deletes = Vec::new();
    let mut readers = Vec::new();
    let mut chain: Vec<String> = (0..tail + 2 * links).map(|i| format!("a w noise {i}")).collect();
    let [a, b, c] = forward(links);
    for (i, pair) in a.chunks(2).enumerate() {
        chain.extend_from_slice(pair);
        if i < links {
            chain.push(format!("a w on{i} {i}"));
            deletes.extend([format!("d r on{i} {i}"), format!("d d q{i}")]);
            readers.extend([format!("e w q{i} {i}"), format!("e r q{i}")]);
        }
    }
    readers.extend((0..tail).map(|i| format!("e w noise e{i}")));
    [readers, chain, b, c, deletes].concat()
}

/// All shapes, of about so many operations each. At the end of each somebody misses what he would not know of if the
/// last of the absences were not explained.
fn shapes(operations: usize) -> Vec<(&'static str, Vec<String>)> {
    let [a, b, c] = forward(operations / 6);
    vec![
        ("readers first", [a.clone(), b.clone(), c.clone()].concat()),
        ("readers last", [c, b, a].concat()),
        ("through sessions", across(operations / 8, 60)),
        ("backward", backward(operations / 4)),
        ("overwritten", overwritten(operations / 8)),
        ("late deletes", late(operations / 25)),
    ]
}

/// The same without what would be missed.
fn without_the_last(lines: &[String]) -> String {
    let kept: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.ends_with(" r last")).collect();
    kept.join("\n")
}

#[test]
fn every_link_of_a_chain_is_followed() {
    for operations in [50, 100, 150, 200] {
        for (name, lines) in shapes(operations) {
            println!("{name}");
            wrong(Pattern::StaleAbsence, &lines.join("\n"));
            right(&without_the_last(&lines));
        }
    }
}

#[test]
fn a_chain_that_misses_a_link_says_nothing_of_what_comes_behind() {
    // A second delete that can explain one of the reads.
    let [a, b, c] = forward(6);
    let ambiguous = |i: usize| right(&[&a[..], &b, &c, &[format!("z d k{i}")]].concat().join("\n"));
    (0..6).for_each(ambiguous);
}

#[test]
fn absences_that_explain_each_other_in_a_circle_are_found() {
    wrong(Pattern::CyclicCO, "a w x 1; a r x; a d y; b w y 1; b r y; b d x");
    let long = "a w x 1; a r x; a d y; b w y 1; b r y; b d z; c w z 1; c r z; c d x";
    wrong(Pattern::CyclicCO, long);
    right(&format!("{long}; d d y"));
}

// ---- Against rounds over everything, from the words of the rule alone.

/// True when no round finds anything wrong, each of which explains what one delete alone explains.
fn rounds_find_nothing(records: &[Record]) -> bool {
    let all: Vec<usize> = (0..records.len()).collect();
    let is_write = |i: &usize| matches!(records[*i].op, Op::Put | Op::Delete);
    let put = |read: usize| all.iter().copied().find(|i| is_write(i) && records[*i].value == records[read].value);
    let mut shows: Vec<(usize, Option<usize>)> =
        all.iter().copied().filter(|i| !is_write(i)).map(|i| (i, None)).collect();
    for (read, shown) in shows.iter_mut().filter(|(read, _)| records[*read].value.is_some()) {
        *shown = put(*read);
    }
    loop {
        let Some(before) = causality(records, &all, &shows) else { return false };
        let writes =
            |read: usize| all.iter().filter(|i| is_write(i)).filter(move |i| records[**i].key == records[read].key);
        let past = |read: usize| writes(read).copied().filter(|i| before[*i][read]).collect::<Vec<usize>>();
        let gone = |write: usize, read: usize| past(read).iter().any(|later| before[write][*later]);
        let mut next = shows.clone();
        for (read, shown) in next.iter_mut().filter(|(read, _)| !past(*read).is_empty()) {
            let can = |i: &&usize| records[**i].op == Op::Delete && !before[*read][**i] && !gone(**i, *read);
            let absent = records[*read].value.is_none();
            match writes(*read).filter(|_| absent).filter(can).collect::<Vec<_>>()[..] {
                [] if absent => return false,
                [one] if absent => *shown = Some(*one),
                _ if shown.is_some_and(|shown| gone(shown, *read)) => return false,
                _ => {}
            }
        }
        if next == shows {
            let others = |(read, shown): &(usize, Option<usize>)| {
                let pair = |other: usize| shown.filter(|shown| *shown != other).map(|shown| (other, shown));
                past(*read).into_iter().filter_map(pair).collect::<Vec<_>>()
            };
            let conflicts: Vec<(usize, usize)> = shows.iter().flat_map(others).collect();
            return has_order(before.clone(), &conflicts);
        }
        shows = next;
    }
}

/// True when nothing goes in a circle with these pairs added.
fn has_order(mut before: Vec<Vec<bool>>, pairs: &[(usize, usize)]) -> bool {
    let n = before.len();
    pairs.iter().for_each(|(a, b)| before[*a][*b] = true);
    for k in 0..n {
        for i in 0..n {
            for j in 0..n {
                before[i][j] |= before[i][k] && before[k][j];
            }
        }
    }
    (0..n).all(|i| !before[i][i])
}

/// Four sessions on three keys that delete and find nothing, mostly.
fn absent() -> impl Strategy<Value = Vec<Record>> {
    let op = (0..4_u8, 0..9_u8, 0..3_u8, 0..8_usize);
    prop::collection::vec(op, 1..30).prop_map(|ops| {
        let line = |(i, (session, kind, key, pick)): (usize, &(u8, u8, u8, usize))| {
            let mut puts = ops.iter().enumerate().filter(|(_, op)| op.1 < 2 && op.2 == *key).map(|(i, _)| i);
            match (kind, puts.nth(*pick)) {
                (0 | 1, _) => format!("s{session} w k{key} v{i}"),
                (2..=4, _) => format!("s{session} d k{key}"),
                (5, Some(seen)) => format!("s{session} r k{key} v{seen}"),
                _ => format!("s{session} r k{key}"),
            }
        };
        history(&ops.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn it_finds_what_rounds_over_everything_find(records in absent()) {
        let report = check(&records).unwrap();
        prop_assert_eq!(report.violations.is_empty(), rounds_find_nothing(&records), "{:?}", report.violations);
    }
}

// ---- Time.

/// What this thread takes of a processor to judge a history that misses what it must not, in milliseconds.
fn time_of(name: &str, lines: &[String]) -> u128 {
    let records = history(&lines.join("\n"));
    let now = || std::time::Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it counts up");
    let begin = now();
    let report = check(&records).unwrap();
    let took = now() - begin;
    println!("{name}: {} operations of {} chains: {took:?}", report.operations, report.chains);
    let patterns: Vec<_> = report.violations.iter().map(|violation| violation.pattern).collect();
    assert_eq!(patterns, [Pattern::StaleAbsence], "{name}");
    took.as_millis().max(1)
}

/// A history whose absences are all explained at once, of as many operations, takes about as long. With a round over
/// everything for each absence it was several hundred times as long.
#[test]
fn chains_of_absences_take_little_longer_than_as_many_that_are_explained_at_once() {
    let plain = (0..33_333).flat_map(|i| [format!("a w k{i} {i}"), format!("b d k{i}"), format!("a r k{i}")]);
    let plain: Vec<String> = plain.chain(["a w last 1", "a r last"].map(str::to_owned)).collect();
    let least = time_of("explained at once", &plain);
    for (name, lines) in shapes(100_000) {
        let took = time_of(name, &lines);
        assert!(took < 10 * least, "{name}: {took} ms, and {least} ms for those that are explained at once");
    }
}
