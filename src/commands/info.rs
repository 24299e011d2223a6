//! `ssl3d info`: what runs here, on what, and how much memory a config would take.

use crate::cli;
use crate::commands::{memory, progress};
use crate::config;
use crate::device::{self, CudaStatus, Libtorch, memory::Memory};
use crate::error::Result;
use crate::network::MemoryEstimate;
use crate::units;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;

/// Prints what runs here, and what the configuration would take.
///
/// # Errors
/// The configuration is faulty.
pub fn run(args: &cli::Info) -> Result<()> {
    let config = args.config.as_ref().map(|path| config::load(Some(path), &args.overrides.set)).transpose()?;
    let estimate = config.as_ref().map(memory::estimate);
    let machine = Machine::look();
    let text = if args.json { machine.json(estimate.as_ref()) } else { machine.text(estimate.as_ref()) };
    progress::print(&text);
    Ok(())
}

struct Machine {
    libtorch: Libtorch,
    processor: String,
    threads: Threads,
    memory: Option<Memory>,
    cuda: CudaStatus,
}

#[derive(Serialize)]
struct Threads {
    usable: usize,
    rayon: usize,
    torch: usize,
}

impl Machine {
    fn look() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cuda: device::cuda_status().clone(),
            libtorch: device::libtorch(),
            processor: processor(&cpuinfo).unwrap_or(std::env::consts::ARCH).to_owned(),
            threads: Threads {
                usable: device::threads::usable(),
                rayon: rayon::current_num_threads(),
                torch: tch::get_num_threads() as usize,
            },
            memory: device::memory::host(),
        }
    }

    fn text(&self, estimate: Option<&MemoryEstimate>) -> String {
        let mut lines = format!("ssl3d      {}\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| writeln!(lines, "{name:<10} {value}").expect("writing to a string");
        let Libtorch { version, folder, with_cuda } = &self.libtorch;
        let build = if *with_cuda { "with CUDA" } else { "CPU only" };
        line("libtorch", format!("{version} ({build}) in {}", folder.display()));
        let Threads { usable, rayon, torch } = self.threads;
        line("processor", format!("{}, {usable} threads (rayon {rayon}, libtorch {torch})", self.processor));
        if let Some(Memory { total_bytes, available_bytes }) = self.memory {
            line("memory", format!("{} available of {}", units::bytes(available_bytes), units::bytes(total_bytes)));
        }
        line("device", "cpu".to_owned());
        match &self.cuda {
            CudaStatus::Available { devices } => {
                for (index, gpu) in devices.iter().enumerate() {
                    line("device", format!("cuda:{index}, {gpu}"));
                }
            }
            CudaStatus::Absent { reason, remedy } => line("no CUDA", format!("{reason}; {remedy}")),
        }
        if let Some(estimate) = estimate {
            let MemoryEstimate { parameters, training_bytes, segmenting_bytes } = *estimate;
            let (training, segmenting) = (units::bytes(training_bytes), units::bytes(segmenting_bytes));
            line("network", format!("{} parameters", units::thousands(parameters)));
            line("will take", format!("about {training} to train, about {segmenting} to segment"));
        }
        lines
    }

    fn json(&self, estimate: Option<&MemoryEstimate>) -> String {
        let (gpus, reason, remedy) = match &self.cuda {
            CudaStatus::Available { devices } => (devices.as_slice(), None, None),
            CudaStatus::Absent { reason, remedy } => (&[][..], Some(reason), Some(remedy)),
        };
        let gpu = |(index, gpu): (usize, &device::Gpu)| json!({ "device": format!("cuda:{index}"), "name": gpu.name, "memory_bytes": gpu.memory_bytes });
        let document = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "libtorch": {
                "version": self.libtorch.version,
                "folder": self.libtorch.folder,
                "with_cuda": self.libtorch.with_cuda,
            },
            "processor": self.processor,
            "threads": self.threads,
            "memory": self.memory.map(|memory| json!({
                "total_bytes": memory.total_bytes,
                "available_bytes": memory.available_bytes,
            })),
            "cuda": {
                "available": !gpus.is_empty(),
                "devices": gpus.iter().enumerate().map(gpu).collect::<Vec<_>>(),
                "reason": reason,
                "remedy": remedy,
            },
            "estimate": estimate.map(|estimate| json!({
                "parameters": estimate.parameters,
                "training_bytes": estimate.training_bytes,
                "segmenting_bytes": estimate.segmenting_bytes,
            })),
        });
        format!("{document:#}\n")
    }
}

/// The model name in `/proc/cpuinfo`; ARM kernels give none.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gpu;

    fn machine(cuda: CudaStatus) -> Machine {
        Machine {
            libtorch: Libtorch { version: "2.13.0".into(), folder: "/x/lib".into(), with_cuda: false },
            processor: "A processor".into(),
            threads: Threads { usable: 2, rayon: 2, torch: 1 },
            memory: Some(Memory { total_bytes: 8_000_000_000, available_bytes: 7_500_000_000 }),
            cuda,
        }
    }

    fn estimate() -> MemoryEstimate {
        MemoryEstimate { training_bytes: 1_940_000_000, segmenting_bytes: 85_000_000, parameters: 4_081_904 }
    }

    #[test]
    fn the_lines_name_devices_reasons_and_the_estimate() {
        let absent = CudaStatus::Absent { reason: "there is no driver".into(), remedy: "install it".into() };
        let text = machine(absent).text(Some(&estimate()));
        for part in [
            "libtorch   2.13.0 (CPU only) in /x/lib",
            "processor  A processor, 2 threads (rayon 2, libtorch 1)",
            "memory     7.50 GB available of 8.00 GB",
            "no CUDA    there is no driver; install it",
            "4,081,904 parameters",
            "about 1.94 GB to train, about 85.0 MB to segment",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let gpu = Gpu { name: "A GPU".into(), memory_bytes: Some(8_000_000_000) };
        let text = machine(CudaStatus::Available { devices: vec![gpu] }).text(None);
        assert!(text.contains("cuda:0, A GPU (8.00 GB)") && !text.contains("no CUDA"), "{text}");
    }

    #[test]
    fn the_json_keys_stay_where_there_is_nothing_to_say() {
        let machine = machine(CudaStatus::Available { devices: Vec::new() });
        for memory in [None, Some(estimate())] {
            let document: serde_json::Value = serde_json::from_str(&machine.json(memory.as_ref())).unwrap();
            for key in ["version", "libtorch", "processor", "threads", "memory", "cuda", "estimate"] {
                assert!(document.get(key).is_some(), "{key}");
            }
            assert_eq!(document["estimate"]["parameters"].as_u64(), memory.map(|memory| memory.parameters));
            assert!(document["cuda"]["reason"].is_null());
        }
    }
}
