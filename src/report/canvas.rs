//! A small RGB image: pixels, rows and columns of images, PNG.

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// Colour between panels: distinct from a scan's black, and unobtrusive on a white or a dark page.
const PADDING: Rgb = [44, 47, 51];

/// An image, initially black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    height: usize,
    width: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// A black image of this size in pixels.
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width, pixels: vec![[0; 3]; height * width] }
    }

    /// Sets the pixel at row `y`, column `x`.
    pub fn set(&mut self, y: usize, x: usize, colour: Rgb) {
        self.pixels[y * self.width + x] = colour;
    }

    /// Blends `colour` over the pixel with the given opacity, 0 to 1.
    pub fn blend(&mut self, y: usize, x: usize, colour: Rgb, opacity: f32) {
        let pixel = &mut self.pixels[y * self.width + x];
        for (below, above) in pixel.iter_mut().zip(colour) {
            *below = (f32::from(*below) * (1.0 - opacity) + f32::from(above) * opacity).round() as u8;
        }
    }

    /// `panels` side by side, centred, with `gap` pixels of dark grey between them.
    pub fn row(panels: &[Self], gap: usize) -> Self {
        let height = panels.iter().map(|p| p.height).max().unwrap_or(0);
        let width = panels.iter().map(|p| p.width + gap).sum::<usize>().saturating_sub(gap);
        let mut whole = Self { height, width, pixels: vec![PADDING; height * width] };
        let mut left = 0;
        for panel in panels {
            whole.paste(panel, (height - panel.height) / 2, left);
            left += panel.width + gap;
        }
        whole
    }

    /// `panels` one below the other, with `gap` pixels of dark grey between them.
    pub fn column(panels: &[Self], gap: usize) -> Self {
        let width = panels.iter().map(|p| p.width).max().unwrap_or(0);
        let height = panels.iter().map(|p| p.height + gap).sum::<usize>().saturating_sub(gap);
        let mut whole = Self { height, width, pixels: vec![PADDING; height * width] };
        let mut top = 0;
        for panel in panels {
            whole.paste(panel, top, 0);
            top += panel.height + gap;
        }
        whole
    }

    fn paste(&mut self, panel: &Self, top: usize, left: usize) {
        for (y, row) in panel.pixels.chunks_exact(panel.width.max(1)).enumerate() {
            let start = (top + y) * self.width + left;
            self.pixels[start..start + panel.width].copy_from_slice(row);
        }
    }

    /// Encodes as PNG. An empty canvas becomes one pixel, since PNG has no empty image.
    pub fn to_png(&self) -> Vec<u8> {
        if self.pixels.is_empty() {
            return Self { height: 1, width: 1, pixels: vec![PADDING] }.to_png();
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header().expect("the size is not zero");
        writer.write_image_data(self.pixels.as_flattened()).expect("the buffer has the size of the image");
        writer.finish().expect("memory does not fail");
        bytes
    }
}

/// A bright colour for a label. Hues of consecutive labels differ by the golden ratio, so that they are easy to
/// distinguish.
pub fn hue(label: i32) -> Rgb {
    let hue = (f64::from(label) * 0.618_033_988_749_895).rem_euclid(1.0) * 6.0;
    let saturation = [0.8, 0.6, 1.0][label.rem_euclid(3) as usize];
    [5.0, 3.0, 1.0].map(|channel| {
        let k: f64 = (channel + hue) % 6.0;
        (255.0 * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_laid_side_by_side_and_below_each_other() {
        let mut dot = Canvas::new(1, 1);
        dot.blend(0, 0, [200, 100, 0], 0.5);
        let row = Canvas::row(&[dot.clone(), Canvas::new(2, 1)], 1);
        assert_eq!(row.pixels, [[100, 50, 0], PADDING, [0; 3], PADDING, PADDING, [0; 3]]);
        let column = Canvas::column(&[dot, Canvas::new(1, 2)], 0);
        assert_eq!(column.pixels, [[100, 50, 0], PADDING, [0; 3], [0; 3]]);
    }

    #[test]
    fn a_picture_survives_its_png() {
        let mut canvas = Canvas::new(2, 3);
        canvas.set(1, 2, [1, 2, 3]);
        let bytes = canvas.to_png();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.height, info.width), (2, 3));
        assert_eq!(pixels, canvas.pixels.as_flattened());
        assert!(!Canvas::new(0, 5).to_png().is_empty());
    }

    #[test]
    fn sixty_regions_have_sixty_colours() {
        let colours: std::collections::BTreeSet<Rgb> = (1..=60).map(hue).collect();
        assert_eq!(colours.len(), 60);
        assert!(colours.iter().all(|c| c.iter().max().unwrap() == &255));
    }
}
