//! How the difference of two volumes changes with the places at which one of them is read, on the processor: values and slopes come from
//! the same eight voxels, whose channels lie side by side.

use crate::tensor::{filled, floats, rows, to_vec};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Channels are filled up with zeros to a multiple of the longest vector register.
const CHANNELS: usize = 16;
/// Voxels that a thread takes at a time.
const CHUNK: usize = 1024;

/// Two volumes of one size.
pub struct Pair {
    /// Rows (N, `width`)
    fixed: Vec<f32>,
    moving: Vec<f32>,
    width: usize,
    size: [usize; 3],
}

impl Pair {
    /// Volumes (1, C, d, h, w) in single precision on the CPU; others are left to libtorch.
    pub fn new(fixed: &Tensor, moving: &Tensor) -> Option<Self> {
        let is_ours = |volume: &Tensor| volume.kind() == Kind::Float && volume.device() == Device::Cpu;
        if !is_ours(fixed) || !is_ours(moving) {
            return None;
        }
        let channels = fixed.size()[1] as usize;
        let width = channels.next_multiple_of(CHANNELS);
        let filled_up = |volume| to_vec(&rows(volume).constant_pad_nd([0, (width - channels) as i64]));
        let size = super::size_of(fixed).map(|n| n as usize);
        Some(Self { fixed: filled_up(fixed), moving: filled_up(moving), width, size })
    }

    /// The gradient of sum_x |moving(x + u(x)) - fixed(x)|^2 with respect to u, `field` (1, 3, d, h, w) in voxels: of the same size.
    pub fn slopes(&self, field: &Tensor) -> Tensor {
        let field = field.contiguous();
        let (values, voxels) = (floats(&field), self.size.iter().product());
        filled(&field.size(), |slopes| {
            let (z, yx) = slopes.split_at_mut(voxels);
            let (y, x) = yx.split_at_mut(voxels);
            let chunks = z.par_chunks_mut(CHUNK).zip(y.par_chunks_mut(CHUNK)).zip(x.par_chunks_mut(CHUNK)).enumerate();
            chunks.for_each(|(chunk, ((z, y), x))| {
                let work = Work { pair: self, field: values, first: chunk * CHUNK, slopes: [z, y, x] };
                Arch::new().dispatch(work);
            });
        })
    }
}

/// Where a place lies along an axis.
#[derive(Clone, Copy)]
struct Between {
    /// The voxels before and behind it.
    voxels: [usize; 2],
    /// How far it is from the first of them.
    part: f32,
    /// 0 beyond the border, where the last values go on and nothing changes.
    inside: f32,
}

impl Between {
    #[inline(always)]
    fn of(place: f32, size: usize) -> Self {
        let last = (size - 1) as f32;
        let (before, within) = (place.clamp(0.0, last) as usize, place.clamp(0.0, last));
        let inside = if place > 0.0 && place < last { 1.0 } else { 0.0 };
        Self { voxels: [before, (before + 1).min(size - 1)], part: within - before as f32, inside }
    }
}

/// What one thread does, in the widest vectors that the processor has.
struct Work<'a, 'b> {
    pair: &'a Pair,
    field: &'a [f32],
    first: usize,
    /// Along z, y, x.
    slopes: [&'b mut [f32]; 3],
}

impl WithSimd for Work<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pair: Pair { fixed, moving, width, size: [d, h, w] }, field, first, slopes } = self;
        let (d, h, w, count) = (*d, *h, *w, d * h * w);
        let mix = |from: S::f32s, to: S::f32s, part: S::f32s| simd.mul_add_e_f32s(part, simd.sub_f32s(to, from), from);
        for index in 0..slopes[0].len() {
            let voxel = first + index;
            let z = Between::of((voxel / (h * w)) as f32 + field[voxel], d);
            let y = Between::of((voxel / w % h) as f32 + field[count + voxel], h);
            let x = Between::of((voxel % w) as f32 + field[2 * count + voxel], w);
            let (part_z, part_y, part_x) = (simd.splat_f32s(z.part), simd.splat_f32s(y.part), simd.splat_f32s(x.part));
            let [mut of_z, mut of_y, mut of_x] = [simd.splat_f32s(0.0); 3];
            let fixed = S::as_simd_f32s(&fixed[voxel * width..][..*width]).0;
            // The edges of the box along x: before and behind the place along z and y.
            let at =
                |z: usize, y: usize, x: usize| S::as_simd_f32s(&moving[((z * h + y) * w + x) * width..][..*width]).0;
            let [z0, z1] = z.voxels;
            let [y0, y1] = y.voxels;
            let [x0, x1] = x.voxels;
            let (a0, a1) = (at(z0, y0, x0), at(z0, y0, x1));
            let (b0, b1) = (at(z0, y1, x0), at(z0, y1, x1));
            let (c0, c1) = (at(z1, y0, x0), at(z1, y0, x1));
            let (e0, e1) = (at(z1, y1, x0), at(z1, y1, x1));
            for lanes in 0..fixed.len() {
                let (a, b) = (mix(a0[lanes], a1[lanes], part_x), mix(b0[lanes], b1[lanes], part_x));
                let (c, e) = (mix(c0[lanes], c1[lanes], part_x), mix(e0[lanes], e1[lanes], part_x));
                let (before, behind) = (mix(a, b, part_y), mix(c, e, part_y));
                let off = simd.sub_f32s(mix(before, behind, part_z), fixed[lanes]);
                of_z = simd.mul_add_e_f32s(off, simd.sub_f32s(behind, before), of_z);
                of_y = simd.mul_add_e_f32s(off, mix(simd.sub_f32s(b, a), simd.sub_f32s(e, c), part_z), of_y);
                let (a, b) = (simd.sub_f32s(a1[lanes], a0[lanes]), simd.sub_f32s(b1[lanes], b0[lanes]));
                let (c, e) = (simd.sub_f32s(c1[lanes], c0[lanes]), simd.sub_f32s(e1[lanes], e0[lanes]));
                of_x = simd.mul_add_e_f32s(off, mix(mix(a, b, part_y), mix(c, e, part_y), part_z), of_x);
            }
            slopes[0][index] = 2.0 * z.inside * simd.reduce_sum_f32s(of_z);
            slopes[1][index] = 2.0 * y.inside * simd.reduce_sum_f32s(of_y);
            slopes[2][index] = 2.0 * x.inside * simd.reduce_sum_f32s(of_x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{identity, sample, size_of};
    use super::*;

    #[test]
    fn slopes_are_those_of_libtorch_within_a_volume_and_beyond_its_border() {
        tch::manual_seed(4);
        for channels in [1, 8, 19] {
            let random = |channels: i64| Tensor::randn([1, channels, 4, 7, 6], (Kind::Float, Device::Cpu));
            let (fixed, moving) = (random(channels), random(channels));
            let field = (random(3) * 2.0).set_requires_grad(true);
            let places = identity(size_of(&fixed), Device::Cpu) + &field;
            (sample(&moving, &places) - &fixed).square().sum(Kind::Float).backward();
            let (expected, found) = (field.grad(), Pair::new(&fixed, &moving).unwrap().slopes(&field.detach()));
            let off = (&found - &expected).abs().max().double_value(&[]);
            assert!(off < 1e-3, "{channels} channels: {off}");
            assert!(expected.eq(0.0).any().int64_value(&[]) == 1, "some are beyond the border");
        }
        let double = Tensor::zeros([1, 2, 3, 3, 3], (Kind::Double, Device::Cpu));
        assert!(Pair::new(&double, &double).is_none());
    }
}
