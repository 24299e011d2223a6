//! Tables as rows of text, for the terminal and the HTML page.

use super::scores::{ProtocolScores, Setup, unique};
use crate::metrics::{Protocol, Summary};
use crate::report::Setting;
use crate::report::published::{Benchmark, Published};
use crate::units;

/// A header and its rows; each row has as many cells as the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Line>,
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// As many as the header has.
    pub cells: Vec<String>,
    /// Whether it is a result of this program among those of others.
    pub ours: bool,
}

impl Table {
    /// A table without results of others.
    pub fn new(header: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        Self { header, rows: rows.into_iter().map(|cells| Line { cells, ours: false }).collect() }
    }

    /// The table as text with aligned columns: text to the left, numbers to the right, two spaces between.
    ///
    /// ```
    /// let cells = |row: [&str; 2]| row.map(str::to_owned).to_vec();
    /// let table = ssl3d::report::table::Table::new(cells(["class", "Dice"]), [cells(["liver", "9.5"])]);
    /// assert_eq!(table.to_text(), "class  Dice\n-----------\nliver   9.5\n");
    /// ```
    pub fn to_text(&self) -> String {
        let columns = self.header.len();
        let widths: Vec<usize> =
            (0..columns).map(|c| self.lines().map(|line| line[c].chars().count()).max().unwrap_or(0)).collect();
        let right: Vec<bool> = (0..columns).map(|c| is_numeric_column(&self.rows, c)).collect();
        let mut text = String::new();
        for (number, line) in self.lines().enumerate() {
            let cells: Vec<String> = (0..columns)
                .map(|c| {
                    if right[c] { format!("{:>1$}", line[c], widths[c]) } else { format!("{:<1$}", line[c], widths[c]) }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if number == 0 {
                text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
                text.push('\n');
            }
        }
        text
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).chain(self.rows.iter().map(|row| &row.cells))
    }
}

/// The scores of a run, one row for each protocol, above published rows: Dice in per cent, spread as one standard deviation. `network`
/// is the kind of the run's networks, as [`System::network`].
pub fn beside_published(scores: &[ProtocolScores], setting: Setting, network: &str, benchmark: &Benchmark) -> Table {
    let classes: Vec<&str> =
        scores.first().map(|s| s.classes.iter().map(|c| c.class.as_str()).collect()).unwrap_or_default();
    let header = ["method", "input", "protocol", "setting"]
        .into_iter()
        .chain(classes.iter().copied())
        .chain(["mean", "sd queries", "sd folds", "source"])
        .map(spoken)
        .collect();
    let setting_name = setting.to_string();
    let line = |name: &str, s: &ProtocolScores, of_classes: Vec<Option<f64>>, last: [Option<String>; 3]| {
        let mut cells = [name, network, protocol_name(s.protocol), &setting_name].map(str::to_owned).to_vec();
        cells.extend(of_classes.into_iter().map(per_cent));
        cells.extend(last.map(|cell| cell.unwrap_or_else(|| "-".to_owned())));
        cells.push("this run".to_owned());
        Line { cells, ours: true }
    };
    let ours = scores.iter().flat_map(|s| {
        let of_classes = classes.iter().map(|class| class_mean(s, class)).collect();
        let with = line("ssl3d", s, of_classes, [per_cent(s.mean), sd(s.over.queries), sd(s.over.folds)].map(Some));
        let alone = s.mean_by_support_alone.map(|mean| {
            let of_class = |class: &&str| s.classes.iter().find(|c| c.class == **class)?.mean_by_support_alone;
            let of_classes = classes.iter().map(of_class).collect();
            line("ssl3d, support alone", s, of_classes, [Some(per_cent(Some(mean))), None, None])
        });
        std::iter::once(with).chain(alone)
    });
    let published = benchmark.rows.iter().map(|p| {
        let Published { system, network, protocol, setting, mean, dice, source } = p;
        let before = [system, network.name(), protocol_name(*protocol), &setting.to_string()];
        let mut cells = before.map(str::to_owned).to_vec();
        cells.extend(classes.iter().map(|class| tenths(dice.get(*class).copied())));
        cells.extend([tenths(Some(*mean)), "-".to_owned(), "-".to_owned(), source.clone()]);
        Line { cells, ours: false }
    });
    Table { header, rows: ours.chain(published).collect() }
}

/// A system and its scores under one protocol: a row of [`systems`].
#[derive(Debug, Clone)]
pub struct System<'a> {
    /// Name of the system.
    pub name: &'a str,
    /// "3D", "2D", "2 x 3D", ..., or "-" where there is none.
    pub network: String,
    /// "supervoxels", "organs", ... or "-" for a system without training.
    pub learns_from: &'a str,
    /// "local", "global", ... or "-" for a system without prototypes.
    pub prototypes: &'a str,
    /// The setup of the evaluation.
    pub setup: &'a Setup,
    /// The scores.
    pub scores: &'a ProtocolScores,
    /// The published result of the system; see [`Benchmark::find`].
    pub published: Option<&'a Published>,
}

