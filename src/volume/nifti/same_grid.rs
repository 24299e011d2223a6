//! Whether a label map lies on its image's grid.

use super::{largest_corner_distance_mm, times};
use crate::error::{Error, Result};
use crate::volume::Geometry;
use crate::volume::regrid::{inverse, times_vector};
use std::path::Path;

/// Two grids are the same if no voxel is further from its place than this part of a voxel: programs round what they write, to
/// float32 or to some decimals, and a map that was drawn on another grid is off by half a voxel at least.
const SAME_GRID_VOX: f64 = 0.1;
/// What contributes less to the distance of two grids is not named.
const NAMED_VOX: f64 = 0.05;

const REMEDY: &str = "give the label map that was drawn on this image, or bring it onto the image's grid: \
                      segment and prepare nifti do with --resample-label";

/// Checks that a label map lies on its image's grid: the shapes are equal, and no corner is a tenth of a voxel away from its place.
///
/// # Errors
/// The error names both shapes; or what differs, spacing, direction or origin, and the largest distance of the two grids.
pub fn check_same_geometry(image: &Path, of_image: &Geometry, label: &Path, of_label: &Geometry) -> Result<()> {
    if of_image.shape_vox != of_label.shape_vox {
        let expected = format!("the {} voxels (z y x) of its image {}", times(of_image.shape_vox), image.display());
        return Err(Error::file(label, expected, times(of_label.shape_vox), REMEDY));
    }
    let vox = largest_corner_distance_vox(of_image, of_label);
    // Written so that a NaN is refused too.
    if vox <= SAME_GRID_VOX {
        return Ok(());
    }
    let mm = largest_corner_distance_mm(of_image.shape_vox, &of_image.affine_mm, &of_label.affine_mm);
    let (expected, found) = differences(of_image, of_label);
    let expected = format!("the grid of its image {} ({expected})", image.display());
    let found = format!("{found}, up to {} voxels or {} mm away", plain(vox, 3), plain(mm, 4));
    Err(Error::file(label, expected, found, REMEDY))
}

/// The same as [`largest_corner_distance_mm`] in voxels of `a`, along that axis on which it is largest.
fn largest_corner_distance_vox(a: &Geometry, b: &Geometry) -> f64 {
    let Some(to_vox) = inverse(&a.affine_mm) else { return f64::NAN };
    // In the units of the first grid its own affine is the identity.
    let in_vox = |affine: &[[f64; 4]; 4]| {
        let column = |column: usize| times_vector(&to_vox, [0, 1, 2].map(|row| affine[row][column]));
        [0, 1, 2, 3].map(column) // [column][axis]
    };
    let [a_vox, b_vox] = [a, b].map(|geometry| in_vox(&geometry.affine_mm));
    let mut largest = 0.0;
    for corner in 0..8 {
        let at_end = |axis: usize| if corner >> axis & 1 == 1 { (a.shape_vox[axis] - 1) as f64 } else { 0.0 };
        let index = [at_end(2), at_end(1), at_end(0), 1.0]; // x y z 1
        let apart =
            |axis: usize| (0..4).map(|column| (a_vox[column][axis] - b_vox[column][axis]) * index[column]).sum();
        largest = max_or_nan(largest, longest([0, 1, 2].map(apart)));
    }
    largest
}

fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn longest(vector: [f64; 3]) -> f64 {
    vector.into_iter().map(f64::abs).fold(0.0, max_or_nan)
}

/// Spacing, direction and origin as far as they differ: of the image, and of the label map.
fn differences(a: &Geometry, b: &Geometry) -> (String, String) {
    let to_vox = inverse(&a.affine_mm);
    let [from, to] = [a, b].map(Geometry::spacing_mm); // z y x
    let column = |geometry: &Geometry, axis: usize| [0, 1, 2].map(|row| geometry.affine_mm[row][2 - axis]);
    let unit = |geometry: &Geometry, axis: usize| column(geometry, axis).map(|v| v / geometry.spacing_mm()[axis]);
    let end = |axis: usize| (a.shape_vox[axis] - 1) as f64;
    let vox = |mm: [f64; 3]| to_vox.map_or(f64::NAN, |to_vox| longest(times_vector(&to_vox, mm)));
    let minus = |a: [f64; 3], b: [f64; 3]| [b[0] - a[0], b[1] - a[1], b[2] - a[2]];

    let origin = |geometry: &Geometry| [0, 1, 2].map(|row| geometry.affine_mm[row][3]);
    let by_origin = vox(minus(origin(a), origin(b)));
    let by_scale = (0..3).map(|axis| end(axis) * (to[axis] / from[axis] - 1.0).abs()).fold(0.0, max_or_nan);
    let turned = |axis: usize| minus(unit(a, axis), unit(b, axis)).map(|part| part * end(axis) * from[axis]);
    let by_axis = [0, 1, 2].map(|axis| vox(turned(axis)));
    let by_direction = by_axis.into_iter().fold(0.0, max_or_nan);
    let most_turned = (0..3).max_by(|&i, &j| by_axis[i].total_cmp(&by_axis[j])).expect("three axes");
    let directions = [a, b].map(|geometry| unit(geometry, most_turned));

    let parts = [
        (by_scale, "spacing z y x", from, to, " mm"),
        (
            by_direction,
            ["direction of z", "direction of y", "direction of x"][most_turned],
            directions[0],
            directions[1],
            "",
        ),
        (by_origin, "origin R A S", origin(a), origin(b), " mm"),
    ];
    let largest = parts.iter().map(|(by, ..)| *by).fold(0.0, max_or_nan);
    let is_named = |by: f64| !(by < NAMED_VOX && (by < largest || largest.is_nan()));
    let mut texts = [Vec::new(), Vec::new()];
    for (_, name, a, b, unit) in parts.into_iter().filter(|(by, ..)| is_named(*by)) {
        for (texts, numbers) in texts.iter_mut().zip(told_apart(a, b)) {
            texts.push(format!("{name} {numbers}{unit}"));
        }
    }
    let [a, b] = texts.map(|texts| texts.join(", "));
    (a, b)
}

