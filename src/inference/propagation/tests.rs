use super::*;
use crate::config;
use crate::preprocessing::Annotation;
use crate::synthesis::phantom;
use crate::tensor::{from_floats, to_channels, to_vec};
use crate::volume::{Image, LabelMap};

const CONFIG: registration::Config = registration::Config {
    enabled: true,
    size_vox: [32, 32, 32],
    reach_fraction: 0.25,
    iterations: 30,
    smoothness: 1.0,
    network_weight: 1.0,
    map_intensities: true,
};

/// Two persons.
fn subjects() -> [(Image, LabelMap); 2] {
    let cohort = phantom::Config { subjects: 2, size_vox: [20, 48, 48], spacing_mm: [12.0, 7.0, 7.0], seed: 5 };
    [0, 1].map(|index| phantom::subject(&cohort, index))
}

fn prepared(image: Image) -> PreparedScan {
    let config = config::load(None, &["preprocessing.size_vox=[8, 32, 32]".to_owned()]).unwrap();
    PreparedScan::new(image, &config.preprocessing)
}

fn propagated(support: (Image, Annotation), query: Image, config: &registration::Config) -> Propagated {
    let (scan, annotation) = (prepared(support.0), support.1);
    let classes = ClassMap::new([1, 2, 3, 4]).unwrap();
    let support = Support { scan: &scan, annotation };
    let (atlases, query) = (Atlases::new(&[support], &[None], &classes, config, Device::Cpu), prepared(query));
    atlases.propagated(&query, &atlases.overlay(&query), None, &[])
}

/// Mean Dice of the organs on the query's own grid, which is that of the labels.
fn dice(found: &Propagated, truth: &LabelMap) -> f64 {
    let channels = to_channels(&found.blend(&[1.0; 4]));
    assert_eq!(channels.shape()[1..], *truth.voxels.shape());
    let of_class = |class: usize| {
        let (mut both, mut all) = (0.0, 0.0);
        for (at, &label) in truth.voxels.indexed_iter() {
            let (is_found, is_true) = (channels[[class, at.0, at.1, at.2]] > 0.0, label == class as i32 + 1);
            both += f64::from(u8::from(is_found && is_true));
            all += f64::from(u8::from(is_found)) + f64::from(u8::from(is_true));
        }
        2.0 * both / all
    };
    (0..4).map(of_class).sum::<f64>() / 4.0
}

#[test]
fn labels_of_one_person_are_carried_to_another() {
    let [(image, labels), (query, truth)] = subjects();
    let support = || (image.clone(), Annotation::new(labels.clone(), None));
    let in_place = registration::Config { reach_fraction: 0.0, iterations: 0, ..CONFIG };
    let laid_over = dice(&propagated(support(), query.clone(), &in_place), &truth);
    let registered = dice(&propagated(support(), query, &CONFIG), &truth);
    assert!(registered > laid_over + 0.15 && registered > 0.6, "{laid_over} {registered}");
    let own = dice(&propagated(support(), image.clone(), &CONFIG), &labels);
    assert!(own > 0.9, "{own}");
}

#[test]
fn a_query_of_another_contrast_is_shown_with_that_of_its_support() {
    let [(image, labels), (query, _)] = subjects();
    let classes = ClassMap::new([1, 2, 3, 4]).unwrap();
    let support = prepared(image);
    let support = [Support { scan: &support, annotation: Annotation::new(labels, None) }];
    let plain = prepared(query.clone());
    // A negative.
    let turned = query.voxels.mapv(|v| 1000.0 - v);
    let turned = prepared(Image { voxels: turned, ..query });
    let correlation = |a: &NetworkVolume| (&a.image * plain.volume().image).mean(Kind::Float).double_value(&[]);
    let shown = |map_intensities: bool| {
        let config = registration::Config { map_intensities, ..CONFIG };
        let atlases = Atlases::new(&support, &[None], &classes, &config, Device::Cpu);
        [&plain, &turned].map(|query| correlation(&atlases.volume(query, &atlases.overlay(query))))
    };
    let [[as_it_is, other], [mapped, other_mapped]] = [shown(false), shown(true)];
    assert!(as_it_is > 0.99 && other < 0.8, "{as_it_is} {other}");
    assert!(mapped > 0.95 && other_mapped > 0.9, "{mapped} {other_mapped}");
}

