//! The volumes that share a series: slices of another grid, and slices of other phases, echoes or contrasts at the same
//! places.

use super::header::{Header, Place, TRAITS, Tells};
use super::line;
use super::slice::square;
use crate::volume::vector::{cross, dot, unit};
use std::collections::BTreeMap;

/// Directions that differ by more than rounding are those of another volume.
const TURNED: f64 = 0.02;
/// The same of pixel spacings, as a fraction.
const RESPACED: f64 = 1e-3;
/// Slices no further apart than this share a place.
const SAME_PLACE_MM: f64 = 1e-2;
/// Volumes that lie between each other evenly have at least so many slices each.
const FEWEST: usize = 3;
/// Tags whose order tells the phases apart that were taken at each place.
const ORDERED: [&str; 5] = [
    "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
];

/// Slices of one volume.
#[derive(Debug)]
pub struct Part {
    /// In the order in which they were given.
    pub headers: Vec<Header>,
    /// The tag and the value that tells them from the other parts; empty where there is one part.
    pub told_by: String,
}

/// The parts of a series; and how many single slices of another orientation, as scouts are, were left out.
pub fn split(headers: Vec<Header>) -> (Vec<Part>, usize) {
    let (grids, odd) = by_grid(headers);
    let several = grids.len() > 1;
    let mut parts = Vec::new();
    for (index, grid) in grids.into_iter().enumerate() {
        for Part { headers, told_by } in by_traits(grid) {
            let grid = if several { format!("grid {}", index + 1) } else { String::new() };
            let told: Vec<String> = [grid, told_by].into_iter().filter(|text| !text.is_empty()).collect();
            parts.push(Part { headers, told_by: told.join(", ") });
        }
    }
    (parts, odd)
}

/// Slices of one size, spacing and orientation each. Where that leaves single slices, other than a scout beside a volume, the
/// slices stay together, and will be refused as what they are.
fn by_grid(headers: Vec<Header>) -> (Vec<Vec<Header>>, usize) {
    let mut grids: Vec<Vec<Header>> = Vec::new();
    for header in &headers {
        match grids.iter_mut().find(|grid| same_grid(&grid[0], header)) {
            Some(grid) => grid.push(header.clone()),
            None => grids.push(vec![header.clone()]),
        }
    }
    if grids.len() == 1 || grids.iter().all(|grid| grid.len() > 1) {
        return (grids, 0);
    }
    let volumes: Vec<&Vec<Header>> = grids.iter().filter(|grid| grid.len() >= FEWEST).collect();
    let is_scout = |grid: &&Vec<Header>| {
        let turned = |volume: &&Vec<Header>| match (grid[0].place, volume[0].place) {
            (Some(a), Some(b)) => is_turned(&a, &b),
            _ => false,
        };
        grid.len() < FEWEST && volumes.iter().all(turned)
    };
    let odd: usize = grids.iter().filter(is_scout).map(Vec::len).sum();
    if volumes.is_empty() || volumes.iter().map(|volume| volume.len()).sum::<usize>() + odd != headers.len() {
        return (vec![headers], 0);
    }
    grids.retain(|grid| grid.len() >= FEWEST);
    (grids, odd)
}

fn same_grid(a: &Header, b: &Header) -> bool {
    let (Some(p), Some(q)) = (a.place, b.place) else { return true };
    let far = |axis: usize| (p.spacing_mm[axis] - q.spacing_mm[axis]).abs() > RESPACED * p.spacing_mm[axis].abs();
    a.size == b.size && !far(0) && !far(1) && !is_turned(&p, &q)
}

fn is_turned(a: &Place, b: &Place) -> bool {
    (0..2).any(|v| (0..3).any(|i| (a.turn[v][i] - b.turn[v][i]).abs() > TURNED))
}

