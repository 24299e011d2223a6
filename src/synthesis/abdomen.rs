//! An abdomen as overlapping solids in millimetres: x to the patient's right, y anterior, z superior, with the origin
//! in the middle of the body at the level of the kidneys' upper poles. Sizes are approximately those of an adult.

use super::Point;
use super::texture::Texture;
use rand::{Rng, RngExt};

/// Tissue at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tissue {
    Air,
    Lung,
    SubcutaneousFat,
    InnerFat,
    Muscle,
    Bone,
    Fluid,
    Vessel,
    Liver,
    LiverVessel,
    RightKidney,
    LeftKidney,
    Spleen,
    Pancreas,
    Stomach,
    /// Content of the bowel loop of this number.
    Bowel(usize),
}

impl Tissue {
    /// The label of the four organs, 0 for other tissues.
    pub fn label(self) -> i32 {
        match self {
            Self::Liver | Self::LiverVessel => 1,
            Self::RightKidney => 2,
            Self::LeftKidney => 3,
            Self::Spleen => 4,
            _ => 0,
        }
    }

    /// Usual brightness of each tissue by [`Tissue::number`], as in fat-suppressed T2.
    pub const BRIGHTNESS: [f32; 16] =
        [0.0, 0.04, 0.13, 0.18, 0.24, 0.33, 0.95, 0.14, 0.36, 0.14, 0.66, 0.66, 0.60, 0.42, 0.55, 0.5];

    /// A number from 0, which is air; all bowel loops have one.
    pub fn number(self) -> u8 {
        match self {
            Self::Air => 0,
            Self::Lung => 1,
            Self::SubcutaneousFat => 2,
            Self::InnerFat => 3,
            Self::Muscle => 4,
            Self::Bone => 5,
            Self::Fluid => 6,
            Self::Vessel => 7,
            Self::Liver => 8,
            Self::LiverVessel => 9,
            Self::RightKidney => 10,
            Self::LeftKidney => 11,
            Self::Spleen => 12,
            Self::Pancreas => 13,
            Self::Stomach => 14,
            Self::Bowel(_) => 15,
        }
    }

    /// The class of the tissue with this number: vessels of the liver are liver.
    pub fn class_of(number: u8) -> u8 {
        if number == Self::LiverVessel.number() { Self::Liver.number() } else { number }
    }
}

/// An ellipsoid; `tilt` shifts its centre along x and y per millimetre of z.
struct Ellipsoid {
    centre_mm: Point,
    radius_mm: Point,
    tilt: [f32; 2],
}

impl Ellipsoid {
    fn new(centre_mm: Point, radius_mm: Point) -> Self {
        Self { centre_mm, radius_mm, tilt: [0.0; 2] }
    }

    /// Moves the centre by up to `shift_mm` and scales the radii by up to `stretch`, each direction independently.
    fn varied(mut self, rng: &mut impl Rng, shift_mm: f32, stretch: f32) -> Self {
        let size = rng.random_range(1.0 - stretch..1.0 + stretch);
        for axis in 0..3 {
            self.centre_mm[axis] += rng.random_range(-shift_mm..shift_mm);
            self.radius_mm[axis] *= size * rng.random_range(1.0 - stretch / 2.0..1.0 + stretch / 2.0);
        }
        self
    }

    fn tilted(mut self, tilt: [f32; 2]) -> Self {
        self.tilt = tilt;
        self
    }

    /// The quadratic form of the ellipsoid, below 1 inside.
    fn level(&self, p: Point) -> f32 {
        let z = p[2] - self.centre_mm[2];
        let x = p[0] - self.centre_mm[0] - self.tilt[0] * z;
        let y = p[1] - self.centre_mm[1] - self.tilt[1] * z;
        (x / self.radius_mm[0]).powi(2) + (y / self.radius_mm[1]).powi(2) + (z / self.radius_mm[2]).powi(2)
    }

    fn contains(&self, p: Point) -> bool {
        self.level(p) < 1.0
    }
}

/// The anatomy of one subject.
pub struct Anatomy {
    body_mm: [f32; 2],
    fat_mm: f32,
    wall_mm: f32,
    liver_lobes: [Ellipsoid; 2],
    /// Height of the liver's lower surface at x = 70 mm, and its slope towards the right.
    liver_floor: [f32; 2],
    /// Right and left kidney, each with its sinus.
    kidneys: [[Ellipsoid; 2]; 2],
    spleen: Ellipsoid,
    spleen_hollow: Ellipsoid,
    stomach: Ellipsoid,
    gall_bladder: Ellipsoid,
    pancreas: Ellipsoid,
    bowel: Vec<(Ellipsoid, f32)>,
    dome_mm: f32,
    tissue_level: TissueLevels,
    fine: Texture,
    coarse: Texture,
    vessels: Texture,
}

