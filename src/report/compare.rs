//! Comparison of two runs that are scored on the same queries, from the same supports.

use super::scores::{Row, unique};
use super::table::{Table, protocol_name, spoken};
use crate::error::{Error, Result};
use crate::metrics::{Protocol, Summary, wilcoxon_p};
use crate::percentile::percentile;
use crate::rng;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

const BOOTSTRAP_DRAWS: usize = 10_000;

/// The first run minus the second. Differences are in points of Dice (per cent).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Comparison {
    /// The first and the second run.
    pub runs: [Run; 2],
    /// The protocols under which any pair was scored by both runs.
    pub protocols: Vec<Difference>,
    /// Rows that only one run scored; they are not used.
    pub unmatched: Vec<Unmatched>,
}

/// One of the runs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Name of the run.
    pub name: String,
    /// Seeds of its trainings.
    pub seeds: Vec<u64>,
}

/// Difference of the runs under one protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// The protocol.
    pub protocol: Protocol,
    /// Number of pairs of query, support and class that both runs scored.
    pub pairs: usize,
    /// Number of pairs whose query does not show the class.
    pub absent: usize,
    /// Number of queries.
    pub queries: usize,
    /// Mean over the classes of their mean over pairs, as for the mean of a run.
    pub mean_points: f64,
    /// Interval of that mean under resampling of queries: 2.5 % and 97.5 % of the bootstrap's draws.
    pub interval_points: [f64; 2],
    /// Two-sided p of Wilcoxon's signed-rank test over the class-averaged differences of the queries.
    pub p: f64,
    /// Number of queries with a higher score of the first run.
    pub wins: usize,
    /// Number of queries with a lower score of the first run.
    pub losses: usize,
    /// Number of queries with equal scores.
    pub ties: usize,
    /// Differences of each class, in the order of the first run's rows.
    pub classes: Vec<ClassDifference>,
}

/// Difference of the runs for one class.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClassDifference {
    /// Name of the class.
    pub class: String,
    /// Number of pairs of query and support that both runs scored.
    pub pairs: usize,
    /// Mean difference over these pairs.
    pub mean_points: f64,
}

/// A row that only one run scored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unmatched {
    /// Name of the run.
    pub run: String,
    /// Id of the query.
    pub query: String,
    /// Id of the support.
    pub support: String,
    /// Name of the class.
    pub class: String,
    /// The protocol.
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    protocol: Protocol,
    query: &'a str,
    support: &'a str,
    class: &'a str,
}

/// Differences of one query by class: sum in points and number of pairs.
type Cells = Vec<(f64, usize)>;

/// Compares two runs, pair by pair of (query, support, class, protocol), each the mean over its seeds. The bootstrap
/// resamples queries, each with all its supports and classes, and uses `seed`.
///
/// # Errors
/// One of them is not the rows of one run, or no pair was scored by both.
pub fn compare(first: &[Row], second: &[Row], seed: u64) -> Result<Comparison> {
    let mut runs = [run(first)?, run(second)?];
    if runs[0].name == runs[1].name {
        runs[0].name.push_str(" (first)");
        runs[1].name.push_str(" (second)");
    }
    let [a, b] = [first, second].map(seed_means);
    let mut unmatched = Vec::new();
    let mut pairs = BTreeMap::<Protocol, Vec<(Key, Option<f64>)>>::new();
    for (&key, &dice) in &a {
        match (dice, b.get(&key)) {
            (Some(x), Some(Some(y))) => pairs.entry(key.protocol).or_default().push((key, Some(100.0 * (x - y)))),
            (None, Some(None)) => pairs.entry(key.protocol).or_default().push((key, None)),
            _ => unmatched.push(key.of(&runs[0])),
        }
    }
    let alone = |(key, dice): &(&Key, &Option<f64>)| a.get(key).is_none_or(|other| other.is_some() != dice.is_some());
    unmatched.extend(b.iter().filter(alone).map(|(key, _)| key.of(&runs[1])));
    let classes = unique(first.iter().map(|row| &row.class));
    let protocols: Vec<Difference> =
        pairs.into_iter().filter_map(|(protocol, pairs)| difference(protocol, &pairs, &classes, seed)).collect();
    if protocols.is_empty() {
        let at = format!("{} and {}", runs[0].name, runs[1].name);
        let expected = "scores of the same queries, supports, classes and protocol";
        let found = format!("{} rows without a partner", unmatched.len());
        return Err(Error::invalid(at, expected, found, "score both with the same dataset, folds and supports"));
    }
    Ok(Comparison { runs, protocols, unmatched })
}

