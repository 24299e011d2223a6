//! How the process ends where it gets no memory and no threads: with one line and exit code 1, whatever is under way.
//!
//! A failed allocation can happen anywhere, in our code, in libtorch, on a worker that others wait for, and in the middle of
//! what would report it. Unwinding from there hangs or aborts. So the process says its line without allocating anything, removes
//! the files that are half-written, and ends at once.

use crate::artifact;
use crate::device::memory;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char, c_int};
use std::fmt::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The system's allocator; an allocation that fails ends the process.
pub struct Allocator;

// SAFETY: each call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller has promised, here and below.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        given(unsafe { System.realloc(pointer, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[inline]
fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        end(&Lack::Memory { bytes: Some(bytes) });
    }
    pointer
}

/// What there is not enough of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// Of the host; `bytes` more were asked for.
    Memory { bytes: Option<usize> },
    /// Of a GPU.
    GpuMemory,
    /// Another one could not be started.
    Threads,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let remedy = "free memory or raise the limit on it (ulimit -v), lower --threads, or work on smaller scans";
        match self {
            Self::Memory { bytes: Some(bytes) } => {
                write!(f, "memory: expected room for {:.1} MB more, found none; {remedy}", *bytes as f64 / 1e6)
            }
            Self::Memory { bytes: None } => write!(f, "memory: expected room for more, found none; {remedy}"),
            Self::GpuMemory => write!(
                f,
                "memory of the GPU: expected room for more, found none; end other programs on it, lower \
                 inference.templates or preprocessing.size_vox, or use --device cpu"
            ),
            Self::Threads => write!(
                f,
                "threads: expected to start another one, found no room for it; raise the limits on memory and processes \
                 (ulimit -v, ulimit -u), or lower --threads"
            ),
        }
    }
}

impl Lack {
    /// What the message of a panic or an exception complains of; None of a bug.
    fn of(message: &str) -> Option<Self> {
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match () {
            () if says(&["CUDA out of memory", "CUDA error: out of memory"]) => Some(Self::GpuMemory),
            () if says(&["failed to spawn thread", "Resource temporarily unavailable", "ThreadPoolBuildError"]) => {
                Some(Self::Threads)
            }
            () if says(&["allocate memory", "bad_alloc", "out of memory", "Out of memory", "OutOfMemory"]) => {
                Some(Self::Memory { bytes: None })
            }
            () => None,
        }
    }
}

/// Lets panics, C++ exceptions that nothing catches, and null pointers of kernels that got no memory end the process: with the
/// line of what is lacking; or, where they show a bug, with their message, a request to report it, and exit code 101.
pub fn end_at_panics() {
    end_at_exceptions();
    end_at_null_pointers();
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message = message_of(info);
        if let Some(lack) = Lack::of(message).or_else(|| of_libtorch(message)) {
            end(&lack);
        }
        claim();
        default(info);
        say("ssl3d: this is a fault of ssl3d: please report it, with the lines above and the command");
        leave(101);
    }));
}

/// With less left, memory is what a fault inside of libtorch is put down to.
const TIGHT_BYTES: u64 = 512 << 20;

/// What libtorch's kernels say where they get no memory ("could not create a primitive") says nothing of it.
fn of_libtorch(message: &str) -> Option<Lack> {
    let tight = || memory::host().is_some_and(|memory| memory.available_bytes < TIGHT_BYTES);
    (message.contains("Torch(") && tight()).then_some(Lack::Memory { bytes: None })
}

fn message_of<'a>(info: &'a PanicHookInfo) -> &'a str {
    let payload = info.payload();
    payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied()).unwrap_or("")
}

unsafe extern "C" {
    // The C++ standard library: libtorch needs it in any case.
    #[link_name = "_ZSt13set_terminatePFvvE"]
    fn set_terminate(handler: extern "C" fn()) -> *const ();
    fn __cxa_current_exception_type() -> *const TypeInfo;
}

/// The beginning of a `std::type_info` (Itanium C++ ABI, 2.9.4).
#[repr(C)]
struct TypeInfo {
    table: *const (),
    name: *const c_char,
}

/// The half of [`end_at_panics`] that can be in place before libtorch is initialised.
pub extern "C" fn end_at_exceptions() {
    // SAFETY: the handler never returns, as it has to.
    unsafe { set_terminate(end_at_exception) };
}

extern "C" fn end_at_exception() {
    // SAFETY: the pointer is null or to the type of the exception under way; its name is a constant.
    let name = unsafe { __cxa_current_exception_type().as_ref().map(|about| CStr::from_ptr(about.name)) };
    let name = name.and_then(|name| name.to_str().ok()).unwrap_or("no exception");
    match name {
        "St12system_error" => end(&Lack::Threads), // std::thread is what throws it
        _ => match Lack::of(name) {
            Some(lack) => end(&lack),
            None => {
                claim();
                let mut line = Line::new();
                let _ = write!(line, "ssl3d: libtorch ended with {name}: please report it, with the command");
                line.say();
                leave(101)
            }
        },
    }
}

/// oneDNN writes its kernels at run time, and calls one through a null pointer where it got no memory for it.
fn end_at_null_pointers() {
    // SAFETY: the handler calls nothing that may not be called from a signal; an action of zeros is the default one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = at_segmentation_fault as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before = std::mem::zeroed();
        if libc::sigaction(libc::SIGSEGV, ptr::null(), &mut before) == 0 && BEFORE.set(before).is_ok() {
            libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut());
        }
    }
}

