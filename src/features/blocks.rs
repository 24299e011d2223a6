//! The parts of the U-Net, with pytorch-3dunet's parameter names (layer order "cbl": convolution, norm, leaky ReLU).

use crate::rng::Rng;
use crate::tensor::channels_last;
use rand::RngExt;
use tch::nn::Path;
use tch::{Device, Kind, Tensor, no_grad};

const NORM_EPSILON: f64 = 1e-5;
const BATCH_MOMENTUM: f64 = 0.1;
/// Number of groups of the group norm, pytorch-3dunet's default; fewer channels than this are one group.
const NORM_GROUPS: i64 = 8;

/// Normalisation, by the values that are normalised together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// A channel over the batch.
    Batch,
    /// A group of channels.
    Group,
    /// A channel of one volume.
    Instance,
}

/// Axes that a kernel spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// z, y and x.
    Volume,
    /// y and x.
    Slice,
}

impl Span {
    /// Kernel shape (outputs, inputs, width, width, width), or (outputs, inputs, width, width) as in 2D convolutions.
    fn shape(self, outputs: i64, inputs: i64, width: i64) -> Vec<i64> {
        let axes = match self {
            Self::Volume => 3,
            Self::Slice => 2,
        };
        [vec![outputs, inputs], vec![width; axes]].concat()
    }
}

/// A kernel of either span as (outputs, inputs, z, y, x).
fn spatial(weight: &Tensor) -> Tensor {
    if weight.dim() == 4 { weight.unsqueeze(2) } else { weight.shallow_clone() }
}

/// Creates the variable `name` of `path` with this shape, uniform in +-`bound`. The values come from the crate's own
/// random stream, so that weights do not depend on libtorch's generator.
pub fn uniform(path: &Path, name: &str, shape: &[i64], bound: f64, rng: &mut Rng) -> Tensor {
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-bound..bound) as f32).collect();
    let mut variable = path.zeros(name, shape);
    no_grad(|| variable.copy_(&Tensor::from_slice(&values).view(shape)));
    variable
}

/// Bound of PyTorch's default initialisation of convolutions: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
pub fn convolution_bound(shape: &[i64]) -> f64 {
    1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt()
}

/// A normalisation layer with its parameters, (channels) each.
#[derive(Debug)]
pub enum NormLayer {
    /// Batch norm.
    Batch {
        /// Factor of each channel.
        weight: Tensor,
        /// Offset of each channel.
        bias: Tensor,
        /// Running mean of each channel.
        running_mean: Tensor,
        /// Running variance of each channel.
        running_var: Tensor,
    },
    /// Group norm.
    Group {
        /// Factor of each channel.
        weight: Tensor,
        /// Offset of each channel.
        bias: Tensor,
        /// Number of groups.
        groups: i64,
    },
    /// Instance norm.
    Instance {
        /// Factor of each channel.
        weight: Tensor,
        /// Offset of each channel.
        bias: Tensor,
    },
}

impl NormLayer {
    /// A layer for `channels` channels whose variables are stored under `path`.
    pub fn new(path: &Path, channels: i64, norm: Norm) -> Self {
        let affine = |path: Path| (path.ones("weight", &[channels]), path.zeros("bias", &[channels]));
        match norm {
            Norm::Batch => {
                let path = path / "batchnorm";
                let running_mean = path.zeros_no_train("running_mean", &[channels]);
                let running_var = path.ones_no_train("running_var", &[channels]);
                let (weight, bias) = affine(path);
                Self::Batch { weight, bias, running_mean, running_var }
            }
            Norm::Group => {
                let (weight, bias) = affine(path / "groupnorm");
                Self::Group { weight, bias, groups: if channels < NORM_GROUPS { 1 } else { NORM_GROUPS } }
            }
            Norm::Instance => {
                let (weight, bias) = affine(path / "instancenorm");
                Self::Instance { weight, bias }
            }
        }
    }

