//! The samples as a picture: a small chart a measure, a line a node, the times of reshards shaded.

use std::fmt::Write;

use crate::sample::{MEASURES, Row};

const WIDTH: f64 = 900.0;
const COLUMNS: usize = 2;
/// Of one chart, with its title and labels.
const CHART: (f64, f64) = (WIDTH / COLUMNS as f64, 170.0);
/// Beside the lines: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 34.0, 14.0, 24.0);
const TOP: f64 = 56.0;
/// Of a line: a chart is not much wider, in points.
const MOST_POINTS: usize = 180;

/// Of the nodes; the spared ones come first. Told apart by people who do not see all colours, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#56b4e9", "#e69f00", "#009e73", "#cc79a7"];

/// The picture.
pub fn svg(rows: &[Row]) -> String {
    let seconds = rows.iter().map(|row| row.seconds).fold(1.0, f64::max);
    let nodes = rows.iter().map(|row| row.node).max().unwrap_or_default();
    let height = TOP + CHART.1 * MEASURES.len().div_ceil(COLUMNS) as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"22\" font-size=\"15\">Six nodes at half load with churn: \
         what each of them takes, by minutes</text>\n"
    );
    for node in 1..=nodes {
        let x = 16.0 + 90.0 * (node - 1) as f64;
        let colour = COLOURS[(node - 1) % COLOURS.len()];
        writeln!(
            text,
            "<path d=\"M{x} 40h18\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"44\">node{node}</text>",
            x + 24.0
        )
        .expect("memory");
    }
    let x = 16.0 + 90.0 * nodes as f64;
    let words = "keys move; gaps: a node is down";
    writeln!(
        text,
        "<rect x=\"{x}\" y=\"34\" width=\"18\" height=\"12\" fill=\"#e4e4e4\"/><text x=\"{}\" y=\"44\">{words}</text>",
        x + 24.0
    )
    .expect("memory");
    for at in 0..MEASURES.len() {
        let (x, y) = (CHART.0 * (at % COLUMNS) as f64, TOP + CHART.1 * (at / COLUMNS) as f64);
        writeln!(text, "<g transform=\"translate({x} {y})\">{}</g>", chart(rows, at, nodes, seconds)).expect("memory");
    }
    text + "</svg>\n"
}

/// Where a value is in its chart.
struct Scale {
    seconds: f64,
    most: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        MARGIN.0 + (CHART.0 - MARGIN.0 - MARGIN.2) * seconds / self.seconds
    }

    fn y(&self, value: f64) -> f64 {
        let bottom = CHART.1 - MARGIN.3;
        bottom - (bottom - MARGIN.1) * value / self.most
    }
}

fn chart(rows: &[Row], at: usize, nodes: usize, seconds: f64) -> String {
    let most = rows.iter().filter_map(|row| row.values[at]).fold(0.0, f64::max);
    let step = step(most);
    let scale = Scale { seconds, most: step * (most / step).ceil().max(1.0) };
    let mut text = format!("<text x=\"{}\" y=\"22\" font-weight=\"bold\">{}</text>", MARGIN.0, MEASURES[at].words);
    shade(&mut text, rows, &scale);
    let (left, right) = (scale.x(0.0), scale.x(seconds));
    for tick in 0..=(scale.most / step).round() as u32 {
        let value = f64::from(tick) * step;
        let y = scale.y(value);
        write!(text, "<path d=\"M{left:.0} {y:.1}H{right:.0}\" stroke=\"#ddd\"/>").expect("memory");
        write!(text, "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6.0, y + 4.0)
            .expect("memory");
    }
    for part in 0..=6 {
        let at = seconds * f64::from(part) / 6.0;
        let (x, y) = (scale.x(at), CHART.1 - MARGIN.3 + 15.0);
        let minutes = (at / 6.0).round() / 10.0;
        write!(text, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"middle\">{minutes}</text>").expect("memory");
    }
    // Those that are killed first, so that the others are on top.
    for node in (1..=nodes).rev() {
        let colour = COLOURS[(node - 1) % COLOURS.len()];
        let of_node: Vec<&Row> = rows.iter().filter(|row| row.node == node).collect();
        let path = line(&of_node, at, &scale);
        write!(text, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>").expect("memory");
    }
    text
}

/// When keys moved.
fn shade(text: &mut String, rows: &[Row], scale: &Scale) {
    let looks: Vec<&Row> = rows.iter().filter(|row| row.node == 1).collect();
    for pair in looks.windows(2).filter(|pair| pair[0].resharding || pair[1].resharding) {
        let (from, until) = (scale.x(pair[0].seconds), scale.x(pair[1].seconds));
        let (y, height) = (MARGIN.1, CHART.1 - MARGIN.1 - MARGIN.3);
        write!(
            text,
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{height}\" fill=\"#e4e4e4\"/>",
            until - from
        )
        .expect("memory");
    }
}

/// The line of a node, with a gap where nothing was told.
fn line(rows: &[&Row], at: usize, scale: &Scale) -> String {
    let (mut path, mut pen) = (String::new(), 'M');
    let every = rows.len().div_ceil(MOST_POINTS);
    for (turn, row) in rows.iter().enumerate() {
        let Some(value) = row.values[at] else {
            pen = 'M';
            continue;
        };
        if turn % every != 0 {
            continue;
        }
        write!(path, "{pen}{:.0} {:.1}", scale.x(row.seconds), scale.y(value)).expect("memory");
        pen = 'L';
    }
    path
}

/// The distance of lines on a scale up to this: 1, 2 or 5 times a power of ten, at most four of them.
fn step(most: f64) -> f64 {
    let least = (most / 4.0).max(1.0);
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= least).unwrap_or(power)
}

#[test]
fn every_node_and_measure_is_in_the_picture() {
    let row = |turn: u32, node: usize| Row {
        seconds: f64::from(turn) * 5.0,
        node,
        shards: 2,
        resharding: turn == 3,
        values: vec![(turn != 5).then(|| f64::from(turn) * 17.0); MEASURES.len()],
    };
    let rows: Vec<Row> =
        (0..360).flat_map(|turn| (1..=6).map(move |node| (turn, node))).map(|(t, n)| row(t, n)).collect();
    let picture = svg(&rows);
    assert!(picture.len() < 100_000, "{} bytes", picture.len());
    for measure in MEASURES {
        assert!(picture.contains(measure.words), "{}", measure.words);
    }
    assert_eq!(picture.matches("fill=\"none\"").count(), 6 * MEASURES.len(), "a line for each");
    assert_eq!(picture.matches("#e4e4e4").count(), 1 + 2 * MEASURES.len(), "two looks on either side of turn 3");
    let paths = picture.split("<path d=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let lines = paths.filter(|(_, rest)| rest.starts_with(" fill=\"none\"")).map(|(path, _)| path);
    assert!(lines.clone().all(|line| line.matches('M').count() == 2), "one gap each");
    assert_eq!([0.0, 3.0, 9.0, 40.0, 130.0].map(step), [1.0, 1.0, 5.0, 10.0, 50.0]);
}