impl Comparison {
    /// One row for each protocol; differences in points, the first run minus the second.
    pub fn table(&self) -> Table {
        let classes =
            unique(self.protocols.iter().flat_map(|difference| &difference.classes).map(|class| &class.class));
        let before = ["protocol", "pairs", "queries", "difference", "95 % from", "to", "p", "wins", "losses", "ties"];
        let header = before.into_iter().chain(classes.iter().copied()).chain(["absent", "unmatched"]).map(spoken);
        let rows = self.protocols.iter().map(|d| {
            let mut row = vec![protocol_name(d.protocol).to_owned(), d.pairs.to_string(), d.queries.to_string()];
            row.extend([d.mean_points, d.interval_points[0], d.interval_points[1]].map(points));
            row.push(if d.p < 0.001 { format!("{:.1e}", d.p) } else { format!("{:.3}", d.p) });
            row.extend([d.wins, d.losses, d.ties].map(|n| n.to_string()));
            row.extend(classes.iter().map(|name| {
                let class = d.classes.iter().find(|c| c.class == *name);
                class.map_or("-".to_owned(), |c| points(c.mean_points))
            }));
            let unmatched = self.unmatched.iter().filter(|u| u.protocol == d.protocol).count();
            row.extend([d.absent, unmatched].map(|n| n.to_string()));
            row
        });
        Table::new(header.collect(), rows)
    }

    /// A description of the comparison and its method, with every unmatched row by name.
    pub fn note(&self) -> String {
        let [a, b] = self.runs.each_ref().map(|run| {
            let seeds: Vec<String> = run.seeds.iter().map(u64::to_string).collect();
            format!("{} (seed {})", run.name, seeds.join(","))
        });
        let mut note = format!(
            "{a} minus {b}, in points of Dice, seeds averaged first. Interval: bootstrap over queries, \
             {BOOTSTRAP_DRAWS} draws. p: Wilcoxon's signed-rank test over queries, classes averaged."
        );
        for run in &self.runs {
            let mut rows: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for u in self.unmatched.iter().filter(|u| u.run == run.name) {
                let pair = format!("{} from {} {}", u.query, u.support, protocol_name(u.protocol));
                rows.entry(pair).or_default().push(&u.class);
            }
            if !rows.is_empty() {
                let count = rows.values().map(Vec::len).sum::<usize>();
                let names: Vec<String> =
                    rows.iter().map(|(pair, classes)| format!("{pair} ({})", classes.join(", "))).collect();
                note.push_str(&format!(" Scored by {} only and left out: {count}: {}.", run.name, names.join("; ")));
            }
        }
        note
    }
}

impl Key<'_> {
    fn of(self, run: &Run) -> Unmatched {
        let [run, query, support, class] = [&run.name, self.query, self.support, self.class].map(str::to_owned);
        Unmatched { run, query, support, class, protocol: self.protocol }
    }
}

fn run(rows: &[Row]) -> Result<Run> {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.run.as_str()).collect();
    let seeds: BTreeSet<u64> = rows.iter().map(|row| row.seed).collect();
    match Vec::from_iter(names).as_slice() {
        [name] => Ok(Run { name: (*name).to_owned(), seeds: seeds.into_iter().collect() }),
        names => {
            let found = if names.is_empty() { "no rows".to_owned() } else { names.join(", ") };
            Err(Error::invalid("scores to compare", "the rows of one run", found, "compare two runs at a time"))
        }
    }
}

