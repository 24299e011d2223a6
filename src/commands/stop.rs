//! SIGINT, SIGTERM, SIGUSR1 and SIGHUP ask for a stop after the step under way; a second SIGINT stops at once. SIGHUP does
//! nothing where it is ignored already, as under nohup.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};

/// One flag for the process: a stage that ends before it looks leaves the request to the next.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static REGISTERED: Once = Once::new();

/// A flag that the signals raise.
///
/// # Errors
/// The signals cannot be listened to.
pub fn on_signals() -> Result<Arc<AtomicBool>> {
    let mut outcome = Ok(());
    REGISTERED.call_once(|| outcome = register(&STOP));
    outcome.map(|()| Arc::clone(&STOP))
}

/// Ends a stage that saves nothing on its way, if a signal that some stage before it listens to has asked for it.
///
/// # Errors
/// A stop has been requested.
pub fn check() -> Result<()> {
    if STOP.load(Ordering::Relaxed) {
        return Err(Error::Stopped { saved: "the last finished step".to_owned() });
    }
    Ok(())
}

/// Makes a file that reaches the limit on its size (`ulimit -f`) a fault that is named, where the kernel would end the process.
///
/// # Errors
/// The signal cannot be listened to.
pub fn name_full_files() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop).map_err(failed)
}

fn failed(fault: std::io::Error) -> Error {
    Error::io("listen to signals for", Path::new("this process"))(fault)
}

fn register(stop: &Arc<AtomicBool>) -> Result<()> {
    // Registered first: the flag is still down at the first SIGINT and up at the second.
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(stop)).map_err(failed)?;
    let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hang_up) {
        flag::register(signal, Arc::clone(stop)).map_err(failed)?;
    }
    Ok(())
}

/// Whether the process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
