//! One self-contained HTML page: everything is inline, so that the page can be mailed, archived and printed.

use super::canvas::Rgb;
use super::table::{Line, Table, is_blank, is_numeric_column};
use askama::Template;
use base64::Engine;

/// The content of the page, in the order in which it is shown.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Title.
    pub title: String,
    /// One paragraph with the task and the result.
    pub lead: String,
    /// Key numbers.
    pub cards: Vec<Card>,
    /// Tables.
    pub tables: Vec<HtmlTable>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Command lines that reproduce the page.
    pub commands: Vec<String>,
    /// Signature, version, date.
    pub footer: String,
}

/// A key number.
#[derive(Debug, Clone)]
pub struct Card {
    /// Name of the number.
    pub label: String,
    /// The number as text.
    pub value: String,
    /// Explanation in small print.
    pub note: String,
}

/// A table with a caption and a note.
#[derive(Debug, Clone)]
pub struct HtmlTable {
    /// Text above the table.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows; each has as many cells as the header.
    pub rows: Vec<Line>,
    /// Text below the table.
    pub note: String,
}

/// A figure with its caption.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Heading.
    pub heading: String,
    /// Caption.
    pub caption: String,
    /// Names and colours of the shown classes; may be empty.
    pub legend: Vec<(String, Rgb)>,
    /// The image.
    pub body: FigureBody,
}

/// An inline image.
#[derive(Debug, Clone)]
pub enum FigureBody {
    /// Trusted markup that is inserted unchanged.
    Svg(String),
    /// An encoded PNG.
    Png(Vec<u8>),
}

impl HtmlTable {
    /// A table with the given caption and note.
    pub fn new(caption: impl Into<String>, table: Table, note: impl Into<String>) -> Self {
        Self { caption: caption.into(), header: table.header, rows: table.rows, note: note.into() }
    }
}

#[derive(Template)]
#[template(path = "report.html", config = "src/report/askama.toml")]
struct View<'a> {
    page: &'a Page,
    tables: Vec<TableView<'a>>,
}

struct TableView<'a> {
    table: &'a HtmlTable,
    /// Whether each column is aligned right.
    numeric: Vec<bool>,
}

/// The page as HTML. All text is escaped.
pub fn render(page: &Page) -> String {
    let tables = page
        .tables
        .iter()
        .map(|table| {
            let numeric = (0..table.header.len()).map(|c| is_numeric_column(&table.rows, c)).collect();
            TableView { table, numeric }
        })
        .collect();
    View { page, tables }.render().expect("writing into a string does not fail")
}

impl View<'_> {
    fn data_uri(&self, png: &[u8]) -> String {
        format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
    }

    fn css_colour(&self, [r, g, b]: &Rgb) -> String {
        format!("rgb({r} {g} {b})")
    }
}

impl TableView<'_> {
    fn class(&self, column: &usize, cell: &str) -> &'static str {
        match (self.numeric[*column], is_blank(cell)) {
            (true, true) => "number blank",
            (true, false) => "number",
            (false, true) => "blank",
            (false, false) => "",
        }
    }

    /// Our own rows stand out among the published ones.
    fn row_class(&self, row: &Line) -> &'static str {
        if row.ours { "ours" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let text = |s: &str| s.to_owned();
        Page {
            title: text("A <title> & more"),
            lead: text("One paragraph."),
            cards: vec![Card { label: text("mean Dice"), value: text("71.2"), note: text("full volume") }],
            tables: vec![HtmlTable {
                caption: text("Scores"),
                header: vec![text("method"), text("mean")],
                rows: vec![
                    Line { cells: vec![text("a name"), text("71.2")], ours: true },
                    Line { cells: vec![text("ssl3d"), text("-")], ours: false },
                ],
                note: String::new(),
            }],
            figures: vec![
                Figure {
                    heading: text("Curves"),
                    caption: text("by epoch"),
                    legend: vec![],
                    body: FigureBody::Svg(text("<svg viewBox=\"0 0 1 1\"></svg>")),
                },
                Figure {
                    heading: text("Overlay"),
                    caption: text("query 1"),
                    legend: vec![(text("liver"), [230, 159, 0])],
                    body: FigureBody::Png(vec![1, 2, 3]),
                },
            ],
            commands: vec![text("ssl3d eval --run RUN > log")],
            footer: text("dice|space=native"),
        }
    }

    #[test]
    fn text_is_escaped_and_pictures_are_inline() {
        let html = render(&page());
        for expected in [
            "<title>A &#60;title&#62; &#38; more</title>",
            "<svg viewBox=\"0 0 1 1\"></svg>",
            "src=\"data:image/png;base64,AQID\"",
            "ssl3d eval --run RUN &#62; log",
            "rgb(230 159 0)",
            "dice|space=native",
        ] {
            assert!(html.contains(expected), "missing: {expected}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let html = render(&page());
        for reference in ["http://", "https://", "src=\"/", "href=", "@import", "url("] {
            assert!(!html.contains(reference), "refers to {reference}");
        }
    }

    #[test]
    fn parts_without_content_leave_no_heading() {
        let html = render(&Page { title: "Empty".to_owned(), ..Page::default() });
        for heading in ["<h2", "<table", "<figure", "<footer"] {
            assert!(!html.contains(heading), "{heading} in an empty page");
        }
    }

    #[test]
    fn our_row_and_numbers_are_marked() {
        let html = render(&page());
        assert_eq!(html.matches("<tr class=\"ours\">").count(), 1);
        assert!(html.contains("<tr class=\"ours\"><td class=\"\">a name</td>"), "{html}");
        assert!(html.contains("<td class=\"number\">71.2</td>") && html.contains("<td class=\"number blank\">-</td>"));
    }
}