/// Several systems side by side, one row for each system and protocol, with Dice of each class in per cent. The last
/// column has protocol and setting of the published result.
pub fn systems(systems: &[System]) -> Table {
    let classes = unique(systems.iter().flat_map(|system| &system.scores.classes).map(|class| &class.class));
    let before = ["system", "network", "learns from", "prototypes", "setting", "protocol", "support", "mean"];
    let alone = systems.iter().any(|system| system.scores.mean_by_support_alone.is_some()).then_some(SUPPORT_ALONE);
    let before = before.into_iter().chain(alone).chain(["published"]);
    let after = ["sd folds", "sd seeds", "folds", "seeds", "published under"];
    let header = before.chain(classes.iter().copied()).chain(after).map(spoken).collect();
    let rows = systems.iter().map(|system| {
        let System { name, network, learns_from, prototypes, setup, scores, published } = system;
        let (protocol, seeds) = (protocol_name(scores.protocol), setup.seed_list());
        let setting = setup.setting.to_string();
        let mut row = [name, network.as_str(), learns_from, prototypes, &setting, protocol].map(str::to_owned).to_vec();
        let theirs = tenths(published.map(|p| p.mean));
        row.extend([setup.annotation.clone(), per_cent(scores.mean)]);
        row.extend(alone.map(|_| per_cent(scores.mean_by_support_alone)));
        row.push(theirs);
        row.extend(classes.iter().map(|class| per_cent(class_mean(scores, class))));
        row.extend([sd(scores.over.folds), sd(scores.over.seeds), setup.fold.clone(), seeds]);
        row.push(published.map_or("-".to_owned(), provenance));
        row
    });
    Table::new(header, rows)
}

/// Protocol, input and setting of a published result with its source, like `EP1, 2D, Setting 2; source`.
fn provenance(published: &Published) -> String {
    let Published { network, setting, source, .. } = published;
    let network = if is_blank(network.name()) { String::new() } else { format!(", {}", network.name()) };
    let setting = if *setting == Setting::Untrained { String::new() } else { format!(", Setting {setting}") };
    format!("{}{network}{setting}; {source}", protocol_name(published.protocol))
}

fn class_mean(scores: &ProtocolScores, class: &str) -> Option<f64> {
    Some(scores.classes.iter().find(|c| c.class == class)?.rows?.mean)
}

/// Heads the column of the scores without any scan beside support and query.
const SUPPORT_ALONE: &str = "support alone";

/// The scores of each class under one protocol: mean Dice, surface distances and surface Dice, the spread of Dice over
/// queries and supports, extremes, the mean of each fold. Dice in per cent.
pub fn by_class(scores: &ProtocolScores) -> Table {
    let mut folds: Vec<usize> = scores.classes.iter().flat_map(|c| c.fold.keys().copied()).collect();
    folds.sort_unstable();
    folds.dedup();
    let alone = scores.mean_by_support_alone.map(|_| SUPPORT_ALONE);
    let columns = ["HD95 mm", "ASSD mm", "NSD", "sd queries", "sd supports", "lowest", "highest"];
    let columns = ["class", "Dice"].into_iter().chain(alone).chain(columns).chain(["scored", "missed", "absent"]);
    let mut header: Vec<String> = columns.map(str::to_owned).collect();
    header.extend(folds.iter().map(|fold| format!("fold {fold}")));
    let mean = |summary: Option<Summary>| summary.map(|s| s.mean);
    let mut rows: Vec<Vec<String>> = scores
        .classes
        .iter()
        .map(|c| {
            let mut row = vec![spoken(&c.class), per_cent(mean(c.rows))];
            row.extend(alone.map(|_| per_cent(c.mean_by_support_alone)));
            row.extend([
                tenths(mean(c.hd95_mm)),
                tenths(mean(c.assd_mm)),
                per_cent(mean(c.nsd)),
                sd(c.over.queries),
                sd(c.over.supports),
            ]);
            row.extend([per_cent(c.rows.map(|r| r.min)), per_cent(c.rows.map(|r| r.max))]);
            row.extend([c.rows.map_or(0, |r| r.n), c.missed, c.absent].map(|n| n.to_string()));
            row.extend(folds.iter().map(|fold| per_cent(mean(c.fold.get(fold).copied()))));
            row
        })
        .collect();
    let over = &scores.over;
    let mut last = vec!["mean of classes".to_owned(), per_cent(scores.mean)];
    last.extend(alone.map(|_| per_cent(scores.mean_by_support_alone)));
    last.push(tenths(scores.hd95_mm));
    last.extend([tenths(scores.assd_mm), per_cent(scores.nsd), sd(over.queries), sd(over.supports)]);
    last.extend(["-"; 5].map(str::to_owned));
    last.extend(folds.iter().map(|fold| {
        let means: Vec<f64> = scores.classes.iter().filter_map(|c| c.fold.get(fold)).map(|f| f.mean).collect();
        per_cent(mean(Summary::of(&means)))
    }));
    rows.push(last);
    Table::new(header, rows)
}