/// The numbers with as many digits as it takes to see that they differ, and one more.
fn told_apart(a: [f64; 3], b: [f64; 3]) -> [String; 2] {
    const MOST: usize = 12;
    let print = |numbers: [f64; 3], decimals: usize| numbers.map(|number| plain(number, decimals)).join(" ");
    let decimals = (3..MOST).find(|&decimals| print(a, decimals) != print(b, decimals)).unwrap_or(MOST);
    [a, b].map(|numbers| print(numbers, decimals + 1))
}

/// At most so many decimals, without zeros at the end.
fn plain(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &Geometry, change: &dyn Fn(&mut Geometry)) -> Result<(), String> {
        let mut label = image.clone();
        change(&mut label);
        check_same_geometry(Path::new("image.nii"), image, Path::new("label.nii"), &label).map_err(|e| e.to_string())
    }

    /// Turns the grid about the first axis of the patient.
    fn turn(geometry: &mut Geometry, angle: f64) {
        let [row_1, row_2] = [geometry.affine_mm[1], geometry.affine_mm[2]];
        for column in 0..3 {
            geometry.affine_mm[1][column] = angle.cos() * row_1[column] - angle.sin() * row_2[column];
            geometry.affine_mm[2][column] = angle.sin() * row_1[column] + angle.cos() * row_2[column];
        }
    }

    #[test]
    fn a_label_grid_may_be_a_tenth_of_a_voxel_off_and_no_more_whatever_the_unit() {
        for unit in [0.025, 1.0, 10.0] {
            let image = Geometry::with_spacing([30, 256, 256], [7.7, 1.25, 1.25].map(|mm| mm * unit));
            let shift = |vox: f64| check(&image, &|g| g.affine_mm[0][3] += vox * 1.25 * unit);
            let scale = |by: f64| check(&image, &|g| g.affine_mm[1][1] *= by);
            assert!(check(&image, &|_| ()).is_ok());
            assert!(shift(0.09).is_ok() && shift(0.11).is_err() && shift(0.5).is_err());
            assert!(scale(1.0003).is_ok() && scale(1.0005).is_err());
            assert!(check(&image, &|g| turn(g, 4e-4)).is_ok());
            assert!(check(&image, &|g| turn(g, 1e-3)).is_err());
            assert!(check(&image, &|g| g.affine_mm[1][1] = f64::NAN).is_err());
        }
    }

    #[test]
    fn the_message_names_what_differs_with_numbers_that_differ() {
        let image = Geometry::with_spacing([30, 256, 256], [7.7, 1.25, 1.25]);
        let of = |change: &dyn Fn(&mut Geometry)| {
            let text = check(&image, change).unwrap_err();
            assert!(text.starts_with("label.nii: expected the grid of its image image.nii (") && !text.contains('\n'));
            text
        };
        let spacing = of(&|g| g.affine_mm[2][2] = 7.8);
        assert!(spacing.contains("image.nii (spacing z y x 7.7 1.25 1.25 mm), found spacing z y x 7.8 1.25 1.25 mm, up to 0.377 voxels or 2.9 mm away; give"), "{spacing}");
        let fine = of(&|g| g.affine_mm[1][1] *= 1.0005);
        assert!(fine.contains("7.7 1.25 1.25 mm), found") && fine.contains("7.7 1.2506 1.25 mm, up"), "{fine}");
        let moved = of(&|g| g.affine_mm[1][3] = -0.2);
        assert!(moved.contains("(origin R A S 0 0 0 mm), found origin R A S 0 -0.2 0 mm, up"), "{moved}");
        let turned = of(&|g| turn(g, 1e-3));
        assert!(turned.contains("direction of y 0 1 0), found") || turned.contains("direction of z"), "{turned}");
        let shape = check(&image, &|g| g.shape_vox = [31, 256, 256]).unwrap_err();
        assert!(shape.contains("30 x 256 x 256") && shape.contains("31 x 256 x 256"), "{shape}");
        assert!(shape.contains("--resample-label"), "{shape}");
    }
}
