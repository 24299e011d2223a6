//! Number of threads for libtorch and rayon.

use super::exhaustion;
use crate::error::{Error, Result};
use std::error::Error as _;
use std::sync::Mutex;

/// Gives `threads` threads (all that the process may use when `None`) to both pools: libtorch's OpenMP one and rayon's.
///
/// They share the cores by taking turns: a stage computes either in tensors or in arrays, and the pool that waits leaves
/// the cores to the other, so each may be as wide as the machine. OpenMP's threads first spin for about a millisecond.
/// That costs little here, and makes a training step some percent faster than threads that sleep at once; beside other
/// busy programs sleeping ones (`OMP_WAIT_POLICY=PASSIVE`, read before `main`) are faster by a third. Rayon's pool is
/// built once in a process: a second call only changes libtorch's. Results do not depend on rayon's width.
///
/// More threads than [`usable`] would only wait for each other, so no more are started. Returns their number.
///
/// # Errors
/// The threads cannot be started.
pub fn share(threads: Option<usize>) -> Result<usize> {
    let threads = threads.unwrap_or(usize::MAX).clamp(1, usable());
    tch::set_num_threads(threads as i32);
    let refused = |fault: String| {
        let remedy = "raise the limits on memory and processes (ulimit -v, ulimit -u), or lower --threads";
        Error::invalid("threads", format!("to start {threads} of them"), fault, remedy)
    };
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    // Without a cause the pool stands already, as documented above.
    if let Some(fault) = built.as_ref().err().and_then(|fault| fault.source()) {
        return Err(refused(fault.to_string()));
    }
    if threads > 1 {
        try_out(threads).map_err(|fault| refused(fault.to_string()))?;
        // OpenMP starts its threads at the first work for all of them.
        exhaustion::start_openmp(|| {
            let _ = tch::Tensor::ones([WORK_FOR_ALL * threads as i64], (tch::Kind::Float, tch::Device::Cpu)).sin();
        });
    }
    Ok(threads)
}

/// libtorch divides element-wise work into parts of this size.
const WORK_FOR_ALL: i64 = 1 << 15;
/// Stack of an OpenMP thread.
const STACK_BYTES: usize = 8 << 20;

/// Whether as many threads can be had at a time: OpenMP does not say so but ends the process.
fn try_out(threads: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        let _closed = gate.lock();
        let wait = || drop(gate.lock());
        (1..threads)
            .try_for_each(|_| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, wait).map(drop))
    })
}

/// Number of cores that the process may use, within its affinity and cgroup quota.
pub fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
