//! The values of one frame: those of its functional groups in a multi-frame file, and those of the file.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::mem::InMemElement;
use dicom_object::{DefaultDicomObject, InMemDicomObject};

/// Where the values of a frame are looked up, the nearest first.
pub struct Attributes<'o> {
    scopes: Vec<&'o InMemDicomObject>,
}

/// Number of frames that have functional groups of their own; 0 in a file of one slice.
pub fn frames(object: &DefaultDicomObject) -> usize {
    items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).len()
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element_opt(tag).ok().flatten().and_then(|element| element.value().items()).unwrap_or_default()
}

impl<'o> Attributes<'o> {
    /// Those of a frame, counted from 0; None for a file of one slice.
    pub fn new(object: &'o DefaultDicomObject, frame: Option<usize>) -> Self {
        let mut scopes = Vec::new();
        if let Some(frame) = frame {
            let own = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame);
            let shared = items(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
            for groups in own.into_iter().chain(shared) {
                // Sequences of odd groups are a maker's own, with copies of older values.
                let standard = groups.iter().filter(|element| element.header().tag.group() % 2 == 0);
                scopes.extend(standard.filter_map(|element| element.value().items()?.first()));
            }
        }
        scopes.push(object);
        Self { scopes }
    }

    /// The nearest value of a tag.
    pub fn element(&self, tag: Tag) -> Option<&'o InMemElement> {
        self.scopes.iter().find_map(|scope| scope.element_opt(tag).ok().flatten())
    }

    /// Its trimmed text; empty if there is none.
    pub fn text(&self, tag: Tag) -> String {
        let text = self.element(tag).and_then(|element| element.to_str().ok());
        text.map_or(String::new(), |text| text.trim_matches(['\0', ' ', '\n', '\r', '\t']).to_owned())
    }

    /// Its numbers; none if it has other than `count` finite ones.
    pub fn numbers(&self, tag: Tag, count: usize) -> Option<Vec<f64>> {
        let values = self.element(tag)?.to_multi_float64().ok()?;
        (values.len() == count && values.iter().all(|value| value.is_finite())).then_some(values)
    }

    /// Its first item.
    pub fn item(&self, tag: Tag) -> Option<&'o InMemDicomObject> {
        self.element(tag)?.value().items()?.first()
    }

    /// Its first whole number.
    pub fn whole(&self, tag: Tag) -> Option<i64> {
        self.element(tag)?.to_int().ok()
    }
}
