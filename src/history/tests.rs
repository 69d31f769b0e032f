//! Small histories, right and wrong; the definition itself; and large ones.

use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

mod absences;

/// `session op key [value]`, a line an operation: `w` puts, `r` reads (no value: nothing is there), `d` deletes, `?w` and
/// `?d` have an unknown outcome, `!w` is refused, `f` is a replica's word at the end (its session names the replica).
fn history(text: &str) -> Vec<Record> {
    let lines = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty());
    lines.zip(1..).map(|(line, at)| record(line, at)).collect()
}

fn record(line: &str, at: u64) -> Record {
    let mut words = line.split_whitespace();
    let mut word = || words.next();
    let (session, what, key) = (word().unwrap(), word().unwrap(), word().unwrap());
    let value = word().map(str::to_owned);
    let (op, outcome) = match (what, &value) {
        ("w", _) => (Op::Put, Outcome::Ok),
        ("?w", _) => (Op::Put, Outcome::Unknown),
        ("!w", _) => (Op::Put, Outcome::Refused),
        ("d", _) => (Op::Delete, Outcome::Ok),
        ("?d", _) => (Op::Delete, Outcome::Unknown),
        ("r", Some(_)) => (Op::Get, Outcome::Ok),
        ("r", None) => (Op::Get, Outcome::Absent),
        ("f", Some(_)) => (Op::Final, Outcome::Ok),
        ("f", None) => (Op::Final, Outcome::Absent),
        other => panic!("{other:?}"),
    };
    Record {
        session: session.to_owned(),
        op,
        key: key.to_owned(),
        value,
        context_in: None,
        context_out: None,
        node: "node1".to_owned(),
        start_us: 10 * at,
        end_us: 10 * at + 5,
        outcome,
    }
}

fn found(text: &str) -> Vec<Pattern> {
    let report = check(&history(text)).expect("a history");
    let patterns: BTreeSet<Pattern> = report.violations.iter().map(|violation| violation.pattern).collect();
    patterns.into_iter().collect()
}

#[track_caller]
fn right(text: &str) {
    assert_eq!(found(text), [], "{text}");
}

#[track_caller]
fn wrong(pattern: Pattern, text: &str) {
    assert_eq!(found(text), [pattern], "{text}");
}

#[test]
fn what_is_right_passes() {
    right("");
    right("a w x 1; a r x 1; b r x 1");
    // Concurrent writes, seen one after another, the same way by everybody.
    right("a w x 1; b w x 2; c r x 1; c r x 2; d r x 1; d r x 2");
    // A stale read by somebody who knows of nothing.
    right("a w x 1; a w x 2; b r x 1; b r x 2");
    right("a w x 1; b r x; b r x 1");
    // Two keys: the second seen, then the first.
    right("a w x 1; a w y 1; b r y 1; b r x 1");
}

#[test]
fn each_session_guarantee_is_missed_in_its_own_way() {
    // Read your writes.
    wrong(Pattern::StaleAbsence, "a w x 1; a r x");
    wrong(Pattern::WriteCORead, "a w x 1; a w x 2; a r x 1");
    // Monotonic reads.
    wrong(Pattern::WriteCORead, "a w x 1; a w x 2; b r x 2; b r x 1");
    wrong(Pattern::StaleAbsence, "a w x 1; b r x 1; b r x");
    // Monotonic writes: the second write of a session is seen, and its first one is not.
    wrong(Pattern::StaleAbsence, "a w x 1; a w y 1; b r y 1; b r x");
    // Writes follow reads: what the writer had read is not there for whoever saw the write.
    wrong(Pattern::StaleAbsence, "a w x 1; b r x 1; b w y 1; c r y 1; c r x");
    wrong(Pattern::WriteCORead, "a w x 1; a w x 2; b r x 2; b w y 1; c r y 1; c r x 1");
}

#[test]
fn causality_goes_over_keys_and_sessions() {
    let long = "a w k0 0; b r k0 0; b w k1 1; c r k1 1; c w k2 2; d r k2 2; d w k3 3; e r k3 3;";
    right(&format!("{long} e r k0 0"));
    wrong(Pattern::StaleAbsence, &format!("{long} e r k0"));
}

#[test]
fn what_nobody_wrote_is_thin_air() {
    wrong(Pattern::ThinAirRead, "a r x 1");
    wrong(Pattern::ThinAirRead, "a w y 1; a r x 1");
    wrong(Pattern::ThinAirRead, "a !w x 1; b r x 1");
    right("a ?w x 1; b r x 1");
}

