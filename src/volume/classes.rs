//! Classes: the label value in a file, the index among the segmented classes, the channel of scores.

use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// One of the segmented classes. Index 0 is the first of them; channel 0 of scores is the background, so that the
/// channel is the index + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// Largest number of classes: with the background they fit into one byte.
    pub const MOST: usize = u8::MAX as usize;

    /// The class at an index, from 0.
    ///
    /// # Panics
    /// `index` is not below [`Class::MOST`].
    pub fn at(index: usize) -> Self {
        assert!(index < Self::MOST, "at most {} classes", Self::MOST);
        Self(index as u8)
    }

    /// The class of a channel; `None` for the background.
    pub fn of_channel(channel: usize) -> Option<Self> {
        channel.checked_sub(1).map(Self::at)
    }

    /// The index, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The channel, from 1.
    pub fn channel(self) -> usize {
        self.index() + 1
    }
}

/// The segmented classes, each with its value in label files.
///
/// ```
/// use ssl3d::volume::{Class, ClassMap};
/// let classes = ClassMap::new([500, 200])?;
/// assert_eq!(classes.value(Class::at(1)), 200);
/// assert_eq!(classes.channel(500), 1); // 0 is the background
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    values: Vec<i32>,
}

impl ClassMap {
    /// The classes of these label values, in this order.
    ///
    /// # Errors
    /// There are none or more than [`Class::MOST`], a value is 0, which is the background, or a value occurs twice.
    pub fn new(values: impl Into<Vec<i32>>) -> Result<Self> {
        let values = values.into();
        let refuse = |found: String| {
            let expected = format!("1 to {} different label values other than 0", Class::MOST);
            Err(Error::invalid("classes", expected, found, "name each class once"))
        };
        if values.is_empty() || values.len() > Class::MOST {
            return refuse(format!("{} of them", values.len()));
        }
        if values.contains(&0) || values.iter().collect::<BTreeSet<_>>().len() < values.len() {
            return refuse(format!("{values:?}"));
        }
        Ok(Self { values })
    }

    /// A map with one of the classes.
    pub fn only(&self, class: Class) -> Self {
        Self { values: vec![self.value(class)] }
    }

    /// Number of classes, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a map is never empty")]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The classes in order.
    pub fn iter(&self) -> impl Iterator<Item = Class> + use<> {
        (0..self.values.len()).map(Class::at)
    }

    /// Label values in the order of the classes.
    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// The label value of a class.
    pub fn value(&self, class: Class) -> i32 {
        self.values[class.index()]
    }

    /// The class of a label value.
    pub fn class(&self, value: i32) -> Option<Class> {
        self.values.iter().position(|&v| v == value).map(Class::at)
    }

    /// The channel of a label value; 0 for every other value.
    pub fn channel(&self, value: i32) -> u8 {
        self.class(value).map_or(0, |class| class.channel() as u8)
    }

    /// The label value of a channel; 0 for the background.
    pub fn value_of_channel(&self, channel: u8) -> i32 {
        Class::of_channel(usize::from(channel)).map_or(0, |class| self.value(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_index_and_channel_belong_together() {
        let classes = ClassMap::new([500, 200, 600]).unwrap();
        for (index, class) in classes.iter().enumerate() {
            assert_eq!((class.index(), class.channel()), (index, index + 1));
            let value = classes.value(class);
            assert_eq!(classes.class(value), Some(class));
            assert_eq!(classes.value_of_channel(classes.channel(value)), value);
        }
        assert_eq!((classes.channel(7), classes.value_of_channel(0), classes.class(0)), (0, 0, None));
        assert_eq!(classes.only(Class::at(2)).values(), [600]);
    }

    #[test]
    fn unfit_values_are_refused() {
        for values in [vec![], vec![1, 0], vec![3, 3], (1..=256).collect()] {
            assert!(ClassMap::new(values).is_err());
        }
        assert_eq!(ClassMap::new((1..=255).collect::<Vec<_>>()).unwrap().len(), 255);
    }
}
