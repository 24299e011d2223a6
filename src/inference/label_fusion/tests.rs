use super::*;
use crate::config::{self, Config};
use crate::inference::supports::Shot;
use crate::preprocessing::WorkingGrid;
use tch::{Device, Kind};

/// A small network whose classes compete.
fn setup(more: &[&str]) -> (Network, Config) {
    let set = ["features.f_maps=4", "similarity.competition=joint", "prototypes.test_window={size=[1, 2, 2]}"];
    let set: Vec<String> = set.iter().chain(more).map(|text| (*text).to_owned()).collect();
    let config = config::load(None, &set).unwrap();
    (Network::new(&config.network(), Device::Cpu, 0), config)
}

fn fuse(
    (network, config): &(Network, Config),
    features: &Tensor,
    supervoxels: Option<Array3<i32>>,
    voters: &Voters,
    ranges: &[DepthRange],
) -> (Tensor, Vec<usize>) {
    let fusion = Fusion { network, config: &config.inference };
    let query = EncodedScan { supervoxels, ..scan(features.shallow_clone()) };
    let (scores, missing) = fusion.fuse_labels(&fusion.compare(query, voters, None), voters, ranges);
    (similarity::argmax(&scores), missing.into_iter().map(Class::index).collect())
}

/// Features (1, 2, 1, 4, 4) whose left half is (0, 1) and whose right half is (1, 0).
fn halves() -> Tensor {
    let of_channel = |left: f32| [left, left, 1.0 - left, 1.0 - left].repeat(4);
    Tensor::from_slice(&[of_channel(0.0), of_channel(1.0)].concat()).view([1, 2, 1, 4, 4])
}

/// Of which nothing but the features counts.
fn scan(features: Tensor) -> EncodedScan {
    EncodedScan { features, supervoxels: None }
}

/// Templates to which no labels were propagated.
fn unlabelled(scans: impl IntoIterator<Item = EncodedScan>) -> Vec<templates::Unlabelled> {
    scans.into_iter().map(|scan| templates::Unlabelled { scan, propagated: None }).collect()
}

fn prototypes(background: &[f32], foreground: &[f32]) -> Prototypes {
    let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 2])];
    Prototypes { background: rows(background), foreground: rows(foreground), sizes_vox: None }
}

/// A support without templates and without limits on the volume.
fn alone(support: Prototypes) -> Voters {
    Voters {
        support,
        features: vec![],
        templates: vec![],
        indices: vec![],
        belief: Belief::default(),
        offered: 0,
        expected: vec![],
        min_fractions: vec![None],
        labels: vec![],
        shown: None,
        prior: None,
        shares: vec![0.0],
        atlases: vec![],
        overlaps: vec![],
    }
}

#[test]
fn templates_outvote_the_support_unless_they_miss_a_class() {
    let setup = setup(&[]);
    let left_is_found = |voters: &Voters| {
        let (found, _) = fuse(&setup, &halves(), None, voters, &[]);
        (found.int64_value(&[0, 0, 0]) == 1, found.int64_value(&[0, 0, 3]) == 1)
    };
    let left = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
    let right = || prototypes(&[0.0, 1.0], &[1.0, 0.0]);
    let nothing = || prototypes(&[1.0, 0.0, 0.0, 1.0], &[-1.0, -1.0]);
    let voters = |support, templates: Vec<Prototypes>, volume_vox: f64| Voters {
        support,
        belief: Belief::all(templates.len(), 1),
        indices: (0..templates.len()).collect(),
        offered: templates.len(),
        templates,
        features: vec![],
        expected: vec![Expected { volume_vox, evidence_mass: 20.0 * volume_vox }],
        min_fractions: vec![None],
        labels: vec![],
        shown: None,
        prior: None,
        shares: vec![0.0],
        atlases: vec![],
        overlaps: vec![],
    };
    assert_eq!(left_is_found(&voters(left(), vec![], 0.0)), (true, false));
    assert_eq!(left_is_found(&voters(left(), vec![right(), right()], 8.0)), (false, true));
    // Templates that find nothing in this query are passed over if they find something in each other.
    assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 8.0)), (true, false));
    assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 0.0)), (false, false));
}

