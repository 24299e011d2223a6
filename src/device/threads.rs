//! Number of threads for libtorch and rayon.

/// Gives `threads` threads (all that the process may use when `None`) to both pools: libtorch's OpenMP one and rayon's.
///
/// They share the cores by taking turns: a stage computes either in tensors or in arrays, and the pool that waits leaves
/// the cores to the other, so each may be as wide as the machine. OpenMP's threads first spin for about a millisecond.
/// That costs little here, and makes a training step some percent faster than threads that sleep at once; beside other
/// busy programs sleeping ones (`OMP_WAIT_POLICY=PASSIVE`, read before `main`) are faster by a third. Rayon's pool is
/// built once in a process: a second call only changes libtorch's. Results do not depend on rayon's width.
pub fn share(threads: Option<usize>) {
    let threads = threads.unwrap_or_else(usable).max(1);
    tch::set_num_threads(threads as i32);
    // An error means that the pool stands already, as documented above.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Number of cores that the process may use, within its affinity and cgroup quota.
pub fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
