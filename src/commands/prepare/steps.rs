//! The steps of `ssl3d prepare` from its flags.

use crate::cli::Preparation;
use crate::error::{Error, Result};
use crate::preprocessing::Steps;

impl From<&Preparation> for Steps {
    /// What is given replaces what --few-shot stands for.
    fn from(args: &Preparation) -> Self {
        let given = if args.few_shot { Self::FEW_SHOT } else { Self::default() };
        Self {
            upright: args.upright,
            clip_percent: args.clip.or(given.clip_percent),
            spacing_xyz_mm: args.spacing.or(given.spacing_xyz_mm),
            size_xy_vox: args.size.or(given.size_xy_vox),
        }
    }
}

/// Whether the steps can be done.
///
/// # Errors
/// A percentage, a spacing or a size is out of range.
pub fn check(steps: &Steps) -> Result<()> {
    if let Some(percent) = steps.clip_percent
        && !(0.0..50.0).contains(&percent)
    {
        let expected = "a percentage from 0 to below 50";
        return Err(Error::flag("--clip", expected, percent.to_string(), "0.5 is usual"));
    }
    if let Some(spacing) = steps.spacing_xyz_mm
        && !spacing.iter().all(|mm| (0.01..=100.0).contains(mm))
    {
        let found = format!("{spacing:?}");
        return Err(Error::flag("--spacing", "three lengths from 0.01 to 100 mm", found, "like 1.25,1.25,7.7"));
    }
    match steps.size_xy_vox {
        Some(size) if !size.iter().all(|n| (1..=4096).contains(n)) => {
            let found = format!("{size:?}");
            Err(Error::flag("--size", "two sizes from 1 to 4096 voxels", found, "like 256,256"))
        }
        _ => Ok(()),
    }
}