/// What became of a segmentation fault before, Rust's own word on stacks that overflow.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

extern "C" fn at_segmentation_fault(signal: c_int, about: *const libc::siginfo_t, _context: *const ()) {
    const FIRST_PAGE: usize = 4096;
    // SAFETY: the kernel gives where the fault is. The mapping is never written to, and the process is about to end.
    unsafe {
        let tight = || {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(ptr::null_mut(), TIGHT_BYTES as usize, access, kind, -1, 0) == libc::MAP_FAILED
        };
        if ((*about).si_addr() as usize) < FIRST_PAGE && tight() {
            end(&Lack::Memory { bytes: None });
        }
        // The instruction fails once more, and this time as it always did.
        if let Some(before) = BEFORE.get() {
            libc::sigaction(signal, before, ptr::null_mut());
        }
    }
}

/// Where the last line goes.
static STDERR: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);

/// Does the first work for all threads. Where OpenMP gets no thread it says so in words of its own, in two lines, and exits: its
/// words are dropped, and the exit says ours. Nobody else may print meanwhile.
pub(super) fn start_openmp(work: impl FnOnce()) {
    extern "C" fn at_exit() {
        if STDERR.load(Ordering::SeqCst) != libc::STDERR_FILENO {
            end(&Lack::Threads);
        }
    }
    // SAFETY: plain calls of the C library on descriptors that are ours.
    unsafe {
        let (kept, nowhere) = (libc::dup(libc::STDERR_FILENO), libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY));
        if kept >= 0 && nowhere >= 0 && libc::atexit(at_exit) == 0 {
            STDERR.store(kept, Ordering::SeqCst);
            libc::dup2(nowhere, libc::STDERR_FILENO);
        }
        work();
        if STDERR.swap(libc::STDERR_FILENO, Ordering::SeqCst) == kept {
            libc::dup2(kept, libc::STDERR_FILENO);
        }
        for descriptor in [kept, nowhere].into_iter().filter(|&descriptor| descriptor >= 0) {
            libc::close(descriptor);
        }
    }
}

/// The thread that speaks last.
static SPEAKER: AtomicUsize = AtomicUsize::new(0);

/// Only the first thread goes on; and it does so again where it fails once more on its way.
fn claim() {
    // SAFETY: these calls cannot fail.
    let me = unsafe { libc::pthread_self() } as usize;
    if SPEAKER.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_err_and(|speaker| speaker != me) {
        loop {
            unsafe { libc::pause() };
        }
    }
}

#[cold]
fn end(lack: &Lack) -> ! {
    claim();
    let mut line = Line::new();
    let _ = write!(line, "ssl3d: {lack}");
    line.say();
    leave(1)
}

fn leave(code: c_int) -> ! {
    artifact::abandon();
    // SAFETY: ends the process; nothing that other threads hold is waited for.
    unsafe { libc::_exit(code) }
}

fn say(text: &str) {
    let mut line = Line::new();
    let _ = line.write_str(text);
    line.say();
}

/// A line that takes no memory.
struct Line {
    bytes: [u8; 400],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; 400], length: 0 }
    }

    /// Writes it on standard error, or loses it.
    fn say(&mut self) {
        self.bytes[self.length] = b'\n';
        // SAFETY: the pointer is to as many bytes.
        unsafe { libc::write(STDERR.load(Ordering::SeqCst), self.bytes.as_ptr().cast(), self.length + 1) };
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_from_bugs() {
        const NEEDS: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] . \
            DefaultCPUAllocator: can't allocate memory: you tried to allocate 4194304 bytes. Error code 12\")";
        for (message, lack) in [
            (NEEDS, Some(Lack::Memory { bytes: None })),
            ("std::bad_alloc", Some(Lack::Memory { bytes: None })),
            ("St9bad_alloc", Some(Lack::Memory { bytes: None })),
            ("N3c1016OutOfMemoryErrorE", Some(Lack::Memory { bytes: None })),
            ("Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")", Some(Lack::GpuMemory)),
            ("failed to spawn thread: Os { code: 11, kind: WouldBlock }", Some(Lack::Threads)),
            ("index out of bounds: the len is 3 but the index is 3", None),
            ("a query has a memory of its supports", None),
            ("", None),
        ] {
            assert_eq!(Lack::of(message), lack, "{message}");
        }
    }

    #[test]
    fn lines_fit_into_their_place() {
        let mut line = Line::new();
        write!(line, "{}", Lack::Memory { bytes: Some(33_600_000) }).unwrap();
        let text = std::str::from_utf8(&line.bytes[..line.length]).unwrap();
        assert!(text.starts_with("memory: expected room for 33.6 MB more, found none; free"), "{text}");
        for lack in [Lack::Memory { bytes: Some(usize::MAX) }, Lack::GpuMemory, Lack::Threads] {
            assert!(lack.to_string().len() + 10 < line.bytes.len(), "{lack}");
        }
        write!(line, "{}", "x".repeat(1000)).unwrap();
        assert_eq!(line.length, line.bytes.len() - 1);
    }
}
