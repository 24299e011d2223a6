//! Of each label its largest component.

use super::connectivity::{Neighbourhood, components};
use ndarray::Array3;
use std::collections::BTreeMap;

/// Sets to 0 whatever does not touch the largest component of its label by a face; of equally large ones the first
/// stays. 0 is no label.
pub fn keep_largest(labels: &mut Array3<i32>) {
    let (component, count) = components(labels.view(), Neighbourhood::Faces);
    let mut sizes = vec![(0usize, 0i32); count + 1];
    for (&component, &label) in component.iter().zip(labels.iter()) {
        let entry = &mut sizes[component as usize];
        *entry = (entry.0 + 1, label);
    }
    let mut largest = BTreeMap::<i32, (usize, i32)>::new();
    for (component, &(size, label)) in (0..).zip(&sizes) {
        let best = largest.entry(label).or_insert((size, component));
        if size > best.0 {
            *best = (size, component);
        }
    }
    for (label, &component) in labels.iter_mut().zip(&component) {
        if *label != 0 && largest[label].1 != component {
            *label = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn each_label_keeps_its_largest_component_and_touching_by_an_edge_does_not_count() {
        let mut labels = array![[[1, 1, 0, 2, 2], [0, 0, 1, 0, 2], [2, 0, 1, 1, 0], [2, 0, 0, 0, 7]]];
        keep_largest(&mut labels);
        assert_eq!(labels, array![[[0, 0, 0, 2, 2], [0, 0, 1, 0, 2], [0, 0, 1, 1, 0], [0, 0, 0, 0, 7]]]);
        let mut nothing = Array3::<i32>::zeros((2, 3, 4));
        keep_largest(&mut nothing);
        assert_eq!(nothing, Array3::<i32>::zeros((2, 3, 4)));
    }
}
