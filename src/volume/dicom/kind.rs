//! What a DICOM object is that is no slice of a volume, by its SOP class, its ImageType and its description.

use super::attributes::Attributes;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
const DIRECTORY: &str = "1.2.840.10008.1.3.10";
/// Siemens: how many slices one picture shows.
const SLICES_IN_MOSAIC: Tag = Tag(0x0019, 0x100A);

/// By the beginning of the SOP class after [`STORAGE`]; the first that fits. The second column says whether objects of the
/// class are slices all the same where they say where they lie.
const CLASSES: [(&str, bool, &str); 27] = [
    ("88.59", false, "key object selection"),
    ("88.67", false, "dose report"),
    ("88.", false, "structured report"),
    ("11.", false, "presentation state"),
    ("66.4", false, "segmentation object (DICOM SEG)"),
    ("66.7", false, "segmentation object (DICOM SEG)"),
    ("66.5", false, "surface (DICOM SEG)"),
    ("66.1", false, "registration"),
    ("66.3", false, "registration"),
    ("66.2", false, "set of fiducials"),
    ("66.6", false, "set of tracts"),
    ("66", false, "raw data object"),
    ("67", false, "value mapping"),
    ("481.1", true, "radiotherapy image"),
    ("481.2", false, "radiotherapy dose (RTDOSE)"),
    ("481.3", false, "radiotherapy structure set (RTSTRUCT)"),
    ("481.", false, "radiotherapy object"),
    ("104.", false, "document"),
    ("9.", false, "waveform"),
    ("4.2", false, "spectroscopy object"),
    ("30", false, "parametric map"),
    ("7", false, "secondary capture"),
    ("6.1", true, "ultrasound image"),
    ("3.1", true, "ultrasound image"),
    ("1", true, "radiograph"),
    ("12.", true, "angiogram"),
    ("77.", true, "photograph"),
];

/// Words of ImageType.
const TYPES: [(&str, &str); 14] = [
    ("MOSAIC", "Siemens mosaic"),
    ("LOCALIZER", "localizer"),
    ("SCOUT", "localizer"),
    ("TOPOGRAM", "localizer"),
    ("SCREEN SAVE", "screenshot"),
    ("SCREENSAVE", "screenshot"),
    ("SCREENSHOT", "screenshot"),
    ("DOSE_INFO", "dose report"),
    ("DOSE INFO", "dose report"),
    ("MIP", "projection (MIP)"),
    ("MINIP", "projection (MIP)"),
    ("PROJECTION IMAGE", "projection (MIP)"),
    ("VRT", "rendering"),
    ("VOLUME RENDERING", "rendering"),
];

/// Words in the description of a series of a few slices that is drawn to plan others.
const SCOUTS: [&str; 7] = ["scout", "localizer", "localiser", "topogram", "scanogram", "surview", "survey"];

/// The kind that secondary captures are of. Some programs write whole volumes as such.
pub const CAPTURE: &str = "secondary capture";

/// What an object is, where it is no slice; singular, without article.
pub fn of(attributes: &Attributes) -> Option<&'static str> {
    let class = attributes.text(tags::SOP_CLASS_UID);
    if class == DIRECTORY || attributes.element(tags::DIRECTORY_RECORD_SEQUENCE).is_some() {
        return Some("DICOM directory");
    }
    let lies = attributes.numbers(tags::IMAGE_POSITION_PATIENT, 3).is_some()
        && attributes.numbers(tags::IMAGE_ORIENTATION_PATIENT, 6).is_some()
        && attributes.numbers(tags::PIXEL_SPACING, 2).is_some();
    let of_class = class.strip_prefix(STORAGE).and_then(|number| {
        let fits = |start: &str| match number.strip_prefix(start) {
            Some(rest) => start.ends_with('.') || rest.is_empty() || rest.starts_with('.'),
            None => false,
        };
        CLASSES.iter().find(|(start, ..)| fits(start)).filter(|(_, slices, _)| !(lies && *slices))
    });
    let frames = [tags::IMAGE_TYPE, tags::FRAME_TYPE].map(|tag| attributes.text(tag).to_uppercase());
    let named = |word: &str| {
        let mut values = frames.iter().flat_map(|text| text.split('\\'));
        values.any(|value| value.trim() == word || value.trim().split(['_', ' ']).any(|part| part == word))
    };
    if attributes.whole(SLICES_IN_MOSAIC).is_some_and(|slices| slices > 1) {
        return Some("Siemens mosaic");
    }
    let of_type = TYPES.iter().find(|(word, _)| named(word)).map(|(_, kind)| *kind);
    of_type.or(of_class.map(|(_, _, kind)| *kind))
}

/// Whether the description of a series says that it was made to plan others.
pub fn is_scout(description: &str) -> bool {
    let description = description.to_lowercase();
    SCOUTS.iter().any(|word| description.contains(word))
}
