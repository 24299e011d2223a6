//! How libtorch's threads and rayon's share the cores.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives `threads` threads (all that the process may use when `None`) to both pools: libtorch's OpenMP one and rayon's.
///
/// They share the cores by taking turns. A stage computes either in tensors or in arrays, and a pool that waits sleeps
/// (see [`sleep_while_waiting`]), so each may be as wide as the machine. Rayon's pool is built once in a process: a
/// second call only changes libtorch's. Results do not depend on rayon's width.
pub fn share(threads: Option<usize>) {
    let threads = threads.unwrap_or_else(usable).max(1);
    tch::set_num_threads(threads as i32);
    // An error means that the pool stands already, as documented above.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Cores that the process may use: affinity and cgroup quota counted.
pub fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What OpenMP reads when libtorch is loaded, before `main`; whoever has set one of them knows what he wants.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
const SET_BY_USER: [&str; 3] = [WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

/// Makes OpenMP's threads sleep while they wait, by starting this program anew with its variable set.
///
/// By default they spin for milliseconds after each of libtorch's loops: time that rayon's threads and the thread that
/// prepares the next episode want, and any other program on the machine.
pub fn sleep_while_waiting() {
    if SET_BY_USER.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // Returns only where the program cannot be started: then it goes on as it is.
    let _ = Command::new(program).arg0(name).args(arguments).env(WAIT_POLICY, "PASSIVE").exec();
}
