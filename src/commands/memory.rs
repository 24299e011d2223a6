//! Refuses work that would not fit into memory, before it begins.

use crate::config::Config;
use crate::device::{self, CudaStatus};
use crate::error::{Error, Result};
use crate::network::MemoryEstimate;
use tch::Device;

/// What lowers the need of segmenting.
pub const SEGMENTING: &str = "lower inference.templates by --set, or try all the same with a higher --memory-limit";

/// What the configuration's network needs for scans of the size that it sees.
pub fn estimate(config: &Config) -> MemoryEstimate {
    let size_vox = config.preprocessing.typical_size_vox();
    let (regions, classes) = (config.episode.regions, config.data.classes.len());
    MemoryEstimate::of(&config.network(), size_vox, config.inference.templates, regions, classes)
}

/// # Errors
/// `work` needs more than `limit`, or on a GPU more than the GPU has. None: nothing is too much.
pub fn check(work: &str, needed: u64, limit: Option<u64>, device: Device, remedy: &str) -> Result<()> {
    let (Some(limit), gpu) = (limit, gpu_bytes(device)) else { return Ok(()) };
    let (limit, place) = gpu.map_or((limit, "within the limit"), |bytes| (bytes, "on the GPU"));
    if needed <= limit {
        return Ok(());
    }
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let expected = format!("at most the {} that are {place}", gigabytes(limit));
    Err(Error::invalid(
        format!("memory for {work}"),
        expected,
        format!("a need of about {}", gigabytes(needed)),
        remedy,
    ))
}

fn gpu_bytes(device: Device) -> Option<u64> {
    match (device, device::cuda_status()) {
        (Device::Cuda(index), CudaStatus::Available { devices }) => Some(devices.get(index)?.memory_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