    /// Normalises (n, channels, ...) and keeps the shape. With `train`, batch norm uses and updates the statistics of
    /// the batch.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let some = |t: &Tensor| Some(t.shallow_clone());
        match self {
            Self::Batch { weight, bias, running_mean, running_var } => {
                let (weight, bias) = (some(weight), some(bias));
                let (mean, var) = (some(running_mean), some(running_var));
                x.batch_norm(weight, bias, mean, var, train, BATCH_MOMENTUM, NORM_EPSILON, true)
            }
            Self::Group { weight, bias, groups } => x.group_norm(*groups, Some(weight), Some(bias), NORM_EPSILON, true),
            // Batch norm over a batch of one. libtorch's group norm says the same, but on the CPU its backward pass takes
            // three times as long in the channels-last format, and its sums are less exact.
            Self::Instance { weight, bias } => {
                let none = || None::<Tensor>;
                let normalise =
                    |x: &Tensor| x.batch_norm(some(weight), some(bias), none(), none(), true, 0.0, NORM_EPSILON, true);
                match x.size()[0] {
                    1 => normalise(x),
                    _ => Tensor::cat(&x.split(1, 0).iter().map(normalise).collect::<Vec<_>>(), 0),
                }
            }
        }
    }
}

/// A convolution three voxels wide (without bias, since the norm has one), norm, leaky ReLU.
#[derive(Debug)]
struct SingleConv {
    weight: Tensor,
    norm: NormLayer,
}

impl SingleConv {
    fn new(path: Path, inputs: i64, outputs: i64, span: Span, norm: Norm, rng: &mut Rng) -> Self {
        let shape = span.shape(outputs, inputs, 3);
        let weight = uniform(&(&path / "conv"), "weight", &shape, convolution_bound(&shape), rng);
        Self { weight, norm: NormLayer::new(&path, outputs, norm) }
    }

    /// (n, inputs, d, h, w) -> (n, outputs, d, h, w)
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.normalise(&convolve(x, &spatial(&self.weight)), train)
    }

    /// Applies the block to `skip` (n, a, d, h, w) concatenated with `deep` (n, b, d', h', w'), which is enlarged to
    /// the size of `skip` by repeating voxels (nearest-neighbour upsampling).
    ///
    /// Where the sizes are multiples, neither upsampling nor concatenation is executed: a kernel on voxels that repeat
    /// f times is a transposed convolution of stride f, with half of the work for f = 2 and without the two large maps.
    fn forward_joined(&self, skip: &Tensor, deep: &Tensor, train: bool) -> Tensor {
        let (to, from) = (skip.size(), deep.size());
        if (2..5).any(|axis| to[axis] % from[axis] != 0) {
            let up = deep.upsample_nearest3d(&to[2..], None, None, None); // (n, b, d, h, w)
            return self.forward(&Tensor::cat(&[skip, &up], 1), train);
        }
        let kernels = spatial(&self.weight).split_with_sizes([to[1], from[1]], 1);
        let mut kernel = kernels[1].flip([2, 3, 4]);
        let padding = half(&kernel);
        let factors = [2, 3, 4].map(|axis| to[axis] / from[axis]);
        for (axis, factor) in (0..3).zip(factors) {
            // An output voxel meets the same input voxel once for each of its copies.
            let shifted = |by: i64| {
                let mut padding = [0; 6]; // before and behind, last axis first
                [padding[4 - 2 * axis], padding[5 - 2 * axis]] = [by, factor - 1 - by];
                kernel.constant_pad_nd(padding)
            };
            kernel = (0..factor).map(shifted).reduce(|sum, shifted| sum + shifted).expect("a factor from 1 on");
        }
        let kernel = channels_last(&kernel.transpose(0, 1)); // (b, outputs, f + 2, ...)
        let up = deep.conv_transpose3d(&kernel, None::<Tensor>, factors, padding, 0, 1, 1);
        self.normalise(&(convolve(skip, &kernels[0]) + up), train)
    }

    fn normalise(&self, y: &Tensor, train: bool) -> Tensor {
        let mut y = self.norm.forward(&channels_last(y), train);
        // Slope .01, PyTorch's default, which pytorch-3dunet leaves alone. In place: the norm does not need its output.
        y.leaky_relu_()
    }
}

/// A convolution with zero padding that keeps the size.
fn convolve(x: &Tensor, weight: &Tensor) -> Tensor {
    // The weights' format decides libtorch's algorithm; converting these few values costs nothing.
    let (weight, padding) = (channels_last(weight), half(weight));
    // Of a single volume with few channels, libtorch would unfold every voxel's surroundings first.
    let is_single = x.size()[0] == 1 && x.device() == Device::Cpu && x.kind() == Kind::Float;
    if is_single && tch::utils::has_mkldnn() {
        return x.mkldnn_convolution(&weight, None::<Tensor>, padding, [1; 3], [1; 3], 1);
    }
    x.conv3d(&weight, None::<Tensor>, 1, padding, 1, 1)
}

