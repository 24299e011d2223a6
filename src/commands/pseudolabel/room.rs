//! How much of the memory the supervoxels of a scan take, and whose turn it is.

use crate::error::{Error, Result};
use crate::supervoxels::{Blocks, Method};
use crate::units;
use crate::volume::Geometry;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes a voxel takes while it is read, or its region written: twice at 32 bits, and as the file has it.
const FILE_BYTES: u64 = 12;

/// The memory that the scans share which are divided at a time.
pub struct Room {
    /// None: nothing is too much.
    total: Option<u64>,
    free: Mutex<u64>,
    returned: Condvar,
}

/// A part of the room, until it is dropped.
pub struct Share<'a> {
    room: &'a Room,
    bytes: u64,
}

/// How a scan is divided.
pub struct Plan {
    /// Each of them a voxel where there is room for that.
    pub blocks: Blocks,
    /// What that takes.
    pub bytes: u64,
    /// Why there are blocks.
    pub reason: Option<String>,
}

impl Room {
    /// `limit`: bytes.
    pub fn new(limit: Option<u64>) -> Self {
        Self { total: limit, free: Mutex::new(limit.unwrap_or(u64::MAX)), returned: Condvar::new() }
    }

    /// Waits for this many bytes, or all that there are.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.total.unwrap_or(u64::MAX));
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share { room: self, bytes }
    }

    /// As voxels where there is room for them, else as the smallest blocks for which there is.
    ///
    /// # Errors
    /// There is no room for the regions themselves.
    pub fn plan(&self, image: &Path, geometry: &Geometry, method: Method, most_vox: usize) -> Result<Plan> {
        let voxels = geometry.shape_vox.iter().product::<usize>();
        let (limit, per_vox) = (self.total.unwrap_or(u64::MAX), method.bytes_per_vox());
        let [in_file, needed] = [FILE_BYTES, per_vox].map(|bytes| (voxels as u64).saturating_mul(bytes));
        if in_file > limit {
            let [z, y, x] = geometry.shape_vox;
            let expected = format!("a volume whose supervoxels can be written within {}", units::bytes(limit));
            let found = format!("{z} x {y} x {x} voxels, which take {}", units::bytes(in_file));
            let remedy = "free memory, raise --memory-limit, or resample it with ssl3d prepare nifti --spacing";
            return Err(Error::file(image, expected, found, remedy));
        }
        let within = most_vox.min(usize::try_from(limit / per_vox).unwrap_or(usize::MAX));
        let blocks = Blocks::at_most(within, geometry, method);
        let reason = (!blocks.are_voxels()).then(|| {
            let [z, y, x] = blocks.size_vox;
            let why = match needed > limit {
                true => format!("would take {}, with {} as the limit", units::bytes(needed), units::bytes(limit)),
                false => format!("are more than the {} that it divides", units::thousands(most_vox as u64)),
            };
            let voxels = units::thousands(voxels as u64);
            format!("its {voxels} voxels {why}; supervoxels are computed on blocks of {z} x {y} x {x} voxels (z y x)")
        });
        let bytes = in_file.max((blocks.count() as u64).saturating_mul(per_vox));
        Ok(Plan { blocks, bytes, reason })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.room.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.room.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_scan_is_divided_as_it_is_where_it_fits_into_blocks_where_it_does_not_and_refused_where_it_cannot_be_written() {
        let geometry = Geometry::with_spacing([1800, 512, 512], [1.0, 0.8, 0.8]);
        let (path, voxels) = (Path::new("ct.nii"), 1800 * 512 * 512);
        let plan = |limit, method: Method| Room::new(limit).plan(path, &geometry, method, method.most_vox());
        let whole = plan(Some(voxels * Method::Slic.bytes_per_vox()), Method::Slic).unwrap();
        assert!(whole.blocks.are_voxels() && whole.reason.is_none());
        assert_eq!(whole.bytes, voxels * Method::Slic.bytes_per_vox());

        let coarse = plan(Some(8_000_000_000), Method::Felzenszwalb).unwrap();
        assert_eq!((coarse.blocks.size_vox, coarse.bytes), ([1, 2, 2], voxels / 4 * 64));
        let reason = coarse.reason.unwrap();
        for part in ["471,859,200 voxels would take 30.20 GB, with 8.00 GB as the limit", "blocks of 1 x 2 x 2 voxels"]
        {
            assert!(reason.contains(part), "{reason}");
        }
        let many = plan(None, Method::Felzenszwalb).unwrap().reason.unwrap();
        assert!(many.contains("are more than the 330,382,098 that it divides"), "{many}");
        let fault = plan(Some(5_000_000_000), Method::Slic).err().unwrap().to_string();
        for part in ["ct.nii: expected a volume", "within 5.00 GB, found 1800 x 512 x 512 voxels, which take 5.66 GB"] {
            assert!(fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn no_more_is_taken_at_a_time_than_there_is_and_the_largest_gets_its_turn() {
        let (room, held, most) = (Room::new(Some(10)), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [4, 5, 99, 3, 10, 6, 1, 0] {
                let (room, held, most) = (&room, &held, &most);
                scope.spawn(move || {
                    let share = room.take(bytes);
                    most.fetch_max(held.fetch_add(share.bytes, Ordering::SeqCst) + share.bytes, Ordering::SeqCst);
                    std::thread::yield_now();
                    held.fetch_sub(share.bytes, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 10);
        assert_eq!(*room.free.lock().unwrap(), 10);
    }
}
