//! Tables as rows of text, for the terminal and for the page.

use super::published::PUBLISHED;
use super::scores::ProtocolScores;
use crate::metrics::{Protocol, Summary};

/// A header and its rows; each row has as many cells as the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Aligned columns: text to the left, numbers to the right, two spaces between.
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
        std::iter::once(&self.header).chain(&self.rows)
    }
}

/// Our scores, one row a protocol, with the published rows below: Dice in per cent, spread as one standard deviation.
/// `setting` says what training saw: "1" (nothing excluded) or "2".
pub fn beside_published(scores: &[ProtocolScores], setting: &str) -> Table {
    let classes: Vec<&str> =
        scores.first().map(|s| s.classes.iter().map(|c| c.class.as_str()).collect()).unwrap_or_default();
    let header = ["method", "input", "protocol", "setting"]
        .into_iter()
        .chain(classes.iter().copied())
        .chain(["mean", "sd queries", "sd folds", "note"])
        .map(spoken)
        .collect();
    let ours = scores.iter().map(|s| {
        let mut row =
            vec!["ssl3d".to_owned(), "3D".to_owned(), protocol_name(s.protocol).to_owned(), setting.to_owned()];
        row.extend(classes.iter().map(|name| {
            let class = s.classes.iter().find(|c| c.class == *name);
            per_cent(class.and_then(|c| c.rows).map(|r| r.mean))
        }));
        row.extend([per_cent(s.mean), sd(s.over.queries), sd(s.over.folds), "this run".to_owned()]);
        row
    });
    let published = PUBLISHED.iter().map(|p| {
        let mut row: Vec<String> = [p.method, p.dimension, p.protocol, p.setting].map(str::to_owned).to_vec();
        row.extend(classes.iter().map(|_| "-".to_owned()));
        row.extend([per_cent(Some(p.mean_dice / 100.0)), "-".to_owned(), "-".to_owned(), p.note.to_owned()]);
        row
    });
    Table { header, rows: ours.chain(published).collect() }
}

/// Each class under one protocol: mean, spread over queries and supports, extremes, the mean of each fold.
pub fn by_class(scores: &ProtocolScores) -> Table {
    let mut folds: Vec<usize> = scores.classes.iter().flat_map(|c| c.fold.keys().copied()).collect();
    folds.sort_unstable();
    folds.dedup();
    let mut header: Vec<String> =
        ["class", "mean", "sd queries", "sd supports", "lowest", "highest", "scored", "absent"]
            .map(str::to_owned)
            .to_vec();
    header.extend(folds.iter().map(|fold| format!("fold {fold}")));
    let mut rows: Vec<Vec<String>> = scores
        .classes
        .iter()
        .map(|c| {
            let mut row =
                vec![spoken(&c.class), per_cent(c.rows.map(|r| r.mean)), sd(c.over.queries), sd(c.over.supports)];
            row.extend([per_cent(c.rows.map(|r| r.min)), per_cent(c.rows.map(|r| r.max))]);
            row.extend([c.rows.map_or(0, |r| r.n).to_string(), c.absent.to_string()]);
            row.extend(folds.iter().map(|fold| per_cent(c.fold.get(fold).map(|f| f.mean))));
            row
        })
        .collect();
    let over = &scores.over;
    let mut mean = vec!["mean of classes".to_owned(), per_cent(scores.mean), sd(over.queries), sd(over.supports)];
    mean.extend(["-", "-", "-", "-"].map(str::to_owned));
    mean.extend(folds.iter().map(|fold| {
        let means: Vec<f64> = scores.classes.iter().filter_map(|c| c.fold.get(fold)).map(|f| f.mean).collect();
        per_cent(Summary::of(&means).map(|s| s.mean))
    }));
    rows.push(mean);
    Table { header, rows }
}

/// `.7312` as `73.1`, nothing as `-`.
pub fn per_cent(dice: Option<f64>) -> String {
    dice.map_or_else(|| "-".to_owned(), |d| format!("{:.1}", 100.0 * d))
}

/// Does the column hold numbers, blanks aside?
pub fn is_numeric_column(rows: &[Vec<String>], column: usize) -> bool {
    let mut cells = rows.iter().map(|row| row[column].as_str()).filter(|cell| !is_blank(cell)).peekable();
    cells.peek().is_some() && cells.all(|cell| cell.split(' ').next().is_some_and(|n| n.parse::<f64>().is_ok()))
}

/// `right_kidney` as `right kidney`.
fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

/// A cell that says nothing.
pub fn is_blank(cell: &str) -> bool {
    cell.is_empty() || cell == "-"
}

fn sd(summary: Option<Summary>) -> String {
    per_cent(summary.filter(|s| s.n > 1).map(|s| s.sd))
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Full => "full",
        Protocol::Ep1 => "EP1",
        Protocol::Ep2 => "EP2",
    }
}

#[cfg(test)]
mod tests {
    use super::super::scores::{summarise, tests::rows, tests::setup};
    use super::*;

    #[test]
    fn columns_line_up_with_numbers_to_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table = Table {
            header: row(["method", "mean", "note"]),
            rows: vec![row(["a", "7.1", ""]), row(["bcd", "-", "x y"])],
        };
        assert_eq!(table.to_text(), "method  mean  note\n------------------\na        7.1\nbcd        -  x y\n");
    }

    #[test]
    fn ours_come_first_and_every_row_says_its_protocol_and_setting() {
        let table = beside_published(&summarise(&rows(), &setup()), "1");
        assert_eq!(table.rows.len(), 2 + PUBLISHED.len());
        assert_eq!(table.rows[0][..7], ["ssl3d", "3D", "full", "1", "50.0", "80.0", "65.0"].map(str::to_owned));
        assert_eq!(table.rows[1][..7], ["ssl3d", "3D", "EP1", "1", "-", "80.0", "80.0"].map(str::to_owned));
        for row in &table.rows {
            assert_eq!(row.len(), table.header.len());
            assert!(["full", "EP1"].contains(&row[2].as_str()) && ["1", "2", "-"].contains(&row[3].as_str()));
        }
        assert!(table.to_text().contains("62.7"));
    }

    #[test]
    fn the_table_by_class_ends_in_the_mean_of_the_classes() {
        let table = by_class(&summarise(&rows(), &setup())[0]);
        assert_eq!(table.header.last().unwrap(), "fold 1");
        assert_eq!(
            table.rows[0],
            ["spleen", "50.0", "-", "-", "50.0", "50.0", "1", "1", "50.0", "-"].map(str::to_owned)
        );
        assert_eq!(table.rows[2][..2], ["mean of classes", "65.0"].map(str::to_owned));
        assert!(is_numeric_column(&table.rows, 1) && !is_numeric_column(&table.rows, 0));
    }
}