#[track_caller]
fn accounted(text: &str, readable: usize, followed: usize, overtaken: usize, lost: usize) {
    let account = check(&history(text)).expect("a history").account;
    let found = (account.readable, account.followed, account.overtaken.len(), account.lost.len());
    assert_eq!(found, (readable, followed, overtaken, lost), "{text}");
    assert_eq!(account.acknowledged(), readable + followed + overtaken + lost);
}

#[test]
fn what_became_of_each_write_is_told() {
    accounted("a w x 1; a r x 1", 0, 0, 0, 0);
    accounted("a w x 1; a w x 2; a w y 1; n f x 2; n f y 1", 2, 1, 0, 0);
    accounted("a w x 1; b w x 2; n f x 1", 1, 0, 1, 0);
    accounted("a w x 1; b ?w x 2; b !w x 3; n f x 2", 0, 0, 1, 0);
    accounted("a w x 1; a w x 2; n f x 1", 1, 0, 0, 1);
    accounted("a w x 1; n f x", 0, 0, 0, 1);
    // Deletes: followed by one, concurrent with one, and followed by none.
    accounted("a w x 1; a d x; n f x", 1, 1, 0, 0);
    accounted("a w x 1; b d x; c d x; n f x", 2, 0, 1, 0);
    accounted("a w x 1; a d x; a w x 2; n f x", 1, 1, 0, 1);
    accounted("a w x 1; a d x; n f x 1", 1, 0, 0, 1);
    // Nothing can be told of what goes in a circle.
    accounted("a r x 1; a w y 1; b r y 1; b w x 1; n f x 1", 0, 0, 0, 0);
}

#[test]
fn operations_in_a_circle_are_found() {
    wrong(Pattern::CyclicCO, "a r x 1; a w y 1; b r y 1; b w x 1");
}

#[test]
fn replicas_that_order_writes_differently_are_found() {
    wrong(Pattern::CyclicCF, "a w x 1; b w x 2; c r x 1; c r x 2; d r x 2; d r x 1");
    // Over two keys, where no reader sees both orders.
    let writes = "a w x 1; a w y 1; b w y 2; b w x 2;";
    right(&format!("{writes} a r x 1; a r y 1; b r x 2; b r y 2"));
    wrong(Pattern::CyclicCF, "a w x 1; b w x 2; a r x 2; b r x 1");
}

#[test]
fn deletes_explain_what_is_not_there() {
    right("a w x 1; a d x; a r x");
    right("a w x 1; a ?d x; a r x; a r x");
    right("a w x 1; b d x; a r x; a w x 2; a r x 2");
    wrong(Pattern::StaleAbsence, "a w x 1; a d x; a w x 2; a r x");
    // The only delete comes after the read.
    wrong(Pattern::StaleAbsence, "a w x 1; a r x; a d x");
    // One delete alone explains the read: it is in the reader's past then.
    wrong(Pattern::WriteCORead, "a w x 1; b r x 1; b d x; c r x 1; c r x; c r x 1");
    wrong(Pattern::StaleAbsence, "a w y 1; a d x; b w x 2; b r x; b r y");
    right("a w y 1; a d x; b w x 2; b r x; b r y 1");
}

#[test]
fn an_unknown_outcome_is_no_past_until_somebody_sees_it() {
    right("a ?w x 1; a r x");
    right("a ?w x 1; a r x; a r x 1");
    wrong(Pattern::StaleAbsence, "a ?w x 1; a r x 1; a r x");
}

#[test]
fn what_is_lost_shows_at_the_end() {
    right("a w x 1; a w x 2; n1 f x 2; n2 f x 2");
    wrong(Pattern::Diverged, "a w x 1; b w x 2; n1 f x 1; n2 f x 2; n1 f y; n2 f y");
    wrong(Pattern::WriteCORead, "a w x 1; a w x 2; n1 f x 1; n2 f x 1");
    wrong(Pattern::StaleAbsence, "a w x 1; n1 f x; n2 f x");
    right("a w x 1; b d x; n1 f x; n2 f x");
    // Somebody saw the other one win.
    wrong(Pattern::CyclicCF, "a w x 1; b w x 2; c r x 1; c r x 2; n1 f x 1; n2 f x 1");
}

