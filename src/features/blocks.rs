//! The pieces of the U-Net, with pytorch-3dunet's parameter names (layer order "cbl": convolution, norm, leaky ReLU).

use crate::rng::Rng;
use crate::tensor::channels_last;
use rand::RngExt;
use tch::nn::Path;
use tch::{Kind, Tensor, no_grad};

const NORM_EPSILON: f64 = 1e-5;
const BATCH_MOMENTUM: f64 = 0.1;
/// pytorch-3dunet's default; fewer channels than groups are one group.
const NORM_GROUPS: i64 = 8;

/// What is normalised together: a channel over the batch, a group of channels, or a channel of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    Batch,
    Group,
    Instance,
}

/// `path`'s variable of this shape, uniform in +-`bound`, drawn from our own stream so that weights do not
/// depend on libtorch's generator.
pub fn uniform(path: &Path, name: &str, shape: &[i64], bound: f64, rng: &mut Rng) -> Tensor {
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-bound..bound) as f32).collect();
    let mut variable = path.zeros(name, shape);
    no_grad(|| variable.copy_(&Tensor::from_slice(&values).view(shape)));
    variable
}

/// PyTorch's default for convolutions: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
fn convolution_bound(shape: &[i64]) -> f64 {
    1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt()
}

#[derive(Debug)]
enum NormLayer {
    Batch { weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor },
    Group { weight: Tensor, bias: Tensor, groups: i64 },
}

impl NormLayer {
    fn new(path: &Path, channels: i64, norm: Norm) -> Self {
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
                Self::Group { weight, bias, groups: channels }
            }
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        match self {
            Self::Batch { weight, bias, running_mean, running_var } => {
                let some = |t: &Tensor| Some(t.shallow_clone());
                let (weight, bias) = (some(weight), some(bias));
                let (mean, var) = (some(running_mean), some(running_var));
                x.batch_norm(weight, bias, mean, var, train, BATCH_MOMENTUM, NORM_EPSILON, true)
            }
            Self::Group { weight, bias, groups } => x.group_norm(*groups, Some(weight), Some(bias), NORM_EPSILON, true),
        }
    }
}

/// 3x3x3 convolution (no bias: the norm has one), norm, leaky ReLU.
#[derive(Debug)]
struct SingleConv {
    weight: Tensor,
    norm: NormLayer,
}

impl SingleConv {
    fn new(path: Path, inputs: i64, outputs: i64, norm: Norm, rng: &mut Rng) -> Self {
        let shape = [outputs, inputs, 3, 3, 3];
        let weight = uniform(&(&path / "conv"), "weight", &shape, convolution_bound(&shape), rng);
        Self { weight, norm: NormLayer::new(&path, outputs, norm) }
    }

    /// (n, inputs, d, h, w) -> (n, outputs, d, h, w)
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        // The weights' format decides libtorch's algorithm; converting these few values costs nothing.
        let y = x.conv3d(&channels_last(&self.weight), None::<Tensor>, 1, 1, 1, 1);
        let mut y = self.norm.forward(&channels_last(&y), train);
        // Slope .01, PyTorch's default, which pytorch-3dunet leaves alone. In place: the norm does not need its output.
        y.leaky_relu_()
    }
}

/// Two single convolutions. In an encoder the first one grows to half of the outputs (pytorch-3dunet).
#[derive(Debug)]
pub struct DoubleConv {
    first: SingleConv,
    second: SingleConv,
}

impl DoubleConv {
    pub fn encoder(path: Path, inputs: i64, outputs: i64, norm: Norm, rng: &mut Rng) -> Self {
        let middle = (outputs / 2).max(inputs);
        Self::new(path, inputs, middle, outputs, norm, rng)
    }

    pub fn decoder(path: Path, inputs: i64, outputs: i64, norm: Norm, rng: &mut Rng) -> Self {
        Self::new(path, inputs, outputs, outputs, norm, rng)
    }

    fn new(path: Path, inputs: i64, middle: i64, outputs: i64, norm: Norm, rng: &mut Rng) -> Self {
        let path = path / "basic_module";
        Self {
            first: SingleConv::new(&path / "SingleConv1", inputs, middle, norm, rng),
            second: SingleConv::new(&path / "SingleConv2", middle, outputs, norm, rng),
        }
    }

    /// (n, inputs, d, h, w) -> (n, outputs, d, h, w)
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.second.forward(&self.first.forward(x, train), train)
    }
}

/// 1x1x1 convolution with bias.
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
}

impl Head {
    pub fn new(path: Path, inputs: i64, outputs: i64, rng: &mut Rng) -> Self {
        let shape = [outputs, inputs, 1, 1, 1];
        let bound = convolution_bound(&shape);
        let weight = uniform(&path, "weight", &shape, bound, rng);
        let bias = uniform(&path, "bias", &[outputs], bound, rng);
        Self { weight, bias }
    }

    /// (n, inputs, d, h, w) -> (n, outputs, d, h, w)
    pub fn forward(&self, x: &Tensor) -> Tensor {
        debug_assert_eq!(x.kind(), Kind::Float);
        x.conv3d(&self.weight, Some(&self.bias), 1, 0, 1, 1)
    }
}