#[test]
fn a_query_that_is_a_template_has_no_say_in_itself() {
    let (network, config) = setup(&[]);
    let fusion = Fusion { network: &network, config: &config.inference };
    let rows = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
    let templates = vec![rows(), rows(), rows()];
    let voters = Voters { templates, indices: vec![0, 2, 5], belief: Belief::all(3, 1), ..alone(rows()) };
    let voting = |itself: Option<usize>| {
        let compared = fusion.compare(scan(halves()), &voters, itself);
        assert_eq!(compared.similarities.len(), 1 + compared.voting.len());
        assert_eq!(compared.belief.about(None).len(), compared.voting.len());
        compared.voting
    };
    assert_eq!(voting(None), [0, 1, 2]);
    assert_eq!(voting(Some(2)), [0, 2]);
    assert_eq!(voting(Some(1)), [0, 1, 2], "a template about which nothing is believed has no say anyway");
}

#[test]
fn a_class_that_fusion_misses_comes_from_the_support_and_the_others_stay() {
    let setup = setup(&[]);
    let axis = |hot: usize| (0..3).map(move |c| if c == hot { 1.0f32 } else { 0.0 });
    let rows = |of: &[usize]| {
        let values: Vec<f32> = of.iter().flat_map(|&hot| axis(hot)).collect();
        Tensor::from_slice(&values).view([-1, 3])
    };
    let nowhere = || Tensor::from_slice(&[-1.0f32; 3]).view([1, 3]);
    let set = |background: Tensor, foreground: [Tensor; 2]| Prototypes {
        background: vec![background],
        foreground: foreground.into(),
        sizes_vox: None,
    };
    let columns = [0, 1, 2, 2]; // of the axis that a column's features lie on
    let channels: Vec<f32> =
        (0..3).flat_map(|c| columns.map(|hot| if hot == c { 1.0f32 } else { 0.0 }).repeat(4)).collect();
    let features = Tensor::from_slice(&channels).view([1, 3, 1, 4, 4]);
    let found = |volumes_vox: [f64; 2]| {
        let template = || set(rows(&[0, 1]), [rows(&[2]), nowhere()]);
        let voters = Voters {
            support: set(rows(&[2]), [rows(&[0]), rows(&[1])]),
            features: vec![],
            templates: vec![template(), template()],
            belief: Belief::all(2, 2),
            offered: 2,
            expected: volumes_vox.map(|volume_vox| Expected { volume_vox, evidence_mass: 20.0 * volume_vox }).into(),
            min_fractions: vec![None; 2],
            labels: vec![],
            shown: None,
            prior: None,
            shares: vec![0.0; 2],
            indices: vec![0, 1],
            atlases: vec![],
            overlaps: vec![],
        };
        let (labels, missing) = fuse(&setup, &features, None, &voters, &[]);
        ([0, 1, 2].map(|column| labels.int64_value(&[0, 1, column])), missing)
    };
    assert_eq!(found([8.0, 0.0]), ([0, 0, 1], vec![]));
    assert_eq!(found([8.0, 4.0]), ([0, 2, 1], vec![1]));
}