#[test]
fn contexts_tell_what_follows_what() {
    let with = |text: &str, contexts: &[(&str, &str)]| {
        let mut records = history(text);
        for (record, (given, got)) in records.iter_mut().zip(contexts) {
            record.context_in = Some((*given).to_owned());
            record.context_out = Some((*got).to_owned());
        }
        check(&records)
    };
    let patterns = |report: Report| report.violations.iter().map(|v| v.pattern).collect::<Vec<_>>();
    let stale = "a w x 1; a w x 2; a r x 1";
    let passed_on = with(stale, &[("", "A"), ("A", "B"), ("B", "C")]).unwrap();
    assert_eq!(patterns(passed_on), [Pattern::WriteCORead]);
    // A session that comes back with an old context, or with none, may be shown what is old.
    assert_eq!(patterns(with(stale, &[("", "A"), ("A", "B"), ("A", "C")]).unwrap()), []);
    assert_eq!(patterns(with(stale, &[("", "A"), ("A", "B"), ("", "C")]).unwrap()), []);
    // Handed to another client.
    let handed = with("a w x 1; b r x", &[("", "A"), ("A", "B")]).unwrap();
    assert_eq!(patterns(handed), [Pattern::StaleAbsence]);
    assert!(matches!(with("a r x", &[("Z", "")]), Err(HistoryError::Stranger(_))));
}

#[test]
fn what_is_no_history_is_refused() {
    let check = |text| check(&history(text));
    assert!(matches!(check("a w x 1; b w x 1"), Err(HistoryError::NotUnique(_))));
    assert!(matches!(check("a w x"), Err(HistoryError::Shape(_))));
    let lines = "\n{\"session\":\"a\",\"op\":\"get\",\"key\":\"x\",\"node\":\"node1\",\"start_us\":1,\"end_us\":2,\
        \"outcome\":\"absent\"}\n";
    let read = read_history(lines.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&read[0]).unwrap(), lines.trim());
    assert!(matches!(read_history(&b"\n{}"[..]), Err(HistoryError::Line { line: 2, .. })));
}

#[test]
fn the_evidence_is_the_shortest_story() {
    let noise: String = (0..50).map(|i| format!("a w n{i} {i};")).collect();
    let report = check(&history(&format!("{noise} a w x 1; {noise2} a w x 2; b r x 2; b r x 1", noise2 = ""))).unwrap();
    let [violation] = &report.violations[..] else { panic!("{report:?}") };
    let values: Vec<_> =
        violation.evidence.iter().map(|record| (record.op, record.value.as_deref().unwrap())).collect();
    assert_eq!(values, [(Op::Put, "1"), (Op::Put, "2"), (Op::Get, "1")]);
    assert!(violation.to_string().contains("a: PUT x = 2 at node1"), "{violation}");
}

// ---- Against the definition itself, for histories so small that all orders can be tried.

/// Everything as the definition has it: some assignment of writes to reads of nothing, and one order of all writes that
/// extends causality, so that each read shows the last write of its key in its past.
fn is_convergent(records: &[Record]) -> bool {
    let ok = |i: &usize| records[*i].outcome != Outcome::Refused;
    let events: Vec<usize> = (0..records.len()).filter(ok).collect();
    let is_write = |i: usize| {
        let done = matches!(records[i].outcome, Outcome::Ok | Outcome::Unknown);
        done && matches!(records[i].op, Op::Put | Op::Delete)
    };
    let reads: Vec<usize> = events.iter().copied().filter(|i| !is_write(*i)).collect();
    let choices: Vec<Vec<Option<usize>>> = reads.iter().map(|read| explanations(records, *read)).collect();
    let writes: Vec<usize> = events.iter().copied().filter(|i| is_write(*i)).collect();
    product(&choices).into_iter().any(|chosen| {
        let shows: Vec<(usize, Option<usize>)> = reads.iter().copied().zip(chosen).collect();
        let Some(before) = causality(records, &events, &shows) else { return false };
        orders(&writes, &before).into_iter().any(|order| {
            shows.iter().all(|(read, shown)| {
                let past = |write: &&usize| before[**write][*read] && records[**write].key == records[*read].key;
                order.iter().rev().find(past).copied() == *shown
            })
        })
    })
}

fn explanations(records: &[Record], read: usize) -> Vec<Option<usize>> {
    let write = |i: &usize| {
        let other = &records[*i];
        let done = matches!(other.outcome, Outcome::Ok | Outcome::Unknown);
        let writes = matches!((other.op, &records[read].value), (Op::Put, Some(_)) | (Op::Delete, None));
        done && writes
            && other.key == records[read].key
            && (other.op == Op::Delete || other.value == records[read].value)
    };
    let initial = records[read].value.is_none().then_some(None);
    initial.into_iter().chain((0..records.len()).filter(write).map(Some)).collect()
}

fn product(choices: &[Vec<Option<usize>>]) -> Vec<Vec<Option<usize>>> {
    choices.iter().fold(vec![Vec::new()], |so_far, choice| {
        let with = |some: &Vec<Option<usize>>| {
            let some = some.clone();
            choice.iter().map(move |one| [some.clone(), vec![*one]].concat()).collect::<Vec<_>>()
        };
        so_far.iter().flat_map(with).collect()
    })
}

