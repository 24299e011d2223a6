//! Evaluation protocols: the slices of the query that are scored, and the annotation of the support.

use super::overlap::{dice, dice_in_z_range, z_range};
use super::surface::Surface;
use ndarray::{ArrayView3, s};

/// Evaluation protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The whole volume.
    Full,
    /// Only the query's true z-range of the class, as in the published 2D methods. This reveals the range: a slice-wise
    /// network receives these slices alone, and a network of volumes can be constrained to them (`split.ep1_reveals_range`).
    Ep1,
    /// The whole volume, from a support of which only the organ's middle slice is annotated (Hansen et al. 2022,
    /// *Anomaly detection-inspired few-shot medical image segmentation through self-supervision with supervoxels*).
    Ep2,
}

impl Protocol {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Ep1 => "ep1",
            Self::Ep2 => "ep2",
        }
    }

    /// Dice of `label` under this protocol; `None` if the truth does not show the class.
    pub fn dice(self, prediction: ArrayView3<i32>, truth: ArrayView3<i32>, label: i32) -> Option<f64> {
        match self {
            Self::Full | Self::Ep2 => dice(prediction, truth, label),
            Self::Ep1 => dice_in_z_range(prediction, truth, label),
        }
    }

    /// Distances between the surfaces of `label` under this protocol, with the spacing along z, y, x; `None` if the
    /// truth does not show the class. EP1 cuts both maps at the ends of the range, and the cut faces count as surface
    /// in both.
    pub fn surface(
        self,
        prediction: ArrayView3<i32>,
        truth: ArrayView3<i32>,
        label: i32,
        spacing_mm: [f64; 3],
    ) -> Option<Surface> {
        assert_eq!(prediction.shape(), truth.shape(), "prediction and truth lie on one grid");
        let range = match self {
            Self::Full | Self::Ep2 => 0..truth.dim().0,
            Self::Ep1 => z_range(truth, label)?,
        };
        Surface::of(prediction.slice(s![range.clone(), .., ..]), truth.slice(s![range, .., ..]), label, spacing_mm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn ep1_forgives_what_lies_above_and_below_and_ep2_does_not() {
        let truth = Array3::from_shape_fn((6, 4, 4), |(z, _, _)| i32::from((2..4).contains(&z)));
        let everywhere = Array3::from_elem((6, 4, 4), 1);
        let of = |protocol: Protocol| {
            let surface = protocol.surface(everywhere.view(), truth.view(), 1, [5.0, 1.0, 1.0]).unwrap();
            (protocol.dice(everywhere.view(), truth.view(), 1).unwrap(), surface)
        };
        assert_eq!(of(Protocol::Ep1), (1.0, Surface { hd95_mm: Some(0.0), assd_mm: Some(0.0), nsd: 1.0 }));
        assert_eq!(of(Protocol::Full), of(Protocol::Ep2));
        assert_eq!(of(Protocol::Full).0, 0.5);
        assert_eq!(of(Protocol::Full).1.hd95_mm, Some(10.0));
    }

    #[test]
    fn names_are_those_of_the_files() {
        for protocol in [Protocol::Full, Protocol::Ep1, Protocol::Ep2] {
            assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.name());
        }
    }
}
