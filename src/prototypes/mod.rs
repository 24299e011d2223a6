//! Prototypes of the classes from support features and masks: paper, section 3.4; SSL-ALPNet (Ouyang et al. 2020).

pub mod local;

use crate::error::{Error, Result};
use crate::tensor::{rows, to_vec};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Section `[prototypes]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Kind of prototypes.
    pub method: Method,
    /// Pooling windows in training.
    pub train_window: Window,
    /// Pooling windows at test.
    pub test_window: Window,
    /// A window belongs to a class if the class fills more than this fraction of it (T, Eq. 3.1).
    pub threshold: f64,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A window has a number outside of 1 to 512, or the threshold is not a fraction below 1.
    pub fn check(&self) -> Result<()> {
        self.train_window.check("prototypes.train_window")?;
        self.test_window.check("prototypes.test_window")?;
        if !(0.0..1.0).contains(&self.threshold) {
            let found = self.threshold.to_string();
            return Err(Error::invalid("prototypes.threshold", "a fraction in [0, 1)", found, "change this key"));
        }
        Ok(())
    }
}

/// Kind of prototypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Adaptive local pooling: one prototype for each window, and the masked mean of each foreground class.
    Alp,
    /// One masked mean for each class (PANet).
    Global,
}

/// Non-overlapping pooling windows, z y x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Window {
    /// Voxels of the feature map in a window; a rest at the far ends is not pooled.
    Size([i64; 3]),
    /// Number of windows along each axis, as even as the size allows.
    Grid([i64; 3]),
}

impl Window {
    fn check(&self, key: &str) -> Result<()> {
        let (Self::Size(counts) | Self::Grid(counts)) = self;
        if counts.iter().any(|count| !(1..=512).contains(count)) {
            return Err(Error::invalid(key, "three numbers from 1 to 512", format!("{counts:?}"), "change this key"));
        }
        Ok(())
    }
}

/// Prototypes, one for each row of a tensor (P, C).
#[derive(Debug)]
pub struct Prototypes {
    /// (P, C) for the background of all classes together (one entry), or of each class.
    pub background: Vec<Tensor>,
    /// (P, C) for each class.
    pub foreground: Vec<Tensor>,
    /// Number of support voxels of each entry: the backgrounds, then the classes. `None` if the annotated part of the
    /// supports is too small for an estimate of the classes' volumes.
    pub sizes_vox: Option<Vec<f64>>,
}

/// The classes that compete with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Competition {
    /// One softmax over background and all foreground classes.
    Joint,
    /// Each class against everything else.
    OneVsRest,
}

/// One annotated volume as the network receives it.
#[derive(Debug)]
pub struct EncodedSupport {
    /// Features (1, C, D, H, W).
    pub features: Tensor,
    /// Fraction of each voxel that is annotated as each class, (1, 1 + K, D, H, W): background first.
    pub masks: Tensor,
    /// Fraction of each voxel that is annotated, the sum of its masks, (1, 1, D, H, W); `None` if every voxel is fully
    /// annotated.
    pub known: Option<Tensor>,
}

impl EncodedSupport {
    /// A support with a complete annotation. `classes` are class indices (D', H', W') from 0 to `count`, at any
    /// resolution; 0 is background.
    pub fn new(features: Tensor, classes: &Tensor, count: i64) -> Self {
        let masks = resized(one_hot(classes, count, features.kind()), &features);
        Self { features, masks, known: None }
    }

    /// A support of which only a fraction `known` (1, 1, D', H', W') of each voxel is annotated; `classes` are those of
    /// that part.
    pub fn sparse(features: Tensor, classes: &Tensor, count: i64, known: &Tensor) -> Self {
        let known = known.to_kind(features.kind());
        let masks = resized(one_hot(classes, count, features.kind()) * &known, &features);
        let known = Some(resized(known, &features));
        Self { features, masks, known }
    }
}

/// (D, H, W) -> (1, 1 + count, D, H, W)
fn one_hot(classes: &Tensor, count: i64, kind: Kind) -> Tensor {
    classes.one_hot(count + 1).permute([3, 0, 1, 2]).unsqueeze(0).to_kind(kind).contiguous()
}

/// Mean fractions at the resolution of the features.
fn resized(fractions: Tensor, features: &Tensor) -> Tensor {
    let size = &features.size()[2..];
    if fractions.size()[2..] == *size { fractions } else { fractions.adaptive_avg_pool3d(size) }
}

/// The prototypes of all `supports` together (K-shot pooling).
///
/// A class that no support shows has no prototype, i.e. an entry of shape (0, C), and is never predicted.
///
/// ```
/// use ssl3d::prototypes::{Competition, Config, Method, EncodedSupport, Window, extract};
/// let features = tch::Tensor::from_slice(&[1f32, 1.0, 5.0, 7.0]).view([1, 1, 1, 1, 4]); // (1, C, D, H, W)
/// let classes = tch::Tensor::from_slice(&[0i64, 0, 1, 1]).view([1, 1, 4]); // (D, H, W)
/// let window = Window::Size([1, 1, 2]);
/// let config = Config { method: Method::Global, train_window: window, test_window: window, threshold: 0.95 };
/// let prototypes = extract(&[EncodedSupport::new(features, &classes, 1)], window, &config, Competition::Joint);
/// assert!((prototypes.foreground[0].double_value(&[0, 0]) - 6.0).abs() < 1e-3);
/// assert!((prototypes.background[0].double_value(&[0, 0]) - 1.0).abs() < 1e-3);
/// ```
pub fn extract(supports: &[EncodedSupport], window: Window, config: &Config, competition: Competition) -> Prototypes {
    let means: Vec<_> = supports.iter().map(|support| Means::of(support, window, config, competition)).collect();
    let roles = means[0].global.len();
    let pooled = |of: &dyn Fn(&Means) -> Tensor| Tensor::cat(&means.iter().map(of).collect::<Vec<_>>(), 0);
    let local = |role: usize| pooled(&|means| means.local[role].shallow_clone());
    let global = |role: usize| pooled(&|means| means.global[role].shallow_clone());
    let of_background = |role: usize| {
        let local = local(role);
        // Nowhere a window of pure background, or none asked for: its mean stands in.
        if local.size()[0] > 0 { local } else { global(role) }
    };
    let of_class = |role: usize| {
        let part = |means: &Means| Tensor::cat(&[&means.local[role], &means.global[role]], 0);
        pooled(&part)
    };
    let first_class = roles + 1 - supports[0].masks.size()[1] as usize;
    Prototypes {
        background: (0..first_class).map(of_background).collect(),
        foreground: (first_class..roles).map(of_class).collect(),
        sizes_vox: Some((0..roles).map(|role| means.iter().map(|means| means.sizes[role]).sum()).collect()),
    }
}

