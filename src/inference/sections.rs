//! Slice-wise protocols: sections of a query's slices from single slices of a support.

use super::constraints::single_component::single_component_values;
use super::segmentation::Segmentation;
use super::supports::{NetworkVolume, PreparedScan, Support};
use super::{Segmenter, SliceRanges, scorer};
use crate::volume::ClassMap;
use std::ops::Range;

impl Segmenter<'_> {
    /// One class of a query, each section of whose slices is compared with one annotated slice of the support: pairs of a slice of the
    /// support and a range of slices of the query, in slices of the scans.
    pub fn segment_sections<'q>(
        &'q self,
        support: &Support,
        query: &'q PreparedScan,
        sections: &[(usize, Range<usize>)],
        classes: &'q ClassMap,
    ) -> Segmentation<'q> {
        let (shot, volume) = (support.shot(classes), query.volume());
        let scores = scorer::absent(&volume.image, classes.len());
        for (slice, section) in sections {
            let (first, count) = query.grid.slices_of(section);
            let (first, count) = (first as i64, count as i64);
            let of_slice = shot.slice(support.scan.grid.slice_of(*slice) as i64);
            let section = NetworkVolume { image: volume.image.narrow(2, first, count), ..volume };
            let found = self.fit_shots(&[of_slice], classes.len()).scores(&section);
            scores.narrow(2, first, count).copy_(&found.to_device(scores.device()));
        }
        let slices: Vec<usize> = sections.iter().map(|(slice, _)| *slice).collect();
        let annotation = support.annotation.on_slices(&slices);
        let single = single_component_values(&annotation, &self.config.single_component);
        self.finish(query, &scores, None, classes, (&single, self.edges(classes).as_ref()), &SliceRanges::unknown())
    }
}