/// `.7312` as `73.1`; `None` as `-`.
pub fn per_cent(dice: Option<f64>) -> String {
    dice.map_or_else(|| "-".to_owned(), |d| format!("{:.1}", 100.0 * d))
}

/// `12.34` as `12.3`, `0.1234` as `0.123`; `None` as `-`.
fn tenths(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| units::digits(v, 1))
}

/// Whether the column holds numbers, apart from blank cells.
pub fn is_numeric_column(rows: &[Line], column: usize) -> bool {
    let mut cells = rows.iter().map(|row| row.cells[column].as_str()).filter(|cell| !is_blank(cell)).peekable();
    cells.peek().is_some() && cells.all(|cell| cell.split(' ').next().is_some_and(|n| n.parse::<f64>().is_ok()))
}

/// `right_kidney` as `right kidney`.
pub(super) fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

/// Whether the cell is empty or `-`.
pub fn is_blank(cell: &str) -> bool {
    cell.is_empty() || cell == "-"
}

fn sd(summary: Option<Summary>) -> String {
    per_cent(summary.filter(|s| s.n > 1).map(|s| s.sd))
}

/// The name of the protocol in tables: `Ep1` as "EP1".
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Full => "full",
        Protocol::Ep1 => "EP1",
        Protocol::Ep2 => "EP2",
    }
}

#[cfg(test)]
mod tests {
    use super::super::published::{Network, benchmark};
    use super::super::scores::{Row, summarise, tests::rows, tests::setup};
    use super::*;

