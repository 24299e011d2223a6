//! One self-contained page: everything inline, so that it can be mailed, archived and printed.

use super::canvas::Rgb;
use super::table::{Line, Table, is_blank, is_numeric_column};
use askama::Template;
use base64::Engine;

/// The page's content, in the order in which it is shown.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub title: String,
    /// One paragraph: what was done and what came out.
    pub lead: String,
    pub cards: Vec<Card>,
    pub tables: Vec<HtmlTable>,
    pub figures: Vec<Figure>,
    /// Command lines that reproduce the page.
    pub commands: Vec<String>,
    /// Signature, version, date.
    pub footer: String,
}

/// A key number.
#[derive(Debug, Clone)]
pub struct Card {
    pub label: String,
    pub value: String,
    pub note: String,
}

#[derive(Debug, Clone)]
pub struct HtmlTable {
    pub caption: String,
    pub header: Vec<String>,
    pub rows: Vec<Line>,
    pub note: String,
}

#[derive(Debug, Clone)]
pub struct Figure {
    pub heading: String,
    pub caption: String,
    /// Names and colours of the classes that are shown; may be empty.
    pub legend: Vec<(String, Rgb)>,
    pub body: FigureBody,
}

#[derive(Debug, Clone)]
pub enum FigureBody {
    /// Trusted markup, put into the page as it is.
    Svg(String),
    Png(Vec<u8>),
}

impl HtmlTable {
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
    /// Is the column set to the right?
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
