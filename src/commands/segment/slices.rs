//! `--slices`: the slices of the query that show a class.

use super::classes::meant;
use super::summary::LabelClass;
use crate::cli::SliceRange;
use crate::error::{Error, Result};
use crate::inference::SliceRanges;
use crate::volume::Class;
use crate::volume::nifti::NativeGrid;

/// The slices of each class in the canonical order of `grid`'s scan.
///
/// # Errors
/// A class that is not looked for, or comes twice; slices that the scan does not have.
pub fn ranges(given: &[SliceRange], classes: &[LabelClass], grid: &NativeGrid) -> Result<SliceRanges> {
    let known = classes.iter().map(|class| (class.value, class.name.clone())).collect();
    let mut ranges = SliceRanges::unknown();
    for given in given {
        let value = meant(&given.class, &known).map_err(|fault| fault.placed(|_| "--slices".to_owned()))?;
        let Some(index) = classes.iter().position(|class| Some(class.value) == value) else {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            let expected = format!("a class that is looked for: {}", names.join(", "));
            return Err(Error::flag("--slices", expected, &given.class, "name one of them, or its label value"));
        };
        let count = grid.geometry().shape_vox[0];
        if *given.slices.end() >= count {
            let expected = format!("slices 0 to {} of the query", count - 1);
            return Err(Error::flag("--slices", expected, given.to_string(), "count from 0, in the order of the file"));
        }
        if ranges.set(Class::at(index), grid.slices(&given.slices)).is_some() {
            let expected = format!("one range of slices for {}", classes[index].name);
            return Err(Error::flag("--slices", expected, "two", "give its first and last slice once"));
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
            let given: Vec<SliceRange> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let ranges = ranges(&given, &classes, &grid).map_err(|e| e.to_string())?;
            Ok::<_, String>([0, 1].map(|class| ranges.get(Class::at(class)).cloned()))
        };
        assert_eq!(of(&[]).unwrap(), [None, None]);
        assert_eq!(of(&["Liver=9-33"]).unwrap(), [Some(9..34), None]);
        assert_eq!(of(&["left kidney = 0 - 4", "1=35"]).unwrap(), [Some(35..36), Some(0..5)]);
        for (texts, part) in [
            (&["spleen=1-2"][..], "expected a class that is looked for: liver, left kidney, found spleen"),
            (&["liver=1-36"], "expected slices 0 to 35 of the query, found liver=1-36"),
            (&["liver=1-2", "1=3-4"], "expected one range of slices for liver, found two"),
        ] {
            let message = of(texts).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