#[test]
fn the_registration_follows_what_the_network_finds() {
    // The same scan twice; the network finds the class a tenth of the scan further along x in the query.
    let [(image, labels), _] = subjects();
    let (scan, classes) = (prepared(image), ClassMap::new([1]).unwrap());
    let about = |middle: f64| {
        let along_x = (Tensor::arange(32, (Kind::Float, Device::Cpu)) - middle) / 5.0;
        (-along_x.square()).exp().expand([1, 1, 8, 32, 32], false)
    };
    let [nz, ny, nx] = labels.voxels.shape() else { unreachable!("three axes") };
    let left = ndarray::Array3::from_shape_fn((*nz, *ny, *nx), |(_, _, x)| i32::from((6..18).contains(&x)));
    let annotation = Annotation::new(LabelMap { voxels: left, geometry: labels.geometry.clone() }, None);
    let support = [Support { scan: &scan, annotation }];
    // Mean place of the class along x, as a fraction of the scan.
    let place = |network_weight: f64| {
        let config = registration::Config { network_weight, ..CONFIG };
        let atlases = Atlases::new(&support, &[Some(about(8.0))], &classes, &config, Device::Cpu);
        let overlay = atlases.overlay(&scan);
        let found = to_channels(&atlases.propagated(&scan, &overlay, Some(&about(11.0)), &[]).labels.classes[0]);
        let at = |x: usize| (x as f64 + 0.5) / found.shape()[3] as f64;
        let sum: f64 = found.indexed_iter().map(|((.., x), v)| f64::from(*v) * at(x)).sum();
        sum / f64::from(found.sum())
    };
    let (by_looks, by_network) = (place(0.0), place(100.0));
    assert!((by_looks - 0.25).abs() < 0.05, "{by_looks}");
    assert!((by_network - 0.34).abs() < 0.04, "{by_network}");
}

#[test]
fn templates_hand_on_the_classes_about_which_they_are_believed() {
    // One scan is support, query and both templates, which lead a quarter of the scan further along x; of class 2 they are not believed.
    let [(image, labels), _] = subjects();
    let (scan, classes) = (prepared(image), ClassMap::new([1, 2]).unwrap());
    let [nz, ny, nx] = labels.voxels.shape() else { unreachable!("three axes") };
    let blocks = |x: usize| i32::from((6..18).contains(&x)) + 2 * i32::from((30..42).contains(&x));
    let blocks = ndarray::Array3::from_shape_fn((*nz, *ny, *nx), |(_, _, x)| blocks(x));
    let annotation = Annotation::new(LabelMap { voxels: blocks, geometry: labels.geometry.clone() }, None);
    let support = [Support { scan: &scan, annotation }];
    let atlases = Atlases::new(&support, &[None], &classes, &CONFIG, Device::Cpu);
    let template = || {
        let overlay = atlases.overlay(&scan);
        let fields = overlay.refined(atlases.moving(), &overlay.described(None, &CONFIG), &CONFIG);
        let mut along_x = fields[0].narrow(1, 2, 1);
        no_grad(|| along_x += 0.25);
        TemplateAtlas::new(overlay, fields, None, vec![true, false], &CONFIG)
    };
    let templates = [template(), template()];
    let at = |templates: &[&TemplateAtlas], class: usize| {
        let found = atlases.propagated(&scan, &atlases.overlay(&scan), None, templates);
        let class = to_channels(&found.labels.classes[class]);
        [3, 12, 24, 36].map(|x| class.slice(ndarray::s![0, .., .., x]).mean().expect("some"))
    };
    let close = |found: [f32; 4], expected: [f32; 4]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.05);
    let (third, both) = (1.0 / 3.0, templates.each_ref());
    assert!(close(at(&[], 0), [0.0, 1.0, 0.0, 0.0]), "{:?}", at(&[], 0));
    assert!(close(at(&both, 0), [2.0 * third, third, 0.0, 0.0]), "{:?}", at(&both, 0));
    assert!(close(at(&both, 1), [0.0, 0.0, 0.0, 1.0]), "{:?}", at(&both, 1));
}

