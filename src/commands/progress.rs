//! All that is printed: results to standard output; notes, warnings, faults and progress (a bar on a terminal, a plain line now
//! and then elsewhere) to standard error. Neither stops the work where nobody reads, or where the disk is full.

use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static QUIET: AtomicBool = AtomicBool::new(false);

/// `--quiet`: no bars, no notes; warnings, errors and results are still printed.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Why standard output could not be written to, the first time.
static OUTPUT_FAULT: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a result on standard output. Work goes on where that fails: [`output_outcome`] says so at its end.
pub fn print(text: &str) {
    if cfg!(test) {
        return print!("{text}");
    }
    let mut stdout = io::stdout().lock();
    printed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Takes notice of what became of printing on standard output.
pub fn printed(outcome: io::Result<()>) {
    let outcome = outcome.and_then(|()| io::stdout().flush());
    let Ok(mut fault) = OUTPUT_FAULT.lock() else { return };
    // Whoever closes a pipe has read enough.
    if let Err(found) = outcome
        && found.kind() != ErrorKind::BrokenPipe
        && fault.is_none()
    {
        *fault = Some(found);
    }
}

/// Whether everything could be printed that somebody waits for.
///
/// # Errors
/// Standard output could not be written to, as on a full disk; a closed pipe is no fault.
pub fn output_outcome() -> Result<()> {
    let fault = OUTPUT_FAULT.lock().ok().and_then(|mut fault| fault.take());
    fault.map_or(Ok(()), |fault| Err(Error::io("write", Path::new("standard output"))(fault)))
}

/// A line on standard error; lost where nobody can read it.
fn say(line: &str) {
    if cfg!(test) {
        return eprintln!("{line}"); // which the test harness holds back
    }
    // In one piece, so that lines of several threads do not mix.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// One long operation of `total` steps. May be shared between threads.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    total: u64,
    plain: Option<Mutex<Plain>>,
}

struct Plain {
    started: Instant,
    /// Steps that an earlier run had done already.
    first: u64,
    last_line: Instant,
    interval: Duration,
}

impl Progress {
    /// Shows `label` and counts from `done` (work of an earlier run) to `total`.
    pub fn new(label: &str, done: u64, total: u64) -> Self {
        let quiet = QUIET.load(Ordering::Relaxed);
        let on_terminal = std::io::stderr().is_terminal();
        let target = if on_terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_position(done);
        bar.set_style(
            ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}")
                .expect("the template is valid"),
        );
        bar.set_prefix(label.to_owned());
        bar.reset_eta();
        let now = Instant::now();
        let interval = Duration::from_secs(10);
        let plain =
            (!on_terminal && !quiet).then(|| Mutex::new(Plain { started: now, first: done, last_line: now, interval }));
        Self { bar, label: label.to_owned(), total, plain }
    }

    /// One step done; `message` says how it goes ("loss 0.41") or is empty.
    pub fn step(&self, message: &str) {
        let message = one_line(message);
        self.bar.inc(1);
        if !message.is_empty() {
            self.bar.set_message(message.clone());
        }
        let Some(plain) = &self.plain else { return };
        let Ok(mut plain) = plain.lock() else { return };
        if plain.last_line.elapsed() < plain.interval {
            return;
        }
        plain.last_line = Instant::now();
        plain.interval = (plain.interval * 2).min(Duration::from_secs(60));
        let done = self.bar.position();
        let rate = (done - plain.first) as f64 / plain.started.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64((self.total.saturating_sub(done)) as f64 / rate.max(1e-9));
        let per = if rate >= 1.0 { format!("{rate:.1}/s") } else { format!("{:.1} s each", 1.0 / rate.max(1e-9)) };
        say(&format!("{}: {done}/{} ({per}, {} left) {message}", self.label, self.total, brief(left)));
    }

    /// A line that stays, above the bar where there is one.
    pub fn note(&self, line: &str) {
        if QUIET.load(Ordering::Relaxed) {
            return;
        }
        let line = one_line(line);
        if self.plain.is_some() { say(&line) } else { self.bar.suspend(|| say(&line)) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line of information, unless `--quiet`.
pub fn note(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        say(&one_line(line));
    }
}

/// A line that is shown always: the result may not be what the user expects.
pub fn warn(line: &str) {
    say(&format!("warning: {}", one_line(line)));
}

/// The line with which a command ends that has failed; with `verbose` a line for each cause behind it.
pub fn fault(error: &Error, verbose: bool) {
    say(&format!("ssl3d: {}", one_line(&error.to_string())));
    let mut cause = std::error::Error::source(error);
    while let (true, Some(deeper)) = (verbose, cause) {
        say(&format!("  because: {deeper}"));
        cause = deeper.source();
    }
}

/// Line breaks and other control characters, which names of files may hold, as `\n` and the like.
pub fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// `1 h 20 min`, `3 min 5 s`, `12 s`.
pub fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        for (seconds, text) in [(5, "5 s"), (185, "3 min 5 s"), (4800, "1 h 20 min")] {
            assert_eq!(brief(Duration::from_secs(seconds)), text);
        }
    }
}