/// The class is the left half of the support. One template looks like the support, in three there is nothing but background.
#[test]
fn a_template_that_does_not_find_the_class_in_the_support_again_has_no_say() {
    let found = |least: f64| {
        let (network, config) = setup(&[&format!("inference.min_cycle_fraction={least}")]);
        let fusion = Fusion { network: &network, config: &config.inference };
        let classes = Tensor::from_slice(&[1i64, 1, 0, 0].repeat(4)).view([1, 4, 4]);
        let annotated = [EncodedSupport::new(halves(), &classes, 1)];
        let background = halves().narrow(4, 2, 2).repeat([1, 1, 1, 1, 2]);
        let scan = |features: &Tensor| scan(features.shallow_clone());
        let templates = [&halves(), &background, &background, &background].map(scan);
        let support = network.test_prototypes(&annotated);
        let voters = fusion.voters(support, &annotated, unlabelled(templates), vec![None], vec![0.0]);
        let (scores, _) = fusion.fuse_labels(&fusion.compare(scan(&halves()), &voters, None), &voters, &[]);
        let labels = similarity::argmax(&scores);
        (voters.templates.len(), voters.without_say(), [0, 3].map(|column| labels.int64_value(&[0, 1, column])))
    };
    assert_eq!(found(0.6), (1, vec![false], [1, 0]));
    assert_eq!(found(0.0), (4, vec![false], [0, 0]), "three of five voters see nothing");
}

/// Of three templates two look enough like the support to be found in, and the third looks like those two.
#[test]
fn in_a_second_round_templates_find_the_class_in_each_other() {
    let found = |rounds: u32| {
        let (network, config) = setup(&[&format!("inference.template_rounds={rounds}")]);
        let unit = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let (class, rest) = (unit(0.0), unit(125.0));
        // The class on the left, at so many degrees from the support's.
        let seen = |degrees: f32| {
            let of_channel = |c: usize| [unit(degrees)[c], unit(degrees)[c], rest[c], rest[c]].repeat(4);
            let features = Tensor::from_slice(&[of_channel(0), of_channel(1)].concat()).view([1, 2, 1, 4, 4]);
            scan(features)
        };
        let fusion = Fusion { network: &network, config: &config.inference };
        let templates = [40.0, 40.0, 80.0].map(seen);
        let support = prototypes(&rest, &class);
        let voters = fusion.voters(support, &[], unlabelled(templates), vec![None], vec![0.0]);
        voters.templates.iter().map(|template| template.foreground[0].size()[0] > 0).collect::<Vec<_>>()
    };
    assert_eq!(found(1), [true, true, false]);
    assert_eq!(found(2), [true, true, true]);
}

/// Two places look alike to the support, and the templates have seen the class on the left alone.
#[test]
fn the_prior_decides_between_equals() {
    let setup = setup(&["inference.self_training_rounds=2", "inference.spatial_prior.weight=1"]);
    // Columns: two of one kind, four of background, two of nearly the same kind.
    let [left, right, between] = [[1.0f32, 0.3, 0.0], [1.0, -0.3, 0.0], [0.0, 0.0, 1.0]];
    let columns = [left, left, between, between, between, between, right, right];
    let channel = |c: usize| columns.map(|column| column[c]).repeat(4);
    let features = Tensor::from_slice(&[channel(0), channel(1), channel(2)].concat()).view([1, 3, 1, 4, 8]);
    let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 3])];
    let support = || {
        let (background, foreground) = (rows(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.05]), rows(&[1.0, 0.0, 0.0]));
        Prototypes { background, foreground, sizes_vox: None }
    };
    let shown = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).expand([1, 1, 1, 4, 8], false);
    let place = Tensor::cat(&[&(1.0 - &shown), &shown], 1); // as much as 1 of a score
    let found = |place: Option<Tensor>| {
        let prior = place.map(|place| SpatialPrior { log_p: place.shallow_clone(), evidence: place });
        let voters = Voters { prior, ..alone(support()) };
        let (labels, _) = fuse(&setup, &features, None, &voters, &[]);
        [0, 3, 7].map(|column| labels.int64_value(&[0, 1, column]))
    };
    assert_eq!(found(None), [1, 0, 1]);
    assert_eq!(found(Some(place)), [1, 0, 0]);
}