/// Dice of each pair, averaged over seeds; `None` if the query does not show the class.
fn seed_means(rows: &[Row]) -> BTreeMap<Key<'_>, Option<f64>> {
    let mut dices = BTreeMap::<Key, Vec<f64>>::new();
    for row in rows {
        let key = Key { protocol: row.protocol, query: &row.query, support: &row.support, class: &row.class };
        dices.entry(key).or_default().extend(row.dice);
    }
    dices.into_iter().map(|(key, dices)| (key, Summary::of(&dices).map(|s| s.mean))).collect()
}

/// The difference under one protocol; `None` if no pair shows its class.
fn difference(protocol: Protocol, pairs: &[(Key, Option<f64>)], classes: &[&str], seed: u64) -> Option<Difference> {
    let mut queries = BTreeMap::<&str, Cells>::new();
    for (key, points) in pairs {
        let Some(points) = points else { continue };
        let class = classes.iter().position(|name| name == &key.class)?;
        let (sum, n) = &mut queries.entry(key.query).or_insert_with(|| vec![(0.0, 0); classes.len()])[class];
        (*sum, *n) = (*sum + points, *n + 1);
    }
    let queries: Vec<Cells> = queries.into_values().collect();
    let all = total(&queries, classes.len());
    let mean_points = class_mean(&all)?;
    let of_query: Vec<f64> = queries.iter().filter_map(|cells| class_mean(cells)).collect();
    let count = |test: fn(&f64) -> bool| of_query.iter().filter(|points| test(points)).count();
    let scored = classes.iter().zip(&all).filter(|(_, (_, n))| *n > 0);
    Some(Difference {
        protocol,
        pairs: all.iter().map(|(_, n)| n).sum(),
        absent: pairs.iter().filter(|(_, points)| points.is_none()).count(),
        queries: queries.len(),
        mean_points,
        interval_points: bootstrap(&queries, classes.len(), seed),
        p: wilcoxon_p(&of_query),
        wins: count(|points| *points > 0.0),
        losses: count(|points| *points < 0.0),
        ties: count(|points| *points == 0.0),
        classes: scored
            .map(|(class, &(sum, n))| ClassDifference {
                class: (*class).to_owned(),
                pairs: n,
                mean_points: sum / n as f64,
            })
            .collect(),
    })
}

/// The percentile interval of the class mean over as many queries, drawn with replacement (Efron 1979).
fn bootstrap(queries: &[Cells], classes: usize, seed: u64) -> [f64; 2] {
    let mut rng = rng::stream(seed, "bootstrap", 0);
    let mut means: Vec<f64> = (0..BOOTSTRAP_DRAWS)
        .filter_map(|_| {
            let drawn = (0..queries.len()).map(|_| &queries[rng.random_range(0..queries.len())]);
            class_mean(&total(drawn, classes))
        })
        .collect();
    [2.5, 97.5].map(|percent| percentile(&mut means, percent))
}

fn total<'a>(queries: impl IntoIterator<Item = &'a Cells>, classes: usize) -> Cells {
    let mut total = vec![(0.0, 0); classes];
    for cells in queries {
        for (total, cell) in total.iter_mut().zip(cells) {
            *total = (total.0 + cell.0, total.1 + cell.1);
        }
    }
    total
}

