//! Six pairs of generated anatomies as a picture: `cargo run --release --example generated_anatomies -- anatomies.png`. Each row is one
//! plan: an axial slice and a coronal one of two persons, with their tissues.

use ndarray::{Array2, ArrayView2, Axis};
use ssl3d::{
    config,
    episode::Scan,
    error::{Error, Result},
    report::canvas::{Canvas, hue},
    rng, synthesis,
};
use std::path::PathBuf;

const SIDE: usize = 128;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap_or_else(|| "anatomies.png".to_owned()));
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let config = config::load(None, &[])?.synthesis;
    let rows: Vec<Canvas> = (0..6)
        .map(|index| {
            let pair = synthesis::pair(&mut rng::stream(seed, "example", index), &config, 221_184, [4, 8]);
            Canvas::row(&pair.iter().flat_map(pictures).collect::<Vec<_>>(), 4)
        })
        .collect();
    std::fs::write(&path, Canvas::column(&rows, 4).to_png()).map_err(Error::io("write", &path))
}

fn pictures(scan: &Scan) -> Vec<Canvas> {
    let tissues = scan.organs.as_ref().expect("generated scans have tissues");
    [Axis(0), Axis(1)]
        .into_iter()
        .flat_map(|axis| {
            let middle = scan.image.len_of(axis) / 2;
            let image = scan.image.index_axis(axis, middle);
            let [low, high] = [-1.5f32, 2.5];
            let grey = image.mapv(|v| [((v - low) / (high - low) * 255.0).clamp(0.0, 255.0) as u8; 3]);
            let colours = tissues.index_axis(axis, middle).mapv(|t| if t == 0 { [0; 3] } else { hue(i32::from(t)) });
            [grey, colours].map(|pixels| enlarged(pixels.view()))
        })
        .collect()
}

/// Each pixel from the nearest one, to [`SIDE`] pixels a side.
fn enlarged(pixels: ArrayView2<[u8; 3]>) -> Canvas {
    let (height, width) = pixels.dim();
    let large = Array2::from_shape_fn((SIDE, SIDE), |(y, x)| pixels[[y * height / SIDE, x * width / SIDE]]);
    let mut canvas = Canvas::new(SIDE, SIDE);
    large.indexed_iter().for_each(|((y, x), &colour)| canvas.set(y, x, colour));
    canvas
}