/// A column of the class that looks a little more like the background than like the class.
#[test]
fn a_supervoxel_brings_its_doubtful_voxels_along() {
    let setup = setup(&["inference.self_training_rounds=1", "inference.supervoxels.network_weight=1"]);
    let columns = [0.0f32, 0.0, 0.0, 47.0, 90.0, 90.0, 90.0, 90.0].map(|degrees| degrees.to_radians().sin_cos());
    let channels = [columns.map(|(_, cos)| cos).repeat(4), columns.map(|(sin, _)| sin).repeat(4)];
    let features = Tensor::from_slice(&channels.concat()).view([1, 2, 1, 4, 8]);
    let found = |supervoxels: Option<Array3<i32>>| {
        let support = prototypes(&[0.0, 1.0], &[1.0, 0.0]);
        let voters = alone(support);
        let (labels, _) = fuse(&setup, &features, supervoxels, &voters, &[]);
        [0, 3, 4].map(|column| labels.int64_value(&[0, 2, column]))
    };
    assert_eq!(found(None), [1, 0, 0]);
    let halves = Array3::from_shape_fn((1, 4, 8), |(_, _, x)| i32::from(x > 3));
    assert_eq!(found(Some(halves)), [1, 1, 0]);
}

/// The same class at the head and at the foot: without ranges both are found.
#[test]
fn a_class_is_found_in_its_slice_range() {
    let setup = setup(&[]);
    let shows = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]).view([1, 1, 8, 1, 1]);
    let shows = shows.expand([1, 1, 8, 4, 4], false);
    let features = Tensor::cat(&[1.0 - &shows, shows], 1);
    let found = |ranges: &[DepthRange]| {
        let voters = alone(prototypes(&[1.0, 0.0], &[0.0, 1.0]));
        let (labels, _) = fuse(&setup, &features, None, &voters, ranges);
        [0, 3, 7].map(|slice| labels.int64_value(&[slice, 1, 1]))
    };
    assert_eq!(found(&[]), [1, 0, 1]);
    assert_eq!(found(&[Some(0.7..1.0)]), [0, 0, 1]);
    assert_eq!(found(&[Some(0.0..0.3)]), [1, 0, 0]);
}

/// Of a few slices, which are those that show it, a class takes more than of a volume.
#[test]
fn a_support_that_is_annotated_in_a_few_slices_tells_nothing_of_sizes() {
    let set = ["features.levels=2", "features.pooling=[[1,2,2]]", "inference.transport.strength=0.5"];
    let (network, config) = setup(&set);
    let fusion = Fusion { network: &network, config: &config.inference };
    let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
    let image = zeros(&[1, 1, 10, 8, 8], Kind::Float);
    let _ = image.narrow(4, 0, 4).fill_(1.0);
    let volume = NetworkVolume { image: image.shallow_clone(), spacing_mm: [1.0; 3] };
    let are_known = |slices: Option<i64>| {
        let classes = zeros(&[10, 8, 8], Kind::Int64);
        let _ = classes.narrow(0, 4, 2).narrow(2, 0, 4).fill_(1);
        let mut shot = Shot::new(image.shallow_clone(), classes);
        shot.known = slices.map(|count| {
            let known = image.zeros_like();
            let _ = known.narrow(2, (10 - count) / 2, count).fill_(1.0);
            known
        });
        let voters = tch::no_grad(|| fusion.fit(&[shot], &[volume.shallow_clone()], 1));
        [&voters.support, &voters.templates[0]].map(|prototypes| prototypes.sizes_vox.is_some())
    };
    assert_eq!(are_known(None), [true, true]);
    assert_eq!(are_known(Some(9)), [true, true]);
    assert_eq!(are_known(Some(2)), [false, false]);
}