/// Number of voxels of a kernel (outputs, inputs, z, y, x) before its middle.
fn half(kernel: &Tensor) -> [i64; 3] {
    let size = kernel.size();
    [2, 3, 4].map(|axis| size[axis] / 2)
}

/// Two single convolutions. In an encoder the first one has half of the outputs (pytorch-3dunet).
#[derive(Debug)]
pub struct DoubleConv {
    first: SingleConv,
    second: SingleConv,
}

impl DoubleConv {
    /// The block of an encoder level, stored under `path`.
    pub fn encoder(path: Path, inputs: i64, outputs: i64, span: Span, norm: Norm, rng: &mut Rng) -> Self {
        Self::new(path, [inputs, (outputs / 2).max(inputs), outputs], span, norm, rng)
    }

    /// The block of a decoder level, stored under `path`.
    pub fn decoder(path: Path, inputs: i64, outputs: i64, span: Span, norm: Norm, rng: &mut Rng) -> Self {
        Self::new(path, [inputs, outputs, outputs], span, norm, rng)
    }

    fn new(path: Path, [inputs, middle, outputs]: [i64; 3], span: Span, norm: Norm, rng: &mut Rng) -> Self {
        let path = path / "basic_module";
        Self {
            first: SingleConv::new(&path / "SingleConv1", inputs, middle, span, norm, rng),
            second: SingleConv::new(&path / "SingleConv2", middle, outputs, span, norm, rng),
        }
    }

    /// Maps (n, inputs, d, h, w) to (n, outputs, d, h, w).
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.second.forward(&self.first.forward(x, train), train)
    }

    /// Maps the encoder's `skip` (n, a, d, h, w) and the deeper level's map (n, inputs - a, d', h', w') to (n, outputs,
    /// d, h, w).
    pub fn forward_joined(&self, skip: &Tensor, deep: &Tensor, train: bool) -> Tensor {
        self.second.forward(&self.first.forward_joined(skip, deep, train), train)
    }
}

/// A convolution one voxel wide, with bias.
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
}

impl Head {
    /// A head whose variables are stored under `path`.
    pub fn new(path: Path, inputs: i64, outputs: i64, span: Span, rng: &mut Rng) -> Self {
        let shape = span.shape(outputs, inputs, 1);
        let bound = convolution_bound(&shape);
        let weight = uniform(&path, "weight", &shape, bound, rng);
        let bias = uniform(&path, "bias", &[outputs], bound, rng);
        Self { weight, bias }
    }

    /// Maps (n, inputs, d, h, w) to (n, outputs, d, h, w).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        debug_assert_eq!(x.kind(), Kind::Float);
        x.conv3d(&spatial(&self.weight), Some(&self.bias), 1, 0, 1, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use tch::nn::VarStore;

    #[test]
    fn joining_without_upsampling_equals_upsampling_and_concatenation() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Double, Device::Cpu));
        let volume = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [3, 1, 4]].map(|factors| (Span::Volume, factors));
        let slice = [[1, 1, 1], [1, 2, 2], [1, 1, 3], [2, 2, 2]].map(|factors| (Span::Slice, factors));
        for (span, factors) in volume.into_iter().chain(slice) {
            let mut vs = VarStore::new(Device::Cpu);
            let conv = SingleConv::new(vs.root(), 5, 4, span, Norm::Instance, &mut rng::stream(0, "weights", 0));
            vs.double();
            let (skip, deep) = (random(&[2, 2, 2 * factors[0], 3 * factors[1], factors[2]]), random(&[2, 3, 2, 3, 1]));
            let up = deep.upsample_nearest3d(&skip.size()[2..], None, None, None);
            let expected = conv.forward(&Tensor::cat(&[&skip, &up], 1), true);
            let difference = (conv.forward_joined(&skip, &deep, true) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-10, "{span:?} {factors:?}: {difference}");
        }
    }

    #[test]
    fn instance_norm_is_group_norm_with_a_group_a_channel() {
        let vs = VarStore::new(Device::Cpu);
        let norm = NormLayer::new(&vs.root(), 3, Norm::Instance);
        for n in [1, 2] {
            let x = Tensor::randn([n, 3, 4, 5, 6], (Kind::Float, Device::Cpu));
            let expected = x.group_norm(3, None::<Tensor>, None::<Tensor>, NORM_EPSILON, true);
            assert!((norm.forward(&x, true) - expected).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
