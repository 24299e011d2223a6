//! Refuses work that would not fit into memory, before it begins.

use crate::config::Config;
use crate::device::{self, CudaStatus};
use crate::error::{Error, Result};
use crate::network::MemoryEstimate;
use crate::units;
use tch::Device;

/// What lowers the need of segmenting.
pub const SEGMENTING: &str = "lower inference.templates by --set, or try all the same with a higher --memory-limit";

/// What the configuration's network needs for scans of the size that it sees.
pub fn estimate(config: &Config) -> MemoryEstimate {
    let size_vox = config.preprocessing.typical_size_vox();
    let (regions, classes) = (config.episode.regions, config.data.usual_classes().len());
    let mut estimate = MemoryEstimate::of(&config.network(), size_vox, config.inference.templates, regions, classes);
    estimate.segmenting_bytes += config.inference.registration.bytes();
    estimate
}

/// Refuses work that needs too many bytes.
///
/// # Errors
/// `work` needs more than `limit`, or on a GPU more than the GPU has. None: nothing is too much.
pub fn check(work: &str, needed: u64, limit: Option<u64>, device: Device, remedy: &str) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let (limit, place) = match device {
        Device::Cuda(index) => (gpu_bytes(index, device::cuda_status()), "on the GPU"),
        _ => (Some(limit), "within the limit"),
    };
    let Some(limit) = limit.filter(|&limit| needed > limit) else { return Ok(()) };
    let expected = format!("at most the {} that are {place}", units::bytes(limit));
    let found = format!("a need of about {}", units::bytes(needed));
    Err(Error::invalid(format!("memory for {work}"), expected, found, remedy))
}

/// None where the driver does not say, and then nothing is too much.
fn gpu_bytes(index: usize, status: &CudaStatus) -> Option<u64> {
    match status {
        CudaStatus::Available { devices } => devices.get(index)?.memory_bytes,
        CudaStatus::Absent { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_gpu_does_not_say_is_no_limit() {
        let gpu = |memory_bytes| device::Gpu { name: String::new(), memory_bytes };
        let status = CudaStatus::Available { devices: vec![gpu(Some(8)), gpu(None)] };
        assert_eq!([0, 1].map(|index| gpu_bytes(index, &status)), [Some(8), None]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers_and_a_way_out() {
        let check = |limit| check("training", 3_000_000_000, limit, Device::Cpu, "lower features.f_maps");
        assert!(check(None).is_ok() && check(Some(3_000_000_000)).is_ok());
        let message = check(Some(2_500_000_000)).unwrap_err().to_string();
        for word in ["memory for training", "2.50 GB", "3.00 GB", "lower features.f_maps"] {
            assert!(message.contains(word), "{message}");
        }
    }
}