/// The transitive closure of sessions and of who shows what; none when it has a circle.
fn causality(records: &[Record], events: &[usize], shows: &[(usize, Option<usize>)]) -> Option<Vec<Vec<bool>>> {
    let n = records.len();
    let mut before = vec![vec![false; n]; n];
    for (i, a) in events.iter().enumerate() {
        for b in &events[i + 1..] {
            let final_follows = records[*b].op == Op::Final && records[*a].op != Op::Final;
            let same = records[*a].session == records[*b].session || final_follows;
            before[*a][*b] |= same && records[*a].outcome != Outcome::Unknown && records[*a].op != Op::Final;
        }
    }
    for (read, shown) in shows {
        if let Some(write) = shown {
            before[*write][*read] = true;
        }
    }
    for k in 0..n {
        for i in 0..n {
            for j in 0..n {
                before[i][j] |= before[i][k] && before[k][j];
            }
        }
    }
    (0..n).all(|i| !before[i][i]).then_some(before)
}

fn orders(writes: &[usize], before: &[Vec<bool>]) -> Vec<Vec<usize>> {
    if writes.is_empty() {
        return vec![Vec::new()];
    }
    let first = |w: &usize| writes.iter().all(|other| !before[*other][*w]);
    let firsts: Vec<usize> = writes.iter().copied().filter(first).collect();
    let with = |w: usize| {
        let rest: Vec<usize> = writes.iter().copied().filter(|other| *other != w).collect();
        orders(&rest, before).into_iter().map(move |order| [vec![w], order].concat()).collect::<Vec<_>>()
    };
    firsts.into_iter().flat_map(with).collect()
}

