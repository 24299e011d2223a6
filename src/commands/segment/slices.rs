//! `--slices`: the slices of the query that show a class.

use super::summary::LabelClass;
use crate::error::{Error, Result};
use crate::inference::SliceRanges;
use crate::volume::Class;
use crate::volume::nifti::NativeGrid;
use std::ops::RangeInclusive;

/// One class, by name or value, with its first and last slice in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    class: String,
    slices: RangeInclusive<usize>,
}

impl Given {
    /// From "liver=9-33".
    pub fn parse(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('=').and_then(|(class, range)| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((class.trim(), first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        match parts {
            Some((class, first, last)) if !class.is_empty() && first <= last => {
                Ok(Self { class: class.to_owned(), slices: first..=last })
            }
            _ => {
                let expected = "a class and its first and last slice, counted from 0";
                Err(Error::invalid("--slices", expected, format!("{text:?}"), "for instance --slices liver=9-33"))
            }
        }
    }

    /// As it was given.
    pub fn text(&self) -> String {
        format!("{}={}-{}", self.class, self.slices.start(), self.slices.end())
    }
}

/// The slices of each class in the canonical order of `grid`'s scan.
///
/// # Errors
/// A class that is not looked for, or comes twice; slices that the scan does not have.
pub fn ranges(given: &[Given], classes: &[LabelClass], grid: &NativeGrid) -> Result<SliceRanges> {
    let mut ranges = SliceRanges::unknown();
    for given in given {
        let is_meant = |class: &LabelClass| {
            class.name.eq_ignore_ascii_case(&given.class) || given.class == class.value.to_string()
        };
        let Some(index) = classes.iter().position(is_meant) else {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            let expected = format!("a class that is looked for: {}", names.join(", "));
            return Err(Error::invalid("--slices", expected, &given.class, "name one of them, or its label value"));
        };
        let count = grid.geometry().shape_vox[0];
        if *given.slices.end() >= count {
            let expected = format!("slices 0 to {} of the query", count - 1);
            return Err(Error::invalid("--slices", expected, given.text(), "count from 0, in the order of the file"));
        }
        if ranges.set(Class::at(index), grid.axial_slices(&given.slices)).is_some() {
            let expected = format!("one range of slices for {}", classes[index].name);
            return Err(Error::invalid("--slices", expected, "two", "give its first and last slice once"));
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn slices_are_given_by_name_or_value() {
        let class = |value, name: &str| LabelClass { value, name: name.to_owned(), colour: [0; 3] };
        let classes = [class(1, "liver"), class(3, "left kidney")];
        let grid = NativeGrid::new(&Geometry::with_spacing([36, 8, 8], [5.0, 1.0, 1.0]));
        let of = |texts: &[&str]| {
            let given = texts.iter().map(|text| Given::parse(text)).collect::<Result<Vec<_>>>();
            let ranges = given.and_then(|given| ranges(&given, &classes, &grid)).map_err(|e| e.to_string())?;
            Ok::<_, String>([0, 1].map(|class| ranges.get(Class::at(class)).cloned()))
        };
        assert_eq!(of(&[]).unwrap(), [None, None]);
        assert_eq!(of(&["Liver=9-33"]).unwrap(), [Some(9..34), None]);
        assert_eq!(of(&["left kidney = 0 - 4", "1=35"]).unwrap(), [Some(35..36), Some(0..5)]);
        for (texts, part) in [
            (&["spleen=1-2"][..], "expected a class that is looked for: liver, left kidney, found spleen"),
            (&["liver=1-36"], "expected slices 0 to 35 of the query, found liver=1-36"),
            (&["liver=1-2", "1=3-4"], "expected one range of slices for liver, found two"),
            (&["liver=5-4"], "\"liver=5-4\""),
            (&["liver"], "for instance --slices liver=9-33"),
            (&["=1-2"], "counted from 0"),
            (&["liver=-1-2"], "counted from 0"),
        ] {
            let message = of(texts).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