/// The prototypes of one support by role: the backgrounds, then the classes.
struct Means {
    /// Window prototypes (P, C) of each role; none for global prototypes.
    local: Vec<Tensor>,
    /// Masked mean (1, C) of each role, (0, C) if the mask is empty.
    global: Vec<Tensor>,
    /// Number of voxels of each role.
    sizes: Vec<f64>,
}

impl Means {
    fn of(support: &EncodedSupport, window: Window, config: &Config, competition: Competition) -> Self {
        let EncodedSupport { features, masks, known } = support;
        let (kind, device) = (features.kind(), features.device());
        let masks = match competition {
            Competition::Joint => masks.shallow_clone(),
            Competition::OneVsRest => {
                let each = masks.narrow(1, 1, masks.size()[1] - 1);
                let rest = known.as_ref().map_or_else(|| 1.0 - &each, |known| known - &each);
                Tensor::cat(&[rest, each], 1)
            }
        }; // (1, roles, D, H, W)
        let roles = masks.size()[1];
        let flat = masks.reshape([roles, -1]);
        let voxels = rows(features);
        // Eq. 3.2: sum_x f(x) y(x) / (sum_x y(x) + 1e-5)
        let sizes = flat.sum_dim_intlist([1i64].as_slice(), true, kind); // (roles, 1)
        let global = flat.matmul(&voxels) / (&sizes + 1e-5); // (roles, C)
        let (pooled, filled) = match (config.method, known) {
            (Method::Alp, None) => (local::pool(features, window), local::pool(&masks, window).transpose(0, 1)),
            (Method::Alp, Some(known)) => local::pool_known(features, &masks, known, window),
            (Method::Global, _) => (voxels.narrow(0, 0, 0), sizes.narrow(1, 0, 0)),
        }; // (windows, C), (roles, windows)

        // The only place where the host waits for the device.
        let numbers = to_vec(&Tensor::cat(&[&sizes, &filled.gt(config.threshold).to_kind(kind)], 1));
        let (mut local, mut existing, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (role, numbers) in numbers.chunks_exact(numbers.len() / roles as usize).enumerate() {
            let [size, filled @ ..] = numbers else { unreachable!("a size before the windows") };
            let windows = (0i64..).zip(filled).filter(|(_, filled)| **filled > 0.0).map(|(window, _)| window);
            let windows = Tensor::from_slice(&windows.collect::<Vec<i64>>()).to_device(device);
            local.push(pooled.index_select(0, &windows));
            counts.push(f64::from(*size));
            existing.push(global.narrow(0, role as i64, i64::from(*size > 0.0)));
        }
        Self { local, global: existing, sizes: counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn config(method: Method) -> Config {
        let window = Window::Size([2, 2, 2]);
        Config { method, train_window: window, test_window: window, threshold: 0.95 }
    }

    /// From our own stream: libtorch's generator is shared by all tests that run at the same time.
    fn features(seed: u64) -> Tensor {
        let mut rng = crate::rng::stream(seed, "features", 0);
        let values: Vec<f64> = (0..5 * 64).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_slice(&values).view([1, 5, 4, 4, 4])
    }

    fn support(seed: u64) -> EncodedSupport {
        let classes = Tensor::zeros([4, 4, 4], (Kind::Int64, Device::Cpu));
        let _ = classes.narrow(0, 0, 2).narrow(1, 0, 2).narrow(2, 0, 3).fill_(1);
        let _ = classes.narrow(0, 3, 1).narrow(1, 3, 1).fill_(2);
        EncodedSupport::new(features(seed), &classes, 2)
    }

    fn sizes(of: &[Tensor]) -> Vec<i64> {
        of.iter().map(|p| p.size()[0]).collect()
    }

    #[test]
    fn shots_are_pooled_side_by_side() {
        let alp = config(Method::Alp);
        let one = extract(&[support(1)], alp.train_window, &alp, Competition::Joint);
        let two = extract(&[support(1), support(2)], alp.train_window, &alp, Competition::Joint);
        // Class 1 fills one window of 2x2x2 wholly; class 2 none. Four are pure background.
        assert_eq!(sizes(&one.foreground), [2, 1]);
        assert_eq!(sizes(&two.foreground), [4, 2]);
        assert_eq!(2 * one.background[0].size()[0], two.background[0].size()[0]);
        assert_eq!((one.sizes_vox, two.sizes_vox), (Some(vec![48.0, 12.0, 4.0]), Some(vec![96.0, 24.0, 8.0])));
        let first = two.foreground[0].narrow(0, 0, 2);
        assert!((first - &one.foreground[0]).abs().max().double_value(&[]) < 1e-15);
    }

    #[test]
    fn one_against_the_rest_counts_the_other_classes_as_background() {
        let alp = config(Method::Alp);
        let joint = extract(&[support(1)], alp.train_window, &alp, Competition::Joint);
        let rest = extract(&[support(1)], alp.train_window, &alp, Competition::OneVsRest);
        assert_eq!(rest.background.len(), 2);
        // The window that class 1 fills and the one that it half fills are background for class 2.
        assert_eq!(rest.background[1].size()[0], joint.background[0].size()[0] + 2);
    }

    #[test]
    fn a_window_over_everything_equals_the_global_mean() {
        let (features, mask) = (Tensor::randn([1, 3, 2, 4, 6], F64), Tensor::ones([1, 1, 2, 4, 6], F64));
        let masks = Tensor::cat(&[&mask.zeros_like(), &mask], 1);
        let support = EncodedSupport { features, masks, known: None };
        let means = Means::of(&support, Window::Grid([1, 1, 1]), &config(Method::Alp), Competition::Joint);
        assert!(
            (&means.local[1] - &means.global[1]).abs().max().double_value(&[]) < 1e-6,
            "up to the 1e-5 in the denominator"
        );
    }

    /// A support of which some voxels are known, some in part and some not at all, with `known`.
    fn sparse_support(seed: u64) -> (EncodedSupport, Vec<f64>) {
        let mut rng = crate::rng::stream(seed, "known", 0);
        let mut known: Vec<f64> = (0..64).map(|_| [0.0, 0.25, 1.0][rng.random_range(0..3)]).collect();
        known[48..].fill(0.0); // the last slice
        known[32..36].copy_from_slice(&[0.0, 0.01, 0.0, 0.0]); // of slices 2 and 3, the windows at y 0
        known[36..40].copy_from_slice(&[0.0, 0.0, 0.3, 0.0]);
        let dense = support(seed);
        let classes = dense.masks.argmax(1, false).squeeze_dim(0);
        let map = Tensor::from_slice(&known).view([1, 1, 4, 4, 4]);
        (EncodedSupport::sparse(dense.features, &classes, 2, &map), known)
    }

    /// The sums over annotated voxels written out, for windows of 2 x 2 x 2 of a map of 4 x 4 x 4: prototypes of the
    /// windows of `role`, and its mean.
    fn reference_sparse(
        support: &EncodedSupport,
        known: &[f64],
        role: i64,
        against_rest: bool,
    ) -> (Vec<[f64; 5]>, [f64; 5]) {
        let voxels = || (0..4i64).flat_map(|z| (0..4i64).flat_map(move |y| (0..4i64).map(move |x| [z, y, x])));
        let known = |[z, y, x]: [i64; 3]| known[(16 * z + 4 * y + x) as usize];
        let class = |[z, y, x]: [i64; 3]| if z < 2 && y < 2 && x < 3 { 1 } else { 2 * i64::from(z == 3 && y == 3) };
        // The roles are 0, 1, 2, or not 1, not 2, 1, 2.
        let belongs = |at| match (against_rest, role) {
            (true, 0 | 1) => class(at) != role + 1,
            (true, _) => class(at) == role - 1,
            (false, _) => class(at) == role,
        };
        let mean = |inside: &dyn Fn([i64; 3]) -> bool, guard: f64| {
            let (mut sum, mut weight) = ([0.0; 5], guard);
            for at in voxels().filter(|at| inside(*at)) {
                let [z, y, x] = at;
                (0..5).for_each(|c| sum[c as usize] += known(at) * support.features.double_value(&[0, c, z, y, x]));
                weight += known(at);
            }
            sum.map(|sum| sum / weight)
        };
        let mut windows = Vec::new();
        for window in (0..8i64).map(|window| [window / 4, window / 2 % 2, window % 2]) {
            let inside = |at: [i64; 3]| at.map(|i| i / 2) == window;
            let total: f64 = voxels().filter(|at| inside(*at)).map(known).sum();
            let own: f64 = voxels().filter(|at| inside(*at) && belongs(*at)).map(known).sum();
            // Four voxels make a slice of the window.
            if total >= 0.05 * 4.0 && own / total > 0.95 {
                windows.push(mean(&inside, 0.0));
            }
        }
        (windows, mean(&belongs, 1e-5))
    }

    #[test]
    fn prototypes_of_a_sparse_support_equal_nested_loops_over_its_annotated_voxels() {
        let alp = config(Method::Alp);
        let mut counts = Vec::new();
        for seed in 0..5 {
            let (support, known) = sparse_support(seed);
            for (competition, roles) in [(Competition::Joint, 3), (Competition::OneVsRest, 4)] {
                let means = Means::of(&support, alp.train_window, &alp, competition);
                for role in 0..roles {
                    let (windows, mean) =
                        reference_sparse(&support, &known, role, competition == Competition::OneVsRest);
                    let (local, global) = (&means.local[role as usize], &means.global[role as usize]);
                    assert_eq!(local.size(), [windows.len() as i64, 5], "seed {seed}, {competition:?}, role {role}");
                    let close = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
                    for (row, window) in (0..).zip(&windows) {
                        assert!((0..5).all(|c| close(local.double_value(&[row, c]), window[c as usize])));
                    }
                    // Class 2 stands in the last slice, which nobody has annotated.
                    let absent = role == roles - 1;
                    assert_eq!(global.size()[0], i64::from(!absent));
                    assert!(absent || (0..5).all(|c| close(global.double_value(&[0, c]), mean[c as usize])));
                    counts.push(windows.len());
                }
            }
        }
        assert!(counts.contains(&0) && counts.iter().any(|&count| count > 3), "windows of each kind: {counts:?}");
    }

    #[test]
    fn a_support_that_is_annotated_all_over_is_a_dense_one() {
        for size in [[4, 4, 4], [2, 2, 2]] {
            let features = features(3).adaptive_avg_pool3d(size);
            let classes = support(3).masks.argmax(1, false).squeeze_dim(0);
            let dense = EncodedSupport::new(features.shallow_clone(), &classes, 2);
            let sparse = EncodedSupport::sparse(features, &classes, 2, &Tensor::ones([1, 1, 4, 4, 4], F64));
            for (method, window) in [
                (Method::Alp, Window::Size([2, 2, 2])),
                (Method::Alp, Window::Grid([2, 2, 1])),
                (Method::Global, Window::Grid([1, 1, 1])),
            ] {
                for competition in [Competition::Joint, Competition::OneVsRest] {
                    let [a, b] = [&dense, &sparse]
                        .map(|s| extract(std::slice::from_ref(s), window, &config(method), competition));
                    for (a, b) in a.background.iter().chain(&a.foreground).zip(b.background.iter().chain(&b.foreground))
                    {
                        assert!(a.size() == b.size() && a.allclose(b, 1e-12, 1e-12, false), "{size:?} {window:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn features_where_nothing_is_annotated_change_no_prototype() {
        let alp = config(Method::Alp);
        let (support, known) = sparse_support(1);
        let unknown = Tensor::from_slice(&known).view([1, 1, 4, 4, 4]).eq(0.0);
        let other = EncodedSupport {
            features: support.features.where_self(&unknown.logical_not(), &Tensor::full_like(&support.features, 1e3)),
            masks: support.masks.shallow_clone(),
            known: support.known.as_ref().map(Tensor::shallow_clone),
        };
        for competition in [Competition::Joint, Competition::OneVsRest] {
            let [a, b] =
                [&support, &other].map(|s| extract(std::slice::from_ref(s), alp.train_window, &alp, competition));
            for (a, b) in a.background.iter().chain(&a.foreground).zip(b.background.iter().chain(&b.foreground)) {
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn a_class_that_is_absent_has_no_prototype() {
        let classes = Tensor::zeros([4, 4, 4], (Kind::Int64, Device::Cpu));
        let absent = EncodedSupport::new(Tensor::randn([1, 5, 4, 4, 4], F64), &classes, 1);
        for method in [Method::Alp, Method::Global] {
            let config = config(method);
            let prototypes = extract(std::slice::from_ref(&absent), config.train_window, &config, Competition::Joint);
            assert_eq!(sizes(&prototypes.foreground), [0]);
        }
    }

    #[test]
    fn masks_at_a_lower_resolution_hold_the_fraction_of_each_class() {
        let classes = Tensor::zeros([2, 4, 4], (Kind::Int64, Device::Cpu));
        let _ = classes.narrow(0, 0, 1).narrow(1, 0, 2).narrow(2, 0, 2).fill_(1);
        let support = EncodedSupport::new(Tensor::randn([1, 2, 1, 2, 2], F64), &classes, 1);
        assert_eq!(crate::tensor::to_vec(&support.masks), [0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0]);
    }
}
