//! The network's array for a field of view.

/// The ratio of the grid's spacings, across slices and in them, is that of the scans to the power of this: between that of the scans,
/// which would leave few voxels in-plane, and cubes, which would spend most voxels between the slices.
const RATIO_POWER: f64 = 0.75;
/// And at least this, since the first pooling halves a slice and not the stack.
const LEAST_RATIO: f64 = 2.0;
/// No voxel of the grid is smaller than this part of a scan's own: features have half the resolution of the grid.
const FINEST: f64 = 0.5;
/// Fewer voxels in-plane show nothing.
const LEAST_IN_PLANE: usize = 32;

/// What a scan, or the median of a cohort, shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// Distance of slices.
    pub slice_mm: f64,
    /// Distance of voxels in a slice.
    pub pixel_mm: f64,
    /// Extent along the slices' axis.
    pub depth_mm: f64,
    /// Extent in a slice, the root of height times width.
    pub width_mm: f64,
}

impl Field {
    /// How much longer a voxel of the grid is across slices than in them.
    pub fn ratio(&self) -> f64 {
        (self.slice_mm / self.pixel_mm).max(1.0).powf(RATIO_POWER).max(LEAST_RATIO)
    }

    /// The network's array: at most `most_vox` voxels for all of the field of view, in whole steps of the pooling along z and in a slice.
    pub fn size_vox(&self, most_vox: usize, [step_z, step_yx]: [usize; 2]) -> [usize; 3] {
        let ratio = self.ratio();
        let pixel_mm = (self.depth_mm * self.width_mm.powi(2) / (ratio * most_vox as f64)).cbrt();
        let nearest = |n: f64, step: usize| ((n / step as f64).round() as usize).max(1) * step;
        let most = |extent_mm: f64, own_mm: f64, step: usize| {
            ((extent_mm / (FINEST * own_mm) / step as f64).ceil() as usize).max(1) * step
        };
        let depth = nearest(self.depth_mm / (ratio * pixel_mm), step_z).min(most(self.depth_mm, self.slice_mm, step_z));
        let side = (most_vox as f64 / depth as f64).sqrt() as usize / step_yx * step_yx;
        let side = side.min(most(self.width_mm, self.pixel_mm, step_yx)).max(LEAST_IN_PLANE);
        [depth, side, side]
    }
}