/// Mean signal of each tissue, as in fat-suppressed T2: 0 is air, 1 free fluid.
struct TissueLevels {
    fat: f32,
    muscle: f32,
    bone: f32,
    liver: f32,
    kidneys: f32,
    spleen: f32,
    pancreas: f32,
    stomach: f32,
}

impl Anatomy {
    /// Draws a random anatomy.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let kidney = |rng: &mut _, side: f32, z: f32| {
            let centre = [side * 56.0, -40.0, z];
            let body = Ellipsoid::new(centre, [27.0, 25.0, 54.0]).varied(rng, 7.0, 0.12).tilted([-side * 0.16, -0.1]);
            // Opens towards the spine, beyond the rim.
            let [rx, ry, rz] = body.radius_mm;
            let sinus_centre = [body.centre_mm[0] - side * 0.75 * rx, body.centre_mm[1] + 0.15 * ry, body.centre_mm[2]];
            let sinus = Ellipsoid::new(sinus_centre, [0.55 * rx, 0.33 * ry, 0.36 * rz]).tilted(body.tilt);
            [body, sinus]
        };
        let spleen = Ellipsoid::new([-88.0, -30.0, 36.0], [31.0, 44.0, 50.0]).varied(rng, 7.0, 0.16).tilted([0.1, 0.2]);
        let hollow_centre = [spleen.centre_mm[0] + 30.0, spleen.centre_mm[1] + 22.0, spleen.centre_mm[2] - 6.0];
        let bowel = (0..24)
            .map(|_| {
                let centre =
                    [rng.random_range(-95.0..95.0), rng.random_range(-15.0..62.0), rng.random_range(-115.0..8.0)];
                let [short, long] = [rng.random_range(9.0..17.0), rng.random_range(16.0..38.0)];
                let radius = if rng.random_bool(0.5) { [long, short, short] } else { [short, short, long] };
                (Ellipsoid::new(centre, radius), rng.random_range(0.15..0.85))
            })
            .collect();
        let mut level = |mean: f32, spread: f32| rng.random_range(mean - spread..mean + spread);
        let tissue_level = TissueLevels {
            fat: level(0.13, 0.03),
            muscle: level(0.24, 0.04),
            bone: level(0.33, 0.05),
            liver: level(0.36, 0.05),
            kidneys: level(0.66, 0.08),
            spleen: level(0.60, 0.08),
            pancreas: level(0.42, 0.05),
            stomach: level(0.55, 0.25),
        };
        Self {
            body_mm: [level(144.0, 9.0), level(102.0, 7.0)],
            fat_mm: level(14.0, 7.0),
            wall_mm: level(10.0, 2.0),
            liver_floor: [level(-32.0, 14.0), level(0.6, 0.15)],
            dome_mm: level(86.0, 8.0),
            tissue_level,
            liver_lobes: [
                Ellipsoid::new([66.0, 2.0, 28.0], [64.0, 72.0, 74.0]).varied(rng, 7.0, 0.1),
                Ellipsoid::new([8.0, 38.0, 42.0], [68.0, 32.0, 36.0]).varied(rng, 9.0, 0.18),
            ],
            kidneys: [kidney(rng, 1.0, -40.0), kidney(rng, -1.0, -22.0)],
            spleen_hollow: Ellipsoid::new(hollow_centre, [34.0, 34.0, 44.0]).varied(rng, 4.0, 0.1),
            spleen,
            stomach: Ellipsoid::new([-52.0, 28.0, 40.0], [40.0, 32.0, 34.0]).varied(rng, 10.0, 0.25),
            gall_bladder: Ellipsoid::new([46.0, 36.0, -14.0], [13.0, 13.0, 20.0]).varied(rng, 8.0, 0.25),
            pancreas: Ellipsoid::new([-14.0, 2.0, 2.0], [46.0, 11.0, 12.0]).varied(rng, 6.0, 0.2).tilted([0.3, 0.0]),
            bowel,
            fine: Texture::draw(rng, 7.0),
            coarse: Texture::draw(rng, 22.0),
            vessels: Texture::draw(rng, 26.0),
        }
    }

    /// The tissue at `p`; where solids overlap, the first one in the order of this function wins.
    pub fn tissue_at(&self, p: Point) -> Tissue {
        let [x, y, z] = p;
        let [a, b] = self.body_mm;
        let inside = |rim_mm: f32| (x / (a - rim_mm)).powi(2) + (y / (b - rim_mm)).powi(2) < 1.0;
        if !inside(0.0) {
            return Tissue::Air;
        }
        // Fat is thickest at the flanks and the back.
        let fat_mm = self.fat_mm * (1.0 - 0.35 * y / b + 0.3 * (x / a).powi(2));
        if !inside(fat_mm) {
            return Tissue::SubcutaneousFat;
        }
        if let Some(tissue) = self.spine(p) {
            return tissue;
        }
        if !inside(fat_mm + self.wall_mm) {
            return Tissue::Muscle;
        }
        for ([kidney, sinus], tissue) in self.kidneys.iter().zip([Tissue::RightKidney, Tissue::LeftKidney]) {
            if kidney.contains(p) {
                return if sinus.contains(p) { Tissue::InnerFat } else { tissue };
            }
        }
        // The lungs reach further down at the back and the flanks than over the dome.
        let dome_mm = self.dome_mm - 0.004 * ((x.abs() - 55.0).powi(2) + (y - 10.0).powi(2));
        if z > dome_mm {
            return Tissue::Lung;
        }
        if self.spleen.contains(p) && !self.spleen_hollow.contains(p) {
            return Tissue::Spleen;
        }
        if self.gall_bladder.contains(p) {
            return Tissue::Fluid;
        }
        let [floor_mm, fall] = self.liver_floor;
        if z > floor_mm - fall * (x - 70.0) && self.liver_lobes.iter().any(|lobe| lobe.contains(p)) {
            return if self.vessels.at(p).abs() < 0.035 { Tissue::LiverVessel } else { Tissue::Liver };
        }
        if self.stomach.contains(p) {
            return Tissue::Stomach;
        }
        if self.pancreas.contains(p) {
            return Tissue::Pancreas;
        }
        self.bowel.iter().position(|(part, _)| part.contains(p)).map_or(Tissue::InnerFat, Tissue::Bowel)
    }

    /// The tissue at `p` if it is a vertebra, the canal, a muscle beside them or a great vessel in front.
    fn spine(&self, [x, y, z]: Point) -> Option<Tissue> {
        let ellipse = |cx: f32, cy: f32, rx: f32, ry: f32| ((x - cx) / rx).powi(2) + ((y - cy) / ry).powi(2) < 1.0;
        if y > -10.0 || x.abs() > 75.0 {
            return None;
        }
        if ellipse(-9.0, -29.0, 10.0, 10.0) || ellipse(19.0, -27.0, 12.0, 9.0) {
            return Some(Tissue::Vessel);
        }
        if ellipse(0.0, -78.0, 9.0, 7.0) {
            return Some(Tissue::Fluid);
        }
        if ellipse(0.0, -55.0, 23.0, 17.0) {
            let disc = z.rem_euclid(34.0) < 8.0;
            return Some(if disc { Tissue::Muscle } else { Tissue::Bone });
        }
        if ellipse(0.0, -86.0, 8.0, 14.0) {
            return Some(Tissue::Bone);
        }
        let psoas_mm = ((20.0 - z) / 6.0).clamp(0.0, 17.0);
        let muscle = ellipse(33.0, -82.0, 30.0, 15.0)
            || ellipse(-33.0, -82.0, 30.0, 15.0)
            || (psoas_mm > 0.0 && (ellipse(36.0, -54.0, psoas_mm, 17.0) || ellipse(-36.0, -54.0, psoas_mm, 17.0)));
        muscle.then_some(Tissue::Muscle)
    }

    /// Signal of `tissue` at `p`, with its texture.
    pub fn signal_at(&self, tissue: Tissue, p: Point) -> f32 {
        let level = &self.tissue_level;
        let (mean, fine, coarse) = match tissue {
            Tissue::Air => return 0.0,
            Tissue::Lung => (0.04, 0.02, 0.02),
            Tissue::SubcutaneousFat => (level.fat, 0.03, 0.05),
            Tissue::InnerFat => (level.fat + 0.05, 0.09, 0.07),
            Tissue::Muscle => (level.muscle, 0.04, 0.04),
            Tissue::Bone => (level.bone, 0.05, 0.05),
            Tissue::Fluid => (0.95, 0.03, 0.03),
            Tissue::Vessel | Tissue::LiverVessel => (0.14, 0.04, 0.02),
            Tissue::Liver => (level.liver, 0.04, 0.05),
            Tissue::RightKidney | Tissue::LeftKidney => (level.kidneys, 0.09, 0.06),
            Tissue::Spleen => (level.spleen, 0.05, 0.05),
            Tissue::Pancreas => (level.pancreas, 0.08, 0.05),
            Tissue::Stomach => (level.stomach, 0.12, 0.20),
            Tissue::Bowel(part) => (self.bowel[part].1, 0.12, 0.14),
        };
        (mean + fine * self.fine.at(p) + coarse * self.coarse.at(p)).max(0.01)
    }
}
