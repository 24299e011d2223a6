use super::*;

const CONFIG: Config = Config {
    enabled: true,
    size_vox: [24, 24, 24],
    reach_fraction: 0.25,
    iterations: 30,
    smoothness: 1.0,
    network_weight: 0.0,
    map_intensities: false,
};

fn steps(n: i64) -> Tensor {
    Tensor::arange(n, (Kind::Float, Device::Cpu))
}

/// Three blobs of different brightness in a body (1, 1, 24, 24, 24), moved by so many voxels.
fn scan(moved: [f64; 3]) -> Tensor {
    let blob = |middle: [f64; 3], radius: f64, brightness: f64| {
        let along = |axis: usize| {
            let shape: [i64; 3] = std::array::from_fn(|of| if of == axis { 24 } else { 1 });
            (steps(24) - middle[axis] - moved[axis]).square().view(shape)
        };
        let inside: Tensor = (radius - (along(0) + along(1) + along(2)).sqrt()) * 2.0;
        inside.sigmoid() * brightness
    };
    let blobs = [([11.0, 11.0, 11.0], 9.0, 1.0), ([8.0, 9.0, 8.0], 2.5, 1.0), ([13.0, 12.0, 14.0], 3.0, -0.7)];
    let volume: Tensor = blobs.into_iter().map(|(middle, radius, brightness)| blob(middle, radius, brightness)).sum();
    volume.view([1, 1, 24, 24, 24])
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().mean(Kind::Float).double_value(&[])
}

fn field_of(fixed: &Tensor, moving: &Tensor) -> Tensor {
    register(&descriptors(fixed), &descriptors(moving), &CONFIG)
}

#[test]
fn a_scan_is_where_it_is_in_itself() {
    let scan = scan([0.0; 3]);
    let field = field_of(&scan, &scan);
    let (change, amplitude) = (off(&warp(&scan, &field, [24; 3]), &scan), off(&scan, &scan.zeros_like()));
    assert!(change < 0.15 * amplitude, "{change} of {amplitude}");
}

#[test]
fn a_moved_scan_is_brought_back_whatever_its_contrast() {
    let (fixed, moving) = (scan([0.0; 3]), scan([2.0, -1.0, 3.0]));
    for looks in [moving.shallow_clone(), 5.0 - &moving * 3.0] {
        let field = field_of(&fixed, &looks);
        let back = warp(&moving, &field, [24; 3]);
        assert!(off(&back, &fixed) < 0.25 * off(&moving, &fixed), "{} of {}", off(&back, &fixed), off(&moving, &fixed));
    }
}

#[test]
fn a_field_is_refined_from_where_it_is() {
    let (fixed, moving) = (scan([0.0; 3]), scan([2.0, -1.0, 3.0]));
    let [by_fixed, by_moving] = [&fixed, &moving].map(descriptors);
    let start = field_of(&fixed, &moving);
    let none = Config { iterations: 0, ..CONFIG };
    let kept = refine(&by_fixed, &by_moving, &start, &none);
    assert!(off(&kept, &start) < 0.2 * off(&start, &start.zeros_like()), "no step changes but its smoothness");
    let from_nothing = refine(&by_fixed, &by_moving, &start.zeros_like(), &CONFIG);
    let from_start = refine(&by_fixed, &by_moving, &start, &CONFIG);
    let left = |field: &Tensor| off(&warp(&moving, field, [24; 3]), &fixed);
    assert!(left(&from_start) < left(&from_nothing).min(0.25 * off(&moving, &fixed)), "{}", left(&from_start));
}

#[test]
fn a_field_serves_grids_of_any_size() {
    // A quarter of the extent along x, everywhere.
    let along = |axis: i64| if axis == 2 { 0.25 } else { 0.0 };
    let parts: Vec<Tensor> =
        (0..3).map(|axis| Tensor::full([4, 4, 4], along(axis), (Kind::Float, Device::Cpu))).collect();
    let field = Tensor::stack(&parts, 0).unsqueeze(0);
    let ramp = steps(16).view([1, 1, 1, 1, 16]).expand([1, 1, 8, 8, 16], false);
    let moved = warp(&ramp, &field, [2, 4, 8]);
    assert_eq!(moved.size(), [1, 1, 2, 4, 8]);
    // Voxel 1 of 8 has its centre at 3/16 of the extent; 7/16 of 16 voxels is between voxels 6 and 7.
    assert!((moved.double_value(&[0, 0, 0, 0, 1]) - 6.5).abs() < 1e-4);
    assert_eq!(moved.double_value(&[0, 0, 1, 3, 7]), 15.0, "the last value goes on");
}

#[test]
fn fields_follow_each_other() {
    // Along x: a shift by an eighth, then displacements that grow with the place, x / 4.
    let along_x = |x: Tensor| Tensor::stack(&[x.zeros_like(), x.zeros_like(), x], 0).unsqueeze(0);
    let places = ((steps(16) + 0.5) / 16.0).expand([8, 8, 16], false);
    let (first, second) = (along_x(places.full_like(0.125)), along_x(&places / 4.0));
    let composed = compose(&first, &second);
    let expected = (&places + 0.125) / 4.0 + 0.125;
    let inner = |field: &Tensor| field.narrow(2, 0, 12);
    assert!(off(&inner(&composed.get(0).get(2)), &inner(&expected)) < 1e-6);
    assert!(composed.get(0).get(0).abs().max().double_value(&[]) == 0.0);
}

#[test]
fn descriptors_do_not_depend_on_brightness_or_contrast() {
    let volume = scan([0.0; 3]);
    let (before, after) = (descriptors(&volume), descriptors(&(7.0 - &volume * 2.0)));
    assert_eq!(before.size(), [1, 12, 12, 12, 12]);
    assert!(off(&before, &after) < 1e-4);
    let constant = descriptors(&Tensor::ones([1, 1, 8, 8, 8], (Kind::Float, Device::Cpu)));
    assert!(constant.isfinite().all().int64_value(&[]) == 1, "nothing in it");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (fixed, moving) = (scan([0.0; 3]), scan([2.0, -1.0, 3.0]));
    let before = tch::get_num_threads();
    let [one, two] = [1, 2].map(|threads| {
        tch::set_num_threads(threads);
        field_of(&fixed, &moving)
    });
    tch::set_num_threads(before);
    assert!(one == two);
}