/// Mean over the classes of their mean, without classes that have no pair.
fn class_mean(cells: &[(f64, usize)]) -> Option<f64> {
    let means = cells.iter().filter(|(_, n)| *n > 0).map(|(sum, n)| sum / *n as f64);
    let (sum, n) = means.fold((0.0, 0), |(sum, n), mean| (sum + mean, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

fn points(points: f64) -> String {
    format!("{points:+.1}")
}

#[cfg(test)]
mod tests {
    use super::super::scores::{summarise, tests::setup};
    use super::*;

    fn row(run: &str, query: usize, class: &str, seed: u64, dice: Option<f64>) -> Row {
        Row {
            query: query.to_string(),
            support: "s".to_owned(),
            fold: 0,
            seed,
            class: class.to_owned(),
            protocol: Protocol::Full,
            dice,
            predicted_ml: 1.0,
            true_ml: 1.0,
            hd95_mm: None,
            assd_mm: None,
            nsd: None,
            run: run.to_owned(),
        }
    }

    /// Two classes, `queries` queries, a Dice that wobbles.
    fn cohort(run: &str, queries: usize, shift: f64, wobble: usize) -> Vec<Row> {
        let dice = |query: usize, class: usize| Some(0.5 + shift + ((query * wobble + class * 5) % 17) as f64 / 100.0);
        (0..queries).flat_map(|q| [row(run, q, "spleen", 0, dice(q, 0)), row(run, q, "liver", 0, dice(q, 1))]).collect()
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn a_constant_difference_is_that_difference_with_no_spread() {
        let comparison = compare(&cohort("a", 6, 0.03, 7), &cohort("b", 6, 0.0, 7), 0).unwrap();
        let [d] = comparison.protocols.as_slice() else { panic!("{comparison:?}") };
        assert_eq!((d.pairs, d.queries, d.absent, d.wins, d.losses, d.ties), (12, 6, 0, 6, 0, 0));
        for points in [d.mean_points, d.interval_points[0], d.interval_points[1], d.classes[1].mean_points] {
            assert!(near(points, 3.0), "{d:?}");
        }
        assert_eq!(d.p, 2.0 / 64.0);
        assert_eq!(d.classes.iter().map(|c| c.class.as_str()).collect::<Vec<_>>(), ["spleen", "liver"]);
        assert!(comparison.unmatched.is_empty());
    }

    #[test]
    fn the_difference_is_that_of_the_two_runs_means_even_where_a_class_is_often_absent() {
        let (mut a, mut b) = (cohort("a", 9, 0.1, 7), cohort("b", 9, 0.0, 11));
        for row in a.iter_mut().chain(&mut b).filter(|row| row.class == "liver" && row.query.as_str() > "2") {
            row.dice = None;
        }
        let comparison = compare(&a, &b, 0).unwrap();
        let d = &comparison.protocols[0];
        let [a, b] = [a, b].map(|rows| summarise(&rows, &[], &setup())[0].mean.unwrap());
        assert!(near(d.mean_points, 100.0 * (a - b)), "{d:?}");
        assert_eq!((d.pairs, d.absent, d.queries), (12, 6, 9));
        assert!(comparison.unmatched.is_empty());
    }

    #[test]
    fn seeds_are_averaged_before_anything_is_counted() {
        let a = [row("a", 1, "liver", 0, Some(0.9)), row("a", 1, "liver", 1, Some(0.5))];
        let comparison = compare(&a, &[row("b", 1, "liver", 0, Some(0.6))], 0).unwrap();
        let d = &comparison.protocols[0];
        assert_eq!((d.pairs, d.wins), (1, 1));
        assert!(near(d.mean_points, 10.0));
        assert_eq!(comparison.runs[0].seeds, [0, 1]);
        assert!(comparison.note().starts_with("a (seed 0,1) minus b (seed 0), in points of Dice"));
    }

    #[test]
    fn the_interval_is_seeded_and_that_of_the_normal_distribution_for_many_queries() {
        let (a, b) = (cohort("a", 400, 0.01, 7), cohort("b", 400, 0.0, 11));
        let of = |seed| compare(&a, &b, seed).unwrap().protocols.remove(0);
        let d = of(3);
        assert_eq!(d, of(3));
        assert_ne!(d.interval_points, of(4).interval_points);
        let by_query: Vec<f64> = a
            .chunks_exact(2)
            .zip(b.chunks_exact(2))
            .map(|(a, b)| (0..2).map(|k| 50.0 * (a[k].dice.unwrap() - b[k].dice.unwrap())).sum())
            .collect();
        let summary = Summary::of(&by_query).unwrap();
        let half = 1.96 * summary.sd / f64::sqrt(400.0);
        for (found, expected) in d.interval_points.into_iter().zip([summary.mean - half, summary.mean + half]) {
            assert!(
                (found - expected).abs() < 0.1 * half,
                "{d:?}, not {:?}",
                [summary.mean - half, summary.mean + half]
            );
        }
    }

    #[test]
    fn supports_and_classes_of_a_query_are_drawn_together() {
        // Twenty supports make a query no surer than one.
        let many = |run: &str, shift: f64| {
            let rows = cohort(run, 8, shift, if run == "a" { 7 } else { 11 });
            let copies =
                (0..20).flat_map(|k| rows.iter().map(move |row| Row { support: k.to_string(), ..row.clone() }));
            copies.collect::<Vec<_>>()
        };
        let of = |a: &[Row], b: &[Row]| compare(a, b, 0).unwrap().protocols.remove(0);
        let one = of(&cohort("a", 8, 0.02, 7), &cohort("b", 8, 0.0, 11));
        let twenty = of(&many("a", 0.02), &many("b", 0.0));
        assert_eq!((twenty.pairs, twenty.queries), (20 * one.pairs, one.queries));
        assert!(one.interval_points.iter().zip(twenty.interval_points).all(|(a, b)| near(*a, b)));
        assert!(near(one.p, twenty.p));
    }

    #[test]
    fn rows_without_a_partner_are_counted_and_named() {
        let (mut a, mut b) = (cohort("a", 3, 0.1, 7), cohort("b", 4, 0.0, 7));
        a[0].dice = None; // query 0, spleen: the two runs do not even agree that it is there
        a.push(Row { protocol: Protocol::Ep1, ..a[2].clone() });
        b[2].support = "t".to_owned(); // query 1, spleen
        let comparison = compare(&a, &b, 0).unwrap();
        assert_eq!((comparison.protocols.len(), comparison.protocols[0].pairs), (1, 4));
        let names = |run: &str| {
            let of_run = comparison.unmatched.iter().filter(|u| u.run == run);
            of_run.map(|u| format!("{} {} {} {}", u.protocol.name(), u.query, u.support, u.class)).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["full 0 s spleen", "full 1 s spleen", "ep1 1 s spleen"]);
        assert_eq!(names("b"), ["full 0 s spleen", "full 1 t spleen", "full 3 s liver", "full 3 s spleen"]);
        let note = comparison.note();
        for expected in ["Scored by a only and left out: 3:", "1 from s EP1 (spleen)", "3 from s full (liver, spleen)"]
        {
            assert!(note.contains(expected), "{note}");
        }
        assert_eq!(comparison.table().rows[0].cells.last().unwrap(), "6");

        let same_name =
            compare(&a, &b.into_iter().map(|row| Row { run: "a".to_owned(), ..row }).collect::<Vec<_>>(), 0);
        let note = same_name.unwrap().note();
        assert!(
            note.contains("by a (first) only and left out: 3:") && note.contains("a (second) only and left out: 4:")
        );
    }

    #[test]
    fn what_cannot_be_compared_is_an_error_in_one_line() {
        let a = cohort("a", 2, 0.0, 7);
        let mixed: Vec<Row> = a.iter().cloned().chain(cohort("b", 2, 0.0, 7)).collect();
        let elsewhere: Vec<Row> = a.iter().map(|row| Row { query: format!("x{}", row.query), ..row.clone() }).collect();
        for (first, second, part) in
            [(&a, &vec![], "found no rows"), (&mixed, &a, "found a, b"), (&a, &elsewhere, "8 rows without a partner")]
        {
            let fault = compare(first, second, 0).unwrap_err().to_string();
            assert!(fault.contains(part) && fault.lines().count() == 1, "{fault}");
        }
    }

    #[test]
    fn the_table_has_a_row_a_protocol_and_the_json_comes_back() {
        let both = |rows: Vec<Row>| -> Vec<Row> {
            let ep1 = rows.clone().into_iter().map(|row| Row { protocol: Protocol::Ep1, ..row });
            rows.into_iter().chain(ep1).collect()
        };
        let comparison = compare(&both(cohort("a", 6, -0.03, 7)), &both(cohort("b", 6, 0.0, 7)), 0).unwrap();
        let table = comparison.table();
        assert_eq!(
            table.header.join("|"),
            "protocol|pairs|queries|difference|95 % from|to|p|wins|losses|ties|spleen|liver|absent|unmatched"
        );
        assert_eq!(table.rows[1].cells.join("|"), "EP1|12|6|-3.0|-3.0|-3.0|0.031|0|6|0|-3.0|-3.0|0|0");
        assert!(table.rows.iter().all(|row| row.cells.len() == table.header.len()));
        let json = serde_json::to_string(&comparison).unwrap();
        assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), comparison);
    }
}
