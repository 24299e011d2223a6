//! What single flags hold. Each is read while the command line is, so that a wrong one is a wrong use of the program (exit code 2).

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `--threads`: one at least.
pub fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&threads| threads > 0).ok_or_else(|| "expected a number of threads, 1 or more".to_owned())
}

/// `--minutes`: more than none.
pub fn minutes(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&m: &f64| m > 0.0 && m.is_finite())
        .ok_or_else(|| "expected minutes, more than 0".to_owned())
}

/// `ssl3d train --fold`: what to hold out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// This one.
    Fold(usize),
    /// Every fold, one after another.
    All,
    /// Nothing: train on every scan.
    None,
}

impl FromStr for Held {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            number => number.parse().map(Self::Fold).map_err(|_| "expected a fold's number, all or none".to_owned()),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Fold(fold) => write!(f, "{fold}"),
            Self::All => write!(f, "all"),
            Self::None => write!(f, "none"),
        }
    }
}

/// `ssl3d eval --fold`: what to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folds {
    /// Every fold.
    All,
    /// These, ascending.
    These(BTreeSet<usize>),
}

impl FromStr for Folds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let folds: Option<BTreeSet<usize>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
        folds.map(Self::These).ok_or_else(|| "expected a fold's number, several with commas, or all".to_owned())
    }
}

impl fmt::Display for Folds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::These(folds) => write!(f, "{}", folds.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

/// `ssl3d segment --classes`: all that the supports show, or label values and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    /// Every label value but 0.
    All,
    /// Label values and names, as they were given.
    These(Vec<String>),
}

impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        match quoted_list(text) {
            Some(parts) if !parts.iter().any(|part| part.is_empty() || part.parse() == Ok(0)) => Ok(Self::These(parts)),
            _ => Err("expected all, or label values other than 0 or names, separated by commas".to_owned()),
        }
    }
}

/// Parts with commas between them. What stands in double quotes is one part, whatever it holds; a quote in it is doubled, as in CSV.
/// None where a quote is not closed, or something stands beside it.
fn quoted_list(text: &str) -> Option<Vec<String>> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_start());
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
            Some(quoted) => {
                let (mut part, mut quoted) = (String::new(), quoted);
                loop {
                    let (before, after) = quoted.split_once('"')?;
                    part += before;
                    match after.strip_prefix('"') {
                        Some(more) => (part, quoted) = (part + "\"", more),
                        None => break (part, after.trim_start()),
                    }
                }
            }
        };
        parts.push(part);
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return after.is_empty().then_some(parts),
        }
    }
}

/// `ssl3d segment --slices`: a class, by name or label value, and its first and last slice in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceRange {
    /// Name or label value.
    pub class: String,
    /// First and last slice, counted from 0.
    pub slices: RangeInclusive<usize>,
}

impl FromStr for SliceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('=').and_then(|(class, range)| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((class.trim(), first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        match parts {
            Some((class, first, last)) if !class.is_empty() && first <= last => {
                Ok(Self { class: class.to_owned(), slices: first..=last })
            }
            _ => Err("expected a class and its first and last slice, counted from 0, like liver=9-33".to_owned()),
        }
    }
}

impl fmt::Display for SliceRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}={}-{}", self.class, self.slices.start(), self.slices.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that reads as it prints, and text that is refused.
    fn check<T: FromStr<Err = String> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            let value: T = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(value.to_string(), *text);
        }
        for text in bad {
            assert!(text.parse::<T>().is_err_and(|fault| fault.starts_with("expected ")), "{text:?} is taken");
        }
    }

    #[test]
    fn folds_and_ranges_read_as_they_print() {
        check::<Held>(&["0", "12", "all", "none"], &["", "x", "-1", "1,2", "All"]);
        check::<Folds>(&["0", "1,3", "all"], &["", "none", "1,,2", "x", "-1"]);
        check::<SliceRange>(
            &["liver=9-33", "left kidney=0-0"],
            &["liver", "=1-2", "liver=5-4", "liver=-1-2", "liver=a"],
        );
        assert_eq!("3, 1,3".parse(), Ok(Folds::These([1, 3].into())));
        assert_eq!(" 4 = 7".parse(), Ok(SliceRange { class: "4".to_owned(), slices: 7..=7 }));
    }

    #[test]
    fn there_is_one_thread_at_least() {
        assert_eq!(threads("1"), Ok(1));
        assert!(["0", "-1", "", "two", "1.5"].iter().all(|text| threads(text).is_err()));
    }

    #[test]
    fn classes_are_values_other_than_background_or_names() {
        assert_eq!("all".parse(), Ok(Classes::All));
        assert_eq!("9, spleen".parse(), Ok(Classes::These(["9", "spleen"].map(str::to_owned).into())));
        let these = |parts: &[&str]| Ok(Classes::These(parts.iter().map(|part| (*part).to_owned()).collect()));
        assert_eq!("\"kidney, left\" , liver".parse(), these(&["kidney, left", "liver"]));
        assert_eq!("\"all\"".parse(), these(&["all"]));
        assert_eq!("\"a \"\"b\"\"\"".parse(), these(&["a \"b\""]));
        for text in ["", "0", "1,,2", "liver,0", "\"liver", "\"liver\" 2", "\"\"", "1,"] {
            assert!(text.parse::<Classes>().is_err(), "{text:?} is taken");
        }
    }
}
