//! The device of the tensors, chosen by `--device`, and the host's threads and memory, and the end where they do not suffice.
//!
//! One binary serves machines with and without a GPU. The linker drops `libtorch_cuda.so`, since no symbol of it is
//! used, so [`cuda_status`] opens it at run time. libtorch looks for its CUDA library once and keeps the result,
//! therefore [`resolve`] has to run before any other use of CUDA: random seeds, `tch::Cuda`, the first tensor on a GPU.

mod cuda;
pub mod exhaustion;
pub mod memory;
pub mod threads;

pub use cuda::{CudaStatus, Gpu, Libtorch, cuda_status, libtorch};

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Value of the flag `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The first GPU where there is a usable one, the processor otherwise.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number, counted from 0.
    Cuda(usize),
}

impl FromStr for Request {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().ok().map(Self::Cuda);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_owned())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The chosen device.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Device for the tensors.
    pub device: tch::Device,
    /// The device and, where it is the processor, the reason: "cuda:0, NVIDIA H100 (85.00 GB)", "cpu, since there is no
    /// GPU".
    pub why: String,
}

/// Turns the request into a device. Opens CUDA except for [`Request::Cpu`].
///
/// # Errors
/// The requested GPU is not usable: the error has the reason and the remedy. The processor never replaces it silently.
pub fn resolve(request: Request) -> Result<Chosen> {
    match request {
        Request::Cpu => choose(request, &CudaStatus::Available { devices: Vec::new() }),
        Request::Auto | Request::Cuda(_) => choose(request, cuda_status()),
    }
}

fn choose(request: Request, status: &CudaStatus) -> Result<Chosen> {
    let on_gpu =
        |index: usize, gpu: &Gpu| Chosen { device: tch::Device::Cuda(index), why: format!("cuda:{index}, {gpu}") };
    match (request, status) {
        (Request::Cpu, _) => Ok(Chosen { device: tch::Device::Cpu, why: "cpu".to_owned() }),
        (Request::Auto, CudaStatus::Available { devices }) => match devices.first() {
            Some(gpu) => Ok(on_gpu(0, gpu)),
            None => Ok(Chosen { device: tch::Device::Cpu, why: "cpu, since there is no GPU".to_owned() }),
        },
        (Request::Auto, CudaStatus::Absent { reason, .. }) => {
            Ok(Chosen { device: tch::Device::Cpu, why: format!("cpu, since {reason}") })
        }
        (Request::Cuda(index), CudaStatus::Available { devices }) => match devices.get(index) {
            Some(gpu) => Ok(on_gpu(index, gpu)),
            None => Err(Error::flag(
                format!("--device {request}"),
                format!("a number below {}, counted from 0", devices.len()),
                index.to_string(),
                "see `ssl3d info` for the devices",
            )),
        },
        (Request::Cuda(_), CudaStatus::Absent { reason, remedy }) => Err(Error::flag(
            format!("--device {request}"),
            "a usable GPU",
            format!("that {reason}"),
            format!("{remedy}, or use --device cpu"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_they_print() {
        for text in ["auto", "cpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<Request>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Request>().unwrap(), Request::Cuda(0));
        for text in ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""] {
            let line = text.parse::<Request>().unwrap_err();
            assert!(line.contains("auto, cpu, cuda or cuda:N"), "{line}");
        }
    }

    #[test]
    fn a_device_that_is_asked_for_and_absent_is_an_error_with_the_reason_and_the_way_out() {
        let absent = CudaStatus::Absent { reason: "there is no driver".into(), remedy: "install it".into() };
        let line = choose(Request::Cuda(0), &absent).unwrap_err().to_string();
        assert_eq!(
            line,
            "--device cuda:0: expected a usable GPU, found that there is no driver; install it, or use --device cpu"
        );
        let one =
            CudaStatus::Available { devices: vec![Gpu { name: "A GPU".into(), memory_bytes: Some(8_000_000_000) }] };
        let line = choose(Request::Cuda(1), &one).unwrap_err().to_string();
        assert!(line.contains("expected a number below 1"), "{line}");
    }

    #[test]
    fn auto_says_what_it_chose() {
        let absent = CudaStatus::Absent { reason: "there is no driver".into(), remedy: "install it".into() };
        let one =
            CudaStatus::Available { devices: vec![Gpu { name: "A GPU".into(), memory_bytes: Some(8_000_000_000) }] };
        for (status, device, why) in [
            (absent, tch::Device::Cpu, "cpu, since there is no driver"),
            (one, tch::Device::Cuda(0), "cuda:0, A GPU (8.00 GB)"),
        ] {
            assert_eq!(choose(Request::Auto, &status).unwrap(), Chosen { device, why: why.into() });
        }
    }

    #[test]
    fn both_pools_get_the_threads_that_were_asked_for_and_no_more_than_there_are() {
        for (asked_for, given) in [(Some(1), 1), (None, threads::usable()), (Some(3000), threads::usable())] {
            assert_eq!(threads::share(asked_for).unwrap(), given);
            assert_eq!(tch::get_num_threads() as usize, given);
        }
    }

    #[test]
    fn on_this_machine_auto_works_and_cuda_works_or_says_why_not() {
        let chosen = resolve(Request::Auto).unwrap();
        let sum = tch::Tensor::ones([3], (tch::Kind::Float, chosen.device)).sum(tch::Kind::Float).double_value(&[]);
        assert_eq!(sum, 3.0);
        match (resolve(Request::Cuda(0)), chosen.device) {
            (Ok(gpu), device) => assert_eq!(gpu.device, device),
            (Err(fault), device) => {
                assert_eq!(device, tch::Device::Cpu);
                assert!(fault.to_string().contains("--device cpu"), "{fault}");
            }
        }
    }
}