#[test]
fn what_is_not_annotated_has_no_say() {
    let [(image, mut labels), _] = subjects();
    labels.voxels.slice_mut(ndarray::s![10.., .., ..]).fill(9);
    let annotation = Annotation::new(labels, Some(9));
    let found = propagated((image.clone(), annotation), image, &CONFIG);
    let channels = to_channels(&found.blend(&[1.0; 4]));
    let kept = |z: usize| channels.slice(ndarray::s![4, z, .., ..]).mean().expect("some");
    assert!(kept(2) < 0.01 && kept(17) > 0.99, "{} {}", kept(2), kept(17));
    assert!(channels.slice(ndarray::s![..4, 17, .., ..]).iter().all(|added| added.abs() < 0.05));
}

#[test]
fn shares_lie_between_the_network_and_the_propagated_labels() {
    // One class in four voxels, of which the last is not annotated.
    let row = |values: [f32; 4]| from_floats(&values, &[1, 1, 1, 1, 4]);
    let (known, class) = (row([1.0, 1.0, 1.0, 0.0]), row([0.0, 0.5, 1.0, 0.0]));
    let propagated = Propagated::new(WorkingGrid::whole([1, 1, 4]), known, vec![class]);
    let scores = Tensor::cat(&[row([1.0, 1.0, 1.0, 1.0]), row([3.0, 0.0, -1.0, 2.5])], 1);
    let blended = |share: f64| to_vec(&propagated.on_map([1, 1, 4]).blended(&scores, &[share]));
    assert_eq!(blended(0.0), [0.0, 0.0, 0.0, 0.0, 2.0, -1.0, -2.0, 1.5]);
    let sure = (1.02f32 / 0.02).ln();
    let close = |a: Vec<f32>, b: [f32; 4]| a[4..].iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(blended(1.0), [-sure, 0.0, sure, 1.5]), "{:?}", blended(1.0));
    assert!(close(blended(0.5), [1.0 - sure / 2.0, -0.5, sure / 2.0 - 1.0, 1.5]), "{:?}", blended(0.5));
}

#[test]
fn classes_that_touch_share_alike() {
    // Two classes; between them a voxel that is half of each, and one that is neither.
    let row = |values: [f32; 4]| from_floats(&values, &[1, 1, 1, 1, 4]);
    let classes = vec![row([1.0, 0.5, 0.0, 0.0]), row([0.0, 0.5, 1.0, 0.0])];
    let labels = LabelFractions { known: row([1.0; 4]), classes };
    let Blend { added, kept } = labels.blend(&[0.2, 0.8]);
    let of = |p: f32| [0.2 * (p + 0.02), 0.8 * (1.0 - p + 0.02)];
    let weighted = |[first, second]: [f32; 2]| (0.2 * first + 0.8 * second) / (first + second);
    let shares = [of(1.0), of(0.5), of(0.0), of(0.5)].map(weighted);
    let close = |a: &Tensor, b: [f32; 4]| to_vec(a).iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&kept, shares.map(|share| 1.0 - share)), "{:?}", to_vec(&kept));
    let between = (0.52f32 / 0.02).ln() * shares[1];
    let [first, second] = [&added[0], &added[1]].map(|added| added.double_value(&[0, 0, 0, 0, 1]) as f32);
    assert!((first - between).abs() < 1e-5 && first == second, "neither gains on the other: {first} {second}");
    assert_eq!(to_vec(&labels.masks())[3], 1.0, "the background's");
}