/// Slices whose tags say that they belong together. A tag divides a grid only where slices of both sides lie between each
/// other, and where it leaves evenly spaced slices: a tag that differs from slice to slice, or from block to block, of one
/// volume divides nothing.
fn by_traits(headers: Vec<Header>) -> Vec<Part> {
    let places: Option<Vec<f64>> = places(&headers);
    let whole = |headers| vec![Part { headers, told_by: String::new() }];
    let Some(places) = places.filter(|places| places.len() > 1) else { return whole(headers) };
    let all: Vec<usize> = (0..headers.len()).collect();
    let is_stack = is_even(&headers, &places, &all);
    let values = |tag: usize| headers.iter().map(move |header| header.traits[tag].as_str());
    let several = |tag: &usize| {
        let mut kinds: Vec<&str> = values(*tag).collect();
        kinds.sort_unstable();
        kinds.dedup();
        (2..=headers.len() / 2).contains(&kinds.len())
    };
    let tags: Vec<usize> = (0..TRAITS.len()).filter(several).collect();
    let mut sets: Vec<Vec<usize>> = tags.iter().map(|&tag| vec![tag]).collect();
    if !is_stack {
        let mut wider = sets.clone();
        for _ in 1..3 {
            let longer = |set: &Vec<usize>| {
                let last = set[set.len() - 1];
                let with = |tag: &usize| [set.as_slice(), &[*tag]].concat();
                tags.iter().filter(|&&tag| tag > last).map(with).collect::<Vec<_>>()
            };
            wider = wider.iter().flat_map(longer).collect();
            sets.extend(wider.iter().cloned());
        }
    }
    for set in sets {
        let (name, _, tells) = TRAITS[set[0]];
        let is_ct = headers[0].modality == "CT";
        if is_stack && tells != Tells::Always && !(is_ct && name == "AcquisitionNumber") {
            continue;
        }
        let mut parts: BTreeMap<Vec<&str>, Vec<usize>> = BTreeMap::new();
        for (index, header) in headers.iter().enumerate() {
            let key = set.iter().map(|&tag| header.traits[tag].as_str()).collect();
            parts.entry(key).or_default().push(index);
        }
        let fewest = if is_stack { FEWEST } else { 2 };
        let sound = parts.values().all(|part| part.len() >= fewest && is_even(&headers, &places, part));
        if sound && lie_between(&places, parts.values(), is_stack) {
            let told = |key: &[&str]| {
                let each = set.iter().zip(key).map(|(&tag, value)| {
                    format!("{} {}", TRAITS[tag].0, if value.is_empty() { "none" } else { value })
                });
                each.collect::<Vec<_>>().join(", ")
            };
            let mut parts: Vec<_> = parts.iter().collect();
            parts.sort_by_key(|(_, part)| part[0]);
            return parts.into_iter().map(|(key, part)| pick(&headers, part, told(key))).collect();
        }
    }
    match (!is_stack).then(|| by_order(&headers, &places)).flatten() {
        Some(parts) => parts,
        None => whole(headers),
    }
}

fn pick(headers: &[Header], part: &[usize], told_by: String) -> Part {
    Part { headers: part.iter().map(|&index| headers[index].clone()).collect(), told_by }
}

/// How far each slice lies along their common normal; None if one does not say where it lies.
fn places(headers: &[Header]) -> Option<Vec<f64>> {
    let normal = normal(headers.first()?)?;
    headers.iter().map(|header| Some(dot(header.place?.position_mm, normal))).collect()
}

fn normal(header: &Header) -> Option<[f64; 3]> {
    let [a, b] = header.place?.turn;
    square(a, b).map(|([a, b], _)| unit(cross(a, b)))
}

/// Whether these slices alone would be a volume.
fn is_even(headers: &[Header], places: &[f64], part: &[usize]) -> bool {
    let mut order = part.to_vec();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let points: Option<Vec<_>> = order.iter().map(|&index| Some(headers[index].place?.position_mm)).collect();
    let (Some(points), Some(normal)) = (points, normal(&headers[0])) else { return false };
    let pixel_mm = headers[0].place.map_or(1.0, |place| place.spacing_mm[0].min(place.spacing_mm[1]));
    points.len() < 2 || line::through(&points, normal, pixel_mm).is_ok()
}

/// Whether the ranges of some two parts, or of every two, share places.
fn lie_between<'a>(places: &[f64], parts: impl Iterator<Item = &'a Vec<usize>>, every: bool) -> bool {
    let ends = |part: &Vec<usize>| {
        let of = part.iter().map(|&index| places[index]);
        of.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)))
    };
    let ranges: Vec<_> = parts.map(ends).collect();
    let mut shared = (0..ranges.len()).flat_map(|i| {
        let ranges = &ranges;
        (0..i).map(move |j| ranges[i].0 <= ranges[j].1 && ranges[j].0 <= ranges[i].1)
    });
    if every { shared.all(|shared| shared) } else { shared.any(|shared| shared) }
}

/// As many slices at each place, which one tag brings into an order: the first of each place, the second, and so on.
fn by_order(headers: &[Header], places: &[f64]) -> Option<Vec<Part>> {
    let mut order: Vec<usize> = (0..headers.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let stops: Vec<&[usize]> = order.chunk_by(|&a, &b| (places[a] - places[b]).abs() < SAME_PLACE_MM).collect();
    let count = stops[0].len();
    if count < 2 || stops.len() < 2 || stops.iter().any(|stop| stop.len() != count) {
        return None;
    }
    for name in ORDERED {
        let tag = TRAITS.iter().position(|(known, ..)| *known == name).expect("one of the traits");
        let mut parts = vec![Vec::new(); count];
        let ordered = stops.iter().all(|stop| {
            let value = |&index: &usize| headers[index].traits[tag].parse::<f64>().map(|value| (value, index));
            let Ok(mut values) = stop.iter().map(value).collect::<Result<Vec<_>, _>>() else { return false };
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            values.iter().zip(&mut parts).for_each(|((_, index), part)| part.push(*index));
            values.windows(2).all(|pair| pair[0].0 < pair[1].0)
        });
        if ordered && parts.iter().all(|part| is_even(headers, places, part)) {
            let told = |rank: usize| format!("{name}, number {} at each place", rank + 1);
            return Some(parts.iter().enumerate().map(|(rank, part)| pick(headers, part, told(rank))).collect());
        }
    }
    None
}