/// A few operations of three sessions on two keys: each read shows nothing or one of the writes anywhere.
fn tiny(deletes: bool) -> impl Strategy<Value = Vec<Record>> {
    let kinds = if deletes { 8_u8 } else { 5 };
    let op = (0..3_u8, 0..kinds, 0..2_u8, 0..8_usize);
    (prop::collection::vec(op, 1..9), any::<bool>()).prop_map(|(ops, at_the_end)| {
        let value = |i: usize| format!("v{i}");
        let puts = |key: u8| {
            let puts = ops.iter().enumerate().filter(move |(_, op)| op.1 < 2 && op.2 == key);
            puts.map(|(i, _)| i).collect::<Vec<_>>()
        };
        let line = |(i, (session, kind, key, pick)): (usize, &(u8, u8, u8, usize))| {
            let known = puts(*key);
            let seen = known.get(*pick % (known.len() + 1)).map(|i| value(*i)).unwrap_or_default();
            match kind {
                0 => format!("s{session} w k{key} {}", value(i)),
                1 => format!("s{session} {} k{key} {}", if pick % 2 == 0 { "?w" } else { "w" }, value(i)),
                2..5 => format!("s{session} r k{key} {seen}"),
                5 | 6 => format!("s{session} d k{key}"),
                _ => format!("s{session} ?d k{key}"),
            }
        };
        let mut lines: Vec<String> = ops.iter().enumerate().map(line).collect();
        if at_the_end {
            let known = puts(0);
            let held = known.get(ops[0].3 % (known.len() + 1)).map(|i| value(*i)).unwrap_or_default();
            lines.push(format!("n1 f k0 {held}"));
        }
        history(&lines.join("\n"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn it_decides_as_the_definition_does(records in tiny(false)) {
        let report = check(&records).unwrap();
        prop_assert_eq!(report.violations.is_empty(), is_convergent(&records), "{:?}", report.violations);
    }

    #[test]
    fn with_deletes_it_refuses_nothing_that_is_right(records in tiny(true)) {
        let report = check(&records).unwrap();
        prop_assert!(report.violations.is_empty() || !is_convergent(&records), "{:?}", report.violations);
    }
}

// ---- Large histories of a store that is right, and of one that is a little wrong.

/// A store of three replicas that exchange writes in causal order, last writer by a Lamport clock; `clients` sessions
/// each at a replica of its own, reading, writing and deleting at random, with their contexts; and what each replica holds
/// at the end. One read of `operations` shows what it must not, if so wished.
fn large(operations: usize, clients: usize, stale: bool) -> Vec<Record> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let keys = 200;
    // One log of all writes, in an order that extends causality; a replica has a prefix of it.
    let mut log: Vec<(usize, Option<usize>)> = Vec::new();
    let mut reaches = [0_usize; 3];
    let mut values = vec![vec![None; keys]; 3];
    let catch_up = |log: &[(usize, Option<usize>)], reaches: &mut [usize], values: &mut [Vec<_>], replica: usize| {
        log[reaches[replica]..].iter().for_each(|(key, value)| values[replica][*key] = *value);
        reaches[replica] = log.len();
    };
    let mut records = Vec::new();
    let mut contexts = vec![None; clients];
    for i in 0..operations {
        let (client, key, what) = (draw(clients), draw(keys), draw(10));
        let replica = client % 3;
        // Whoever writes has caught up: so the log's order is the order of the writes.
        if what < 5 || draw(4) == 0 {
            catch_up(&log, &mut reaches, &mut values, replica);
        }
        let text = match values[replica][key] {
            Some(_) if what == 0 => {
                log.push((key, None));
                format!("c{client} d k{key}")
            }
            _ if what < 5 => {
                log.push((key, Some(i)));
                format!("c{client} w k{key} v{i}")
            }
            Some(value) => format!("c{client} r k{key} v{value}"),
            None => format!("c{client} r k{key}"),
        };
        if what < 5 {
            catch_up(&log, &mut reaches, &mut values, replica);
        }
        let (context_in, context_out) = (contexts[client].replace(i), Some(format!("context{i}")));
        let context_in = Some(context_in.map_or_else(String::new, |before| format!("context{before}")));
        records.push(Record { context_in, context_out, ..record(&text, i as u64 + 1) });
    }
    let at = operations as u64 + 1;
    if stale {
        let text = ["z w once a", "z w once b", "z r once b", "z w k0 w0", "y r k0 w0", "y r once a"];
        records.extend(text.iter().zip(at..).map(|(line, at)| record(line, at)));
    }
    for replica in 0..3 {
        catch_up(&log, &mut reaches, &mut values, replica);
        // What is wrong has written key 0, too.
        for (key, value) in values[replica].iter().enumerate().skip(usize::from(stale)) {
            let value = value.map(|value| format!("v{value}")).unwrap_or_default();
            records.push(record(&format!("n{replica} f k{key} {value}"), at + 10));
        }
    }
    records
}

#[test]
fn a_hundred_thousand_operations_take_seconds() {
    for stale in [false, true] {
        let records = large(100_000, 64, stale);
        let begin = Instant::now();
        let report = check(&records).unwrap();
        let took = begin.elapsed();
        println!("{} operations of {} chains: {took:?}; {}", report.operations, report.chains, report.account);
        let patterns: Vec<_> = report.violations.iter().map(|violation| violation.pattern).collect();
        assert_eq!(patterns, if stale { vec![Pattern::WriteCORead] } else { vec![] }, "{:?}", report.violations);
        let Account { readable, followed, lost, .. } = &report.account;
        assert!(*readable > 150 && *followed > 40_000 && lost.is_empty(), "{}", report.account);
        assert!(took.as_secs() < 5, "{took:?}");
    }
}

/// Nothing is there at the end, and half of the operations are deletes of the one key that there is.
#[test]
fn what_became_of_deletes_of_one_key_takes_no_longer() {
    let lines = (0..100_000).map(|i| match i % 2 {
        0 => record(&format!("c{} w k {i}", i / 2 % 64), i + 1),
        _ => record(&format!("c{} d k", i / 2 % 64), i + 1),
    });
    let records: Vec<Record> = lines.chain([record("n1 f k", 200_000)]).collect();
    let begin = Instant::now();
    let report = check(&records).unwrap();
    let took = begin.elapsed();
    println!("{took:?}; {}", report.account);
    assert_eq!((report.account.lost.len(), report.account.acknowledged()), (0, 100_000), "{}", report.account);
    assert!(took.as_secs() < 5, "{took:?}");
}

/// One reader finds nothing again and again, beside a long line of puts and one delete at its end.
#[test]
fn what_explains_absences_beside_many_writes_takes_no_longer() {
    let puts = (2..50_000).map(|i| record(&format!("a w k {i}"), i));
    let reads = (50_001..=100_000).map(|i| record("r r k", i));
    let all = [record("r w k mine", 1)].into_iter().chain(puts).chain([record("a d k", 50_000)]).chain(reads);
    let records: Vec<Record> = all.collect();
    let begin = Instant::now();
    let report = check(&records).unwrap();
    let took = begin.elapsed();
    println!("{took:?}; {} operations", report.operations);
    assert_eq!((report.violations.len(), report.operations), (0, 100_000), "{:?}", report.violations);
    assert!(took.as_secs() < 2, "{took:?}");
}
