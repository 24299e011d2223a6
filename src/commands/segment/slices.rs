//! `--slices`: in which slices of the query a class lies, for whoever has looked.

use super::summary::Class;
use crate::borders::ends::Slices;
use crate::cli::SliceRange;
use crate::error::{Error, Result};
use crate::volume::nifti::NativeGrid;

/// The slices of each class in the canonical order of `grid`'s scan; empty where nothing was told.
///
/// # Errors
/// A class that is not looked for, or is told of twice; slices that the scan does not have.
pub fn of_classes(told: &[SliceRange], classes: &[Class], grid: &NativeGrid) -> Result<Vec<Slices>> {
    let mut slices: Vec<Slices> = vec![None; if told.is_empty() { 0 } else { classes.len() }];
    for told in told {
        let is_meant =
            |class: &Class| class.name.eq_ignore_ascii_case(&told.class) || told.class == class.value.to_string();
        let Some(index) = classes.iter().position(is_meant) else {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            let expected = format!("a class that is looked for: {}", names.join(", "));
            return Err(Error::invalid("--slices", expected, &told.class, "name one of them, or its label value"));
        };
        let count = grid.geometry().shape_vox[0];
        if *told.slices.end() >= count {
            let expected = format!("slices 0 to {} of the query", count - 1);
            return Err(Error::invalid(
                "--slices",
                expected,
                told.to_string(),
                "count from 0, in the order of the file",
            ));
        }
        if slices[index].replace(grid.axial_slices(&told.slices)).is_some() {
            let expected = format!("one range of slices for {}", classes[index].name);
            return Err(Error::invalid("--slices", expected, "two", "give its first and last slice once"));
        }
    }
    Ok(slices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn slices_are_told_by_name_or_value() {
        let class = |value, name: &str| Class { value, name: name.to_owned(), colour: [0; 3] };
        let classes = [class(1, "liver"), class(3, "left kidney")];
        let grid = NativeGrid::new(&Geometry::with_spacing([36, 8, 8], [5.0, 1.0, 1.0]));
        let of = |texts: &[&str]| {
            let told = texts.iter().map(|text| text.parse::<SliceRange>().unwrap()).collect::<Vec<_>>();
            of_classes(&told, &classes, &grid).map_err(|e| e.to_string())
        };
        assert_eq!(of(&[]).unwrap(), []);
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