    #[test]
    fn columns_line_up_with_numbers_to_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table = Table::new(row(["method", "mean", "note"]), [row(["a", "7.1", ""]), row(["bcd", "-", "x y"])]);
        assert_eq!(table.to_text(), "method  mean  note\n------------------\na        7.1\nbcd        -  x y\n");
    }

    #[test]
    fn ours_come_first_with_their_network_and_every_row_says_its_protocol_and_setting() {
        let chaos = benchmark("chaos-t2-spir").unwrap();
        let table = beside_published(&summarise(&rows(), &[], &setup()), Setting::One, "2D", chaos);
        assert_eq!(table.rows.len(), 2 + chaos.rows.len());
        let starts = |at: usize, cells: [&str; 7]| assert_eq!(table.rows[at].cells[..7], cells.map(str::to_owned));
        starts(0, ["ssl3d", "2D", "full", "1", "50.0", "80.0", "65.0"]);
        starts(1, ["ssl3d", "2D", "EP1", "1", "-", "80.0", "80.0"]);
        starts(2, ["3D SSL-ALPNet", "3D", "full", "1", "-", "-", "62.7"]);
        for row in &table.rows {
            assert_eq!(row.cells.len(), table.header.len());
            assert_eq!(row.ours, row.cells[0] == "ssl3d");
            assert!(["full", "EP1"].contains(&row.cells[2].as_str()), "{row:?}");
            assert!(["1", "2", "-"].contains(&row.cells[3].as_str()), "{row:?}");
        }
    }

    #[test]
    fn a_published_dice_of_a_class_is_shown_where_it_is_known() {
        let row = Published {
            system: "another".to_owned(),
            network: Network::Volumes,
            protocol: Protocol::Full,
            setting: Setting::Two,
            mean: 71.2,
            dice: [("liver".to_owned(), 80.04)].into(),
            source: "somewhere".to_owned(),
        };
        let classes = ["spleen", "liver"].map(str::to_owned).into();
        let benchmark = Benchmark { title: "A dataset".to_owned(), classes, rows: vec![row] };
        let table = beside_published(&summarise(&rows(), &[], &setup()), Setting::One, "3D", &benchmark);
        let cells = ["another", "3D", "full", "2", "-", "80.0", "71.2", "-", "-", "somewhere"];
        assert_eq!(table.rows.last().unwrap().cells, cells.map(str::to_owned));
    }

    #[test]
    fn the_table_by_class_ends_in_the_mean_of_the_classes() {
        let table = by_class(&summarise(&rows(), &[], &setup())[0]);
        assert_eq!(table.header.last().unwrap(), "fold 1");
        let spleen = ["spleen", "50.0", "10.0", "5.0", "25.0", "-", "-", "50.0", "50.0", "1", "0", "1", "50.0", "-"];
        assert_eq!(table.rows[0].cells, spleen.map(str::to_owned));
        let mean = ["mean of classes", "65.0", "13.0", "6.5", "32.5"].map(str::to_owned);
        assert_eq!(table.rows[2].cells[..5], mean);
        assert!(table.rows.iter().all(|row| row.cells.len() == table.header.len()));
        assert!(is_numeric_column(&table.rows, 1) && !is_numeric_column(&table.rows, 0));
    }

    #[test]
    fn what_was_found_without_other_scans_stands_beside() {
        let alone: Vec<Row> = rows().into_iter().map(|row| Row { dice: row.dice.map(|d| d - 0.25), ..row }).collect();
        let scores = summarise(&rows(), &alone, &setup());
        let table = by_class(&scores[0]);
        assert_eq!(table.header[..3], ["class", "Dice", SUPPORT_ALONE]);
        assert_eq!(table.rows[0].cells[..3], ["spleen", "50.0", "25.0"].map(str::to_owned));
        assert_eq!(table.rows[2].cells[..3], ["mean of classes", "65.0", "40.0"].map(str::to_owned));
        assert!(table.rows.iter().all(|row| row.cells.len() == table.header.len()));
        let table = beside_published(&scores, Setting::One, "3D", benchmark("chaos-t2-spir").unwrap());
        assert_eq!(table.rows[1].cells[..4], ["ssl3d, support alone", "3D", "full", "1"].map(str::to_owned));
        assert!(table.rows.iter().all(|row| row.cells.len() == table.header.len()));
    }

    #[test]
    fn systems_stand_beside_their_published_figures_with_the_protocol_of_each() {
        let mut rows = rows();
        rows.extend(rows.clone().into_iter().map(|row| Row { seed: 1, dice: row.dice.map(|d| d - 0.1), ..row }));
        let (setup, trained) = (setup(), summarise(&rows, &[], &setup()));
        let floor = summarise(&rows[..2], &[], &setup);
        let untrained = Setup { setting: Setting::Untrained, seeds: vec![0], ..setup.clone() };
        let published = |system, setting, protocol| benchmark("chaos-t2-spir").unwrap().find(system, setting, protocol);
        let system = |name, setup, scores, published| {
            let (network, learns_from, prototypes) = ("3D".to_owned(), "supervoxels", "local, global");
            System { name, network, learns_from, prototypes, setup, scores, published }
        };
        let table = systems(&[
            system("mine", &setup, &trained[0], published("3D SSL-ALPNet", Setting::One, Protocol::Full)),
            system("SSL-ALPNet", &setup, &trained[1], published("SSL-ALPNet", Setting::One, Protocol::Ep1)),
            system("mask copy", &untrained, &floor[0], published("mask copy", Setting::Untrained, Protocol::Full)),
            system("SE-Net", &setup, &trained[0], None),
        ]);
        let lines: Vec<String> = table.lines().map(|row| row.join("|")).collect();
        let expected = [
            "system|network|learns from|prototypes|setting|protocol|support|mean|published|spleen|liver|sd folds|sd seeds\
             |folds|seeds|published under",
            "mine|3D|supervoxels|local, global|1|full|dense|60.0|62.7|45.0|75.0|0.0|7.1|0,1|0,1\
             |full, 3D, Setting 1; Zhang and Liu 2022, which ssl3d implements",
            "SSL-ALPNet|3D|supervoxels|local, global|1|EP1|dense|75.0|78.8|-|75.0|-|7.1|0,1|0,1\
             |EP1, 2D, Setting 1; Ouyang et al. 2020",
            "mask copy|3D|supervoxels|local, global|-|full|dense|70.0|36.3|50.0|90.0|-|-|0,1|0\
             |full; ssl3d, 20 scans; centres aligned",
            "SE-Net|3D|supervoxels|local, global|1|full|dense|60.0|-|45.0|75.0|0.0|7.1|0,1|0,1|-",
        ];
        assert_eq!(lines, expected);
    }
}