/// The class lies further along x in the template than in the support, and the network has learned nothing.
#[test]
fn labels_of_the_support_are_propagated_to_templates() {
    let registration = ["inference.registration.enabled=true", "inference.registration.size_vox=[24, 24, 24]"];
    let blob = |from: i64| {
        let image = Tensor::zeros([1, 1, 24, 24, 24], (Kind::Float, Device::Cpu));
        let _ = image.narrow(2, 8, 8).narrow(3, 8, 8).narrow(4, from, 8).fill_(1.0);
        image
    };
    let (support, template) = (blob(6), blob(10));
    let middle_of_class = |set: &[&str]| {
        let (network, config) = setup(set);
        let fusion = Fusion { network: &network, config: &config.inference };
        let templates = [NetworkVolume { image: template.shallow_clone(), spacing_mm: [1.0; 3] }];
        let features = tch::no_grad(|| network.encode(&support));
        let annotated = EncodedSupport::new(features, &support.squeeze().to_kind(Kind::Int64), 1);
        let prototypes = network.test_prototypes(std::slice::from_ref(&annotated));
        let found = tch::no_grad(|| fusion.unlabelled(&templates, &prototypes, &[(&support, &annotated)]));
        assert_eq!(found[0].scan.features.size(), annotated.features.size());
        found[0].propagated.as_ref().map(|to| {
            let class = to.labels.masks().get(0).get(1).sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Double);
            let count = class.size()[0];
            let places = (Tensor::arange(count, (Kind::Double, Device::Cpu)) + 0.5) * (24.0 / count as f64) - 0.5;
            ((&class * places).sum(Kind::Double) / class.sum(Kind::Double)).double_value(&[])
        })
    };
    let middle = middle_of_class(&registration).expect("registered");
    assert!((middle - 13.5).abs() < 0.8, "{middle}: 9.5 in the support");
    assert_eq!(middle_of_class(&[]), None);
}

/// In the two templates labels and voters agree by 0.8 and 0.6; a third one is not believed.
#[test]
fn propagated_labels_count_less_where_they_agree_less_than_in_the_templates() {
    let (network, config) = setup(&[]);
    let fusion = Fusion { network: &network, config: &config.inference };
    let rows = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
    let voters = Voters {
        templates: vec![rows(), rows(), rows()],
        indices: vec![0, 1, 2],
        belief: Belief::of(&[vec![0.9], vec![0.9], vec![0.1]], &[0.9], 0.5),
        overlaps: vec![vec![0.8], vec![0.6], vec![0.1]],
        shares: vec![0.5],
        ..alone(rows())
    };
    // The voters find the left half; the labels show so many of its two columns, and as many of the right half.
    let share = |left: f32, right: f32| {
        let class = Tensor::from_slice(&[left, left, right, right].repeat(4)).view([1, 1, 1, 4, 4]);
        let propagated = Propagated::new(WorkingGrid::whole([1, 4, 4]), class.ones_like(), vec![class]);
        let mut compared = fusion.compare(scan(halves()), &voters, None);
        compared.propagate(&propagated, &voters);
        compared.shares()[0]
    };
    assert!((share(1.0, 0.0) - 0.5).abs() < 1e-9, "{}", share(1.0, 0.0));
    assert!((share(0.5, 0.5) - 0.5 * 0.5 / 0.7).abs() < 1e-6, "{}", share(0.5, 0.5));
    assert_eq!(share(0.0, 1.0), 0.0);
}

/// Two templates see background everywhere, and nobody believes them about the second class.
#[test]
fn a_class_about_which_no_template_is_believed_comes_from_the_supports() {
    let row = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1, 1]);
    let (by_supports, by_template) = (row([0.0, 1.0, 2.0]), row([5.0, 6.0, -3.0]));
    let belief = Belief::of(&[vec![0.9, 0.1], vec![0.9, 0.1]], &[0.9; 2], 0.5);
    let found = fused(&[by_supports.shallow_clone(), by_template.shallow_clone(), by_template], &belief);
    let margin = |scores: &Tensor, class: i64| scores.double_value(&[0, class, 0, 0, 0]) - scores.double_value(&[0; 5]);
    assert_eq!([margin(&found, 1), margin(&found, 2)], [1.0, margin(&by_supports, 2)]);
}
