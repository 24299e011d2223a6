//! Values of a configuration with their reasons, written into the text of another one.

use super::{ATOMIC, Config, parse_override};
use crate::error::{Error, Result};
use toml_edit::{DocumentMut, TomlError, Value};

/// A value of the configuration and why it is that.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// `section.key`
    pub key: String,
    /// As TOML has it.
    pub value: String,
    /// A sentence or two.
    pub reason: String,
}

/// A configuration in which some values are replaced, each with its reason as a comment. What is left keeps its own comments.
///
/// # Errors
/// `recipe` is no TOML, or a value is none; or the result is no configuration.
pub fn planned(recipe: &str, choices: &[Choice]) -> Result<String> {
    let refuse = |fault: TomlError| Error::invalid("the recipe", "TOML", fault.message(), "report it");
    let mut document: DocumentMut = recipe.parse().map_err(refuse)?;
    let comment = |text: &str| -> String { text.lines().map(|line| format!("# {line}\n")).collect() };
    for Choice { key, value, reason } in choices {
        let value: Value = value.parse().map_err(refuse)?;
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().expect("a key has a last part");
        let mut table = document.as_table_mut();
        for part in parts {
            let item = table.entry(part).or_insert(toml_edit::table());
            table = item.as_table_mut().expect("sections of a recipe are tables");
        }
        table.insert(last, toml_edit::value(value));
        if let Some(mut key) = table.key_mut(last) {
            key.leaf_decor_mut().set_prefix(comment(&wrapped(reason)));
        }
    }
    let text = document.to_string();
    Config::from_toml(&text, "the plan")?;
    Ok(text)
}

/// Lines of at most so many letters.
fn wrapped(text: &str) -> String {
    const LETTERS: usize = 110;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("one at least");
        if !line.is_empty() && line.len() + word.len() >= LETTERS {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The values that overrides of the form `section.key=value` set. What lies in a table that is one value replaces it whole.
///
/// # Errors
/// An override has another form.
pub fn given(overrides: &[String]) -> Result<Vec<Choice>> {
    let choice = |text: &String| {
        parse_override(text)?;
        let (key, value) = text.split_once('=').expect("it was parsed");
        let (key, value) = (key.trim(), value.trim());
        let value = value.parse::<Value>().unwrap_or_else(|_| value.into()).to_string();
        let inside = |table: &&&str| key.strip_prefix(**table).is_some_and(|rest| rest.starts_with('.'));
        let (key, value) = match ATOMIC.iter().find(inside) {
            Some(table) => (*table, format!("{{ {} = {value} }}", &key[table.len() + 1..])),
            None => (key, value),
        };
        Ok(Choice { key: key.to_owned(), value, reason: "Given with --set.".to_owned() })
    };
    overrides.iter().map(choice).collect()
}
